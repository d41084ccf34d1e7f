"""One timer for the whole process.

A timer for each connection would be set anew with each message; looking at all of them now and then costs less.
Deadlines are kept to within an interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stompbridge.log import get_logger

_log = get_logger(__name__)


class Sweep:
    """Calls each of its callbacks with ``loop.time()`` every ``interval`` seconds. An error in one is logged and
    keeps neither the others nor the next round from running."""

    __slots__ = ("_callbacks", "_handle", "_loop", "interval")

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float = 0.5) -> None:
        self._loop = loop
        self.interval = interval
        self._callbacks: list[Callable[[float], None]] = []
        self._handle: asyncio.TimerHandle | None = None

    def add(self, callback: Callable[[float], None]) -> None:
        """Adds a callback; it stays for good."""
        self._callbacks.append(callback)

    def start(self) -> None:
        """Begins; the first round is an interval away. Does nothing when it runs already."""
        if self._handle is None:
            self._handle = self._loop.call_later(self.interval, self._run)

    def stop(self) -> None:
        """Ends; no callback is called any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        now = self._loop.time()
        # Set first, so that a callback may stop the sweep.
        self._handle = self._loop.call_later(self.interval, self._run)
        for callback in self._callbacks:
            try:
                callback(now)
            except Exception:
                _log.exception("sweep_failed")
