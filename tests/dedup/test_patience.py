from __future__ import annotations

import asyncio
import gc
import time

import pytest

from stompbridge.dedup.redis_link import patient


async def test_what_does_not_come_in_time_is_given_up() -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with patient(0.08):
            await asyncio.Event().wait()
    assert time.monotonic() - begun >= 0.07


async def test_what_comes_in_time_is_taken() -> None:
    async with patient(5):
        await asyncio.sleep(0)


async def test_a_pause_of_the_process_is_not_held_against_the_server() -> None:
    answer = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, answer.set)
    async with patient(0.08):
        time.sleep(0.2)  # noqa: ASYNC251 (the pause: nothing of this process runs)
        await answer.wait()


async def test_it_leaves_nothing_to_the_garbage_collector() -> None:
    """There is one for each batch that goes to the store."""
    gc.collect()
    gc.disable()
    try:
        async with patient(5):
            pass
        assert gc.collect() == 0
    finally:
        gc.enable()
