"""The pair of connections to one broker: one publishes, one does everything else.

A broker that is short of memory or disk stops reading publishing connections; acknowledgements and bindings must not
stand in that queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ...histogram import Histogram
from .channel import Channel
from .login import Login
from .wire import Wire

SCRATCH_CHANNELS = 8
"""How many channels may be trying things out at once."""


class Link:
    """Both connections; when one is lost, ``lost`` gets the reason and the other is of no use either."""

    def __init__(
        self,
        url: str,
        node: str,
        heartbeat: float,
        on_flow: Callable[[], None],
        login: Login | None = None,
        latency: Histogram | None = None,
    ) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        name = f"stompbridge {node}"
        self.publish = Wire(url, f"{name} publish", heartbeat, self._on_lost, on_flow, login, gathers=True)
        self.consume = Wire(url, f"{name} consume", heartbeat, self._on_lost, on_flow, login, latency=latency)
        self._slots = asyncio.Semaphore(SCRATCH_CHANNELS)
        self._idle: list[Channel] = []

    @property
    def user(self) -> str:
        return self.consume.user

    @property
    def vhost(self) -> str:
        return self.consume.vhost

    @property
    def where(self) -> str:
        return self.consume.where

    @property
    def congested(self) -> bool:
        return self.publish.paused or self.publish.blocked is not None

    async def open(self, within: float) -> None:
        """Connects both within so many seconds each. Raises :class:`.WireError`."""
        try:
            await self.consume.open(within)
            await self.publish.open(within)
        except BaseException:
            await self.close(0)
            raise

    async def close(self, within: float) -> None:
        """Closes both within so many seconds; 0: at once."""
        await asyncio.gather(self.publish.close(within), self.consume.close(within))

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Channel]:
        """A channel on which something may fail. It is used again if it survives."""
        async with self._slots:
            while self._idle and self._idle[-1].closed:
                self._idle.pop()
            channel = self._idle.pop() if self._idle else await self.consume.open_channel()
            try:
                yield channel
            finally:
                if channel.busy:
                    channel.close()
                elif not channel.closed:
                    self._idle.append(channel)

    def check(self, now: float) -> None:
        """Called a few times a second."""
        self.publish.check(now)
        self.consume.check(now)

    def stalled(self, seconds: float) -> None:
        """This process did not run for a while."""
        self.publish.stalled(seconds)
        self.consume.stalled(seconds)

    def _on_lost(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
