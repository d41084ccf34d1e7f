"""Work in the background whose end somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class Tasks:
    """Running coroutines. ``guard`` runs each, and raises nothing."""

    def __init__(self, guard: Callable[[Awaitable[None]], Coroutine[Any, Any, None]]) -> None:
        self._guard = guard
        self._running: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Begins it."""
        task = asyncio.create_task(self._guard(work))
        self._running.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            work.close()  # cancelled before its first step, it was never awaited

        task.add_done_callback(ended)

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()

    async def ended(self) -> None:
        """Returns when all of them have ended."""
        await asyncio.gather(*self._running, return_exceptions=True)
