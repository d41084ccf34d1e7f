"""Many clients that cost little: when they are told that the server goes, they are back at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.bench.client import Client, Tally

_CLOSE = 0x88
_INTERVAL = 0.5


class Crowd:
    """``count`` clients on one address. What they see is noted with its time."""

    def __init__(self, count: int, port: int, path: str = "/ws") -> None:
        self.told: list[float] = []
        """When they got a Close frame."""
        self.back: list[float] = []
        """When their subscription stood again."""
        self.away: list[float] = []
        """Seconds between the two."""
        self.codes: Counter[int] = Counter()
        self.broken = 0
        """Connections that ended without a Close frame."""
        self.refused: list[str] = []
        """Attempts that failed, and why."""
        self._port, self._path = port, path
        self._tally = Tally()
        self._count = count
        self._clients: set[Roamer] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> int:
        """How many have a standing subscription."""
        return sum(client.standing for client in self._clients)

    async def open(self, parallel: int = 50) -> None:
        """Connects all of them."""
        free = asyncio.Semaphore(parallel)

        async def one(number: int) -> None:
            async with free:
                await self._open(number)

        await asyncio.gather(*(one(number) for number in range(self._count)))

    async def settled(self) -> None:
        """Returns when nobody is on the way back."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def close(self) -> None:
        """Ends all of them."""
        for client in tuple(self._clients):
            client.leave()

    async def _open(self, number: int) -> None:
        client = Roamer(self, number, self._tally)
        try:
            await client.open(self._port, self._path)
        except OSError as error:
            self.refused.append(str(error))
            client.leave()
            self.left(number, None)
            return
        client.standing = True
        self._clients.add(client)

    def left(self, number: int, client: Roamer | None) -> None:
        """A client has lost its connection, and comes back."""
        if client is not None:
            self._clients.discard(client)
        loop = asyncio.get_running_loop()
        left_at = loop.time()

        async def back() -> None:
            await self._open(number)
            self.back.append(loop.time())
            self.away.append(loop.time() - left_at)

        task = loop.create_task(back())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Roamer(Client):
    """One of them."""

    __slots__ = ("crowd", "number_in_crowd", "standing")

    def __init__(self, crowd: Crowd, number: int, tally: Tally) -> None:
        super().__init__(tally, "/topic/crowd", f"/topic/crowd.{number}")
        self.crowd = crowd
        self.number_in_crowd = number
        self.standing = False

    def leave(self) -> None:
        """Goes for good."""
        self.standing = False
        self.close()

    def _other(self, opcode: int, payload: bytes) -> None:
        if opcode != _CLOSE:
            super()._other(opcode, payload)
        elif self.transport is not None:
            self.crowd.codes[int.from_bytes(payload[:2], "big")] += 1
            self.crowd.told.append(asyncio.get_running_loop().time())
            self._gone("closed by the server")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.crowd.broken += 1
            self._gone("the connection broke")

    def _gone(self, text: str) -> None:
        standing = self.standing
        self.leave()
        if standing:
            self.crowd.left(self.number_in_crowd, self)
        else:
            self._failed(text)


def histogram(times: list[float], begin: float, interval: float = _INTERVAL) -> str:
    """How many a second, interval by interval."""
    counts: Counter[int] = Counter(int((time - begin) / interval) for time in times)
    rates = [round(counts[index] / interval) for index in range(max(counts, default=-1) + 1)]
    return " ".join(str(rate) for rate in rates)


def summary(values: list[float]) -> dict[str, Any]:
    """Median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(values)
    shown = {"median": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": len(ordered) - 1}
    return {name: round(1000 * ordered[index]) for name, index in shown.items()}
