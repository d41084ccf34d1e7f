from __future__ import annotations

import asyncio

import pytest

from stompbridge.auth.base import AuthRefused, AuthUnavailable
from stompbridge.auth.calls import SharedCalls


class Question:
    """Calls that end when they are told to."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.calls = 0
        self.begun = asyncio.Event()
        self.end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        try:
            await self.end.wait()
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return self.calls


async def begin(calls: SharedCalls[int], question: Question, *keys: bytes) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(calls.run(key, question)) for key in keys]
    await asyncio.wait_for(question.begun.wait(), 5)
    await asyncio.sleep(0)
    return tasks


async def test_the_same_is_asked_once() -> None:
    calls: SharedCalls[int] = SharedCalls(2, 0, 5)
    question = Question()
    tasks = await begin(calls, question, b"a", b"a", b"a")
    question.end.set()
    assert await asyncio.gather(*tasks) == [1, 1, 1]
    assert calls.started == 1
    assert await calls.run(b"a", question) == 2


async def test_an_error_goes_to_all_who_asked() -> None:
    calls: SharedCalls[int] = SharedCalls(2, 0, 5)
    question = Question()
    question.error = AuthRefused("text", "cause")
    question.end.set()
    outcomes = await asyncio.gather(*(calls.run(b"a", question) for _ in range(3)), return_exceptions=True)
    assert outcomes == [question.error] * 3
    question.error = None
    assert await calls.run(b"a", question) == 2


async def test_a_few_at_a_time_and_some_may_wait() -> None:
    calls: SharedCalls[int] = SharedCalls(2, 2, 5)
    question = Question()
    tasks = await begin(calls, question, b"a", b"b", b"c", b"d")
    with pytest.raises(AuthUnavailable, match="4 clients are being asked about already"):
        await calls.run(b"e", question)
    shared = asyncio.create_task(calls.run(b"d", question))
    question.end.set()
    assert len(await asyncio.gather(*tasks, shared)) == 5
    assert (question.most, calls.started, calls.turned_away) == (2, 4, 1)


async def test_who_goes_away_does_not_end_the_call_of_others() -> None:
    calls: SharedCalls[int] = SharedCalls(2, 2, 5)
    question = Question()
    first, second = await begin(calls, question, b"a", b"a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    question.end.set()
    assert await second == 1


async def test_an_error_that_nobody_waits_for_is_nobodys() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    calls: SharedCalls[int] = SharedCalls(2, 2, 5)
    question = Question()
    question.error = AuthUnavailable("down")
    (task,) = await begin(calls, question, b"a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    question.end.set()
    await calls.stop()
    assert complaints == []


async def test_time_runs_out_in_the_call_and_in_the_queue() -> None:
    calls: SharedCalls[int] = SharedCalls(1, 1, 0.01)
    question = Question()
    tasks = await begin(calls, question, b"a", b"b")
    for task in tasks:
        with pytest.raises(AuthUnavailable, match=r"no answer within 0\.01 s"):
            await asyncio.wait_for(task, 5)
    # Where both run out in one turn of the loop, the second has had the place of the first for a moment.
    assert question.calls in (1, 2)
    assert (question.running, calls.timed_out) == (0, 2)


async def test_stopping_tells_those_who_wait() -> None:
    calls: SharedCalls[int] = SharedCalls(1, 1, 5)
    question = Question()
    tasks = await begin(calls, question, b"a", b"b")
    await calls.stop()
    for task in tasks:
        with pytest.raises(AuthUnavailable, match="stopping"):
            await asyncio.wait_for(task, 5)
    assert question.running == 0
