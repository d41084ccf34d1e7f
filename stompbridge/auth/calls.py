"""Questions that cost something: a few at a time, the same one once, and none without an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from stompbridge.auth.base import AuthUnavailable

T = TypeVar("T")


class SharedCalls(Generic[T]):
    """Runs ``at_a_time`` calls, lets ``waiting`` more wait, and gives up on each after ``timeout`` seconds, its wait
    included. Who asks the same (``key``) while a call is under way gets its outcome."""

    def __init__(self, at_a_time: int, waiting: int, timeout: float) -> None:
        self._slots = asyncio.Semaphore(at_a_time)
        self._limit = at_a_time + waiting
        self._timeout = timeout
        self._tasks: dict[bytes, asyncio.Task[T]] = {}
        self.started = 0
        self.turned_away = 0
        self.timed_out = 0

    async def run(self, key: bytes, call: Callable[[], Awaitable[T]]) -> T:
        """The outcome of ``call``, whatever it raises included. Raises :class:`AuthUnavailable` when too many wait, or
        when time is up."""
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= self._limit:
                self.turned_away += 1
                raise AuthUnavailable(f"{self._limit} clients are being asked about already")
            self.started += 1
            task = self._tasks[key] = asyncio.create_task(self._run(call))
            task.add_done_callback(partial(self._done, key))
        try:
            # The call belongs to all who wait for it: one that goes away does not end it.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            asker = asyncio.current_task()
            if asker is not None and asker.cancelling():
                raise
            raise AuthUnavailable("stopping") from None

    async def stop(self) -> None:
        """Ends all calls."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                return await call()
        except TimeoutError:
            self.timed_out += 1
            raise AuthUnavailable(f"no answer within {self._timeout:g} s") from None

    def _done(self, key: bytes, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            # Everybody who asked may have gone; an error is theirs, and not the event loop's to complain about.
            task.exception()
