from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from stompbridge.gateway.sweep import Sweep


async def test_calls_all_with_the_loops_time_again_and_again() -> None:
    loop = asyncio.get_running_loop()
    sweep = Sweep(loop, 0.01)
    times: dict[str, list[float]] = {"a": [], "b": []}
    done = asyncio.Event()

    def first(now: float) -> None:
        times["a"].append(now)

    def second(now: float) -> None:
        times["b"].append(now)
        if len(times["b"]) == 3:
            done.set()

    sweep.add(first)
    sweep.add(second)
    before = loop.time()
    sweep.start()
    sweep.start()
    await asyncio.wait_for(done.wait(), 5)
    sweep.stop()
    sweep.stop()
    assert times["a"] == times["b"]
    assert times["a"] == sorted(times["a"])
    assert before < times["a"][0] <= loop.time()
    assert times["a"][2] - times["a"][0] >= 0.015


async def test_an_error_is_logged_and_stops_nothing() -> None:
    sweep = Sweep(asyncio.get_running_loop(), 0.01)
    done = asyncio.Event()
    calls = 0

    def bad(now: float) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("bad")

    sweep.add(bad)
    sweep.add(lambda now: done.set() if calls == 2 else None)
    with capture_logs() as logs:
        sweep.start()
        await asyncio.wait_for(done.wait(), 5)
        sweep.stop()
    assert [entry["event"] for entry in logs] == ["sweep_failed"] * 2


async def test_may_be_stopped_from_a_callback() -> None:
    loop = asyncio.get_running_loop()
    sweep = Sweep(loop, 0.001)
    stopped = asyncio.Event()

    def stop(now: float) -> None:
        if stopped.is_set():
            pytest.fail("called after stop")
        sweep.stop()
        stopped.set()

    sweep.add(stop)
    sweep.start()
    await asyncio.wait_for(stopped.wait(), 5)
    later = asyncio.Event()
    loop.call_later(0.01, later.set)
    await later.wait()
