"""Waiting for the broker: what needs a link asks here, and gets one or the reason why not."""

from __future__ import annotations

import asyncio
import contextlib

from ..base import Failure
from .link import Link


class Refused(Exception):
    """The wait is over without what it was for."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class Outage:
    """Whether there is a link. ``grace`` is how long to wait for one, ``wait`` whether to wait at all."""

    def __init__(self, grace: float, wait: bool) -> None:
        self.link: Link | None = None
        self.reason = "not connected yet"
        self._grace = grace
        self._wait = wait
        self._stopped = False
        self._back = asyncio.Event()

    def over(self, link: Link) -> None:
        """The broker can be used."""
        self.link = link
        self.reason = ""
        self._back.set()

    def begin(self, reason: str) -> None:
        """The broker is away, or still is, for this reason."""
        self.link = None
        self.reason = reason
        if not self._stopped:
            self._back.clear()

    def stop(self) -> None:
        """No link will come any more."""
        self.begin("stompbridge is stopping")
        self._stopped = True
        self._back.set()

    async def wait(self) -> Link:
        """The link. Raises :class:`Refused` with ``broker_unavailable`` after the grace."""
        if self._wait:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await self._back.wait()
        if self.link is None:
            raise Refused(self.failure())
        return self.link

    def failure(self) -> Failure:
        return Failure("broker_unavailable", f"the broker is not available: {self.reason}", fatal=False)
