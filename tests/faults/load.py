"""Senders and receivers that keep their business going over faults, and take down everything in a ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from tests.faults.checker import Ledger
from tests.faults.sessions import LIMIT, Receiver, Sender


class Load:
    """One run: its ledger, its clients, and a way to wait for what they do."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.senders: list[Sender] = []
        self.receivers: list[Receiver] = []
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def sender(self, name: str, destination: str, *urls: str, stream: str, **options: Any) -> Sender:
        sender = Sender(self, name, destination, urls, stream, **options)
        self.senders.append(sender)
        return sender

    async def receiver(self, name: str, destination: str, *urls: str, stream: str, **options: Any) -> Receiver:
        """A receiver whose subscription stands."""
        receiver = Receiver(self, name, destination, urls, stream, **options)
        self.receivers.append(receiver)
        await receiver.start()
        return receiver

    def note(self) -> None:
        """Something was taken down: those who wait for it go on."""
        for item in [item for item in self._waiting if item[0]()]:
            self._waiting.remove(item)
            if not item[1].done():
                item[1].set_result(None)

    async def until(self, condition: Callable[[], bool], within: float = LIMIT) -> None:
        """Returns once the condition holds; it is looked at after each event."""
        if condition():
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        item = (condition, reached)
        self._waiting.append(item)
        try:
            await asyncio.wait_for(reached, within)
        except TimeoutError:
            self._waiting.remove(item)
            raise AssertionError(f"not within {within:g} s: {self.ledger.figures().line('so far')}") from None

    async def confirmed(self, count: int) -> None:
        await self.until(lambda: len(self.ledger.confirmed) >= count)

    async def delivered(self, count: int) -> None:
        await self.until(lambda: self.ledger.deliveries >= count)

    async def send(self, count: int, *senders: Sender) -> None:
        """``count`` messages from all senders together; returns once each of them is answered."""
        chosen = senders or tuple(self.senders)
        await asyncio.gather(*(sender.send(-(-count // len(chosen))) for sender in chosen))

    async def settle(self, within: float = LIMIT) -> None:
        """Waits until every group has what it has a right to, then sends one more message from every sender, behind
        which no late copy can come, and acknowledges everything. What is missing then is lost."""
        await self._owed(within)
        await self._acknowledge()
        await self.send(len(self.senders))
        await self._owed(within)
        await self._acknowledge()

    async def _owed(self, within: float) -> None:
        with contextlib.suppress(AssertionError):
            await self.until(lambda: self.ledger.owed == 0, within)

    async def _acknowledge(self) -> None:
        for receiver in self.receivers:
            await receiver.acknowledge_all()

    async def stop(self) -> None:
        for one in (*self.senders, *self.receivers):
            await one.stop()
