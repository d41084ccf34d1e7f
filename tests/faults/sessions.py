"""What sends and what receives: each goes on at its next address when its connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.faults.checker import Id
from tests.support.stomp import Client, Frame, decode, encode, open_client

if TYPE_CHECKING:
    from tests.faults.load import Load

LIMIT = 30.0
"""Seconds after which something that should happen has not happened."""
_RETRY = 0.1
_QUIET = 0.3
_OPTIONS: dict[str, Any] = {"ping_interval": None, "open_timeout": 5}


class _Session:
    """What sender and receiver have in common: a connection, and the next address when it is lost."""

    def __init__(self, load: Load, name: str, urls: Sequence[str], connect: Mapping[str, str]) -> None:
        self.load = load
        self.ledger = load.ledger
        self.name = name
        self.urls = list(urls)
        self.client: Client | None = None
        self.errors: list[Frame] = []
        self.connections = 0
        self._connect = {"accept-version": "1.2", "heart-beat": "0,0", **connect}
        self._options = dict(_OPTIONS)
        self._up = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.client is not None:
            self.client.abort()

    def abort(self) -> None:
        """Breaks the connection."""
        assert self.client is not None
        self.client.abort()

    async def serve(self) -> None:
        """Connects, reads until the connection is lost, and goes on at the next address."""
        while True:
            client = await self._open()
            self.client = client
            await self.began(client)
            self._up.set()
            await self._read(client)
            self._up.clear()
            self.lost()
            if self.client is client:
                client.abort()
            self.urls.append(self.urls.pop(0))

    async def _open(self) -> Client:
        """A connected client of the first address that serves."""
        while True:
            client = None
            try:
                client = await open_client(self.urls[0], **self._options)
                await client.connect(self._connect)
            except (OSError, InvalidHandshake, ConnectionClosed, AssertionError, TimeoutError):
                if client is not None:
                    client.abort()
                self.urls.append(self.urls.pop(0))
                await asyncio.sleep(_RETRY)
            else:
                self.connections += 1
                return client

    async def _read(self, client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.may_read()
                data = await client.ws.recv()
                raw = data.encode() if isinstance(data, str) else data
                if raw != b"\n":
                    self.take(client, decode(raw))
                    self.load.note()

    async def write(self, client: Client, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """A frame; where the connection is lost, whoever reads finds out."""
        with contextlib.suppress(ConnectionClosed):
            await client.send_raw(encode(command, headers, body))

    async def may_read(self) -> None:
        """Returns when the next frame may be read."""

    async def began(self, client: Client) -> None:
        """A new connection."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is lost."""

    def take(self, client: Client, frame: Frame) -> None:
        """One frame."""
        raise NotImplementedError


class Sender(_Session):
    """Sends numbered messages, each with a receipt, ``window`` of them unanswered at most.

    ``keyed``: with an ``idempotency-key``, and again after a lost connection or an ERROR until there is a RECEIPT.
    """

    def __init__(
        self,
        load: Load,
        name: str,
        destination: str,
        urls: Sequence[str],
        stream: str,
        *,
        window: int = 32,
        keyed: bool = False,
        size: int = 100,
    ) -> None:
        super().__init__(load, name, urls, {})
        self.destination = destination
        self.sent = 0
        self.repeated = 0
        """Messages that were sent again."""
        self._window = window
        self._keyed = keyed
        self._padding = b"x" * size
        self._open_numbers: dict[int, None] = {}
        self._turn = asyncio.Lock()
        self.ledger.add_sender(name, stream)

    async def send(self, count: int) -> None:
        """Sends the next messages and returns once all are answered, or can not be answered any more."""
        if not self._tasks:
            self.spawn(self.serve())
        async with self._turn:
            for number in range(self.sent, self.sent + count):
                await self.load.until(lambda: len(self._open_numbers) < self._window)
                await asyncio.wait_for(self._up.wait(), LIMIT)
                self.sent = number + 1
                self._open_numbers[number] = None
                await self._send(number)
        await self.load.until(lambda: not self._open_numbers)

    def go(self, url: str) -> None:
        """Goes on at another address."""
        self.urls = [url]
        self.abort()

    async def began(self, client: Client) -> None:
        for number in list(self._open_numbers):
            self.repeated += 1
            await self._send(number)

    def lost(self) -> None:
        if not self._keyed:
            self._open_numbers.clear()
            self.load.note()

    def take(self, client: Client, frame: Frame) -> None:
        receipt = frame.headers.get("receipt-id")
        if frame.command == "RECEIPT":
            self.ledger.confirm(Id(self.name, int(frame.headers["receipt-id"])))
            self._open_numbers.pop(int(frame.headers["receipt-id"]), None)
            return
        assert frame.command == "ERROR", frame
        self.errors.append(frame)
        if receipt is None:
            return
        number = int(receipt)
        self.ledger.refuse(Id(self.name, number))
        if self._keyed:
            self.spawn(self._again(number))
        else:
            self._open_numbers.pop(number, None)

    async def _again(self, number: int) -> None:
        await asyncio.sleep(_RETRY)
        if number in self._open_numbers:
            self.repeated += 1
            await self._send(number)

    async def _send(self, number: int) -> None:
        client = self.client
        assert client is not None
        self.ledger.attempt(Id(self.name, number))
        headers = {"destination": self.destination, "persistent": "true", "receipt": str(number)}
        if self._keyed:
            headers["idempotency-key"] = f"{self.name}-{number}"
        await self.write(client, "SEND", headers, f"{self.name} {number} ".encode() + self._padding)


class Receiver(_Session):
    """Subscribes, takes down what comes and acknowledges it, each ACK with a receipt.

    ``group``: those with whom it shares the stream. ``lag``: it always keeps so many messages unacknowledged.
    """

    def __init__(
        self,
        load: Load,
        name: str,
        destination: str,
        urls: Sequence[str],
        stream: str,
        *,
        group: str = "",
        ack: str = "auto",
        client_id: str = "",
        lag: int = 0,
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        once: Sequence[str] = (),
    ) -> None:
        """``once``: those of the ``options`` that are for the first connection only."""
        super().__init__(load, name, urls, {"client-id": client_id} if client_id else {})
        self.lag = lag
        self.late: list[Id] = []
        """What came over a connection that had been left: the client would not see it."""
        self._options |= options or {}
        self._once = tuple(once)
        self._reading = asyncio.Event()
        self._reading.set()
        self._tracked = ack != "auto"
        self._cumulative = ack == "client"
        self._subscription = {"destination": destination, "id": "s0", "ack": ack, **(headers or {})}
        self._subscribed = asyncio.Event()
        self.held: deque[tuple[Id, str]] = deque()
        """Not acknowledged yet, the oldest first: the message and its ``ack`` header."""
        self._acks: dict[str, list[Id]] = {}
        self._receipts = itertools.count()
        self.ledger.add_receiver(name, stream, group)

    async def start(self) -> None:
        """Returns once the subscription stands."""
        self.spawn(self.serve())
        await self.subscribed()

    async def subscribed(self) -> None:
        await asyncio.wait_for(self._subscribed.wait(), LIMIT)

    @property
    def standing(self) -> bool:
        """Whether its subscription stands, as far as it knows."""
        return self._subscribed.is_set()

    def pause(self) -> None:
        """Reads no more."""
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    async def quiet(self) -> None:
        """Reads what has been written to it, and returns when nothing has come for a while."""
        before = -1
        while before != self.ledger.deliveries:
            before = self.ledger.deliveries
            await asyncio.sleep(_QUIET)

    async def acknowledge(self, messages: Sequence[tuple[Id, str]]) -> None:
        """Acknowledges some of what it holds, without a receipt."""
        assert self.client is not None
        for _, ack in messages:
            await self.write(self.client, "ACK", {"id": ack})

    async def move(self, url: str) -> None:
        """Connects to another address and leaves the old connection open, as a client does whose network went away."""
        left = self.client
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert left is not None
        self.lost()
        self.urls = [url]
        self.client = None
        self.spawn(self._read(left))
        await self.start()

    async def idle(self) -> None:
        """Returns when all of its ACKs are answered."""
        await self.load.until(lambda: not self._acks)

    def release(self) -> None:
        """Acknowledges everything that it holds, and from now on what comes."""
        self.lag = 0
        self._acknowledge()

    async def acknowledge_all(self) -> None:
        """Acknowledges everything that it holds, and returns with the last receipt."""
        if self._tracked:
            self.release()
            await self.load.until(lambda: not self.held and not self._acks)

    async def may_read(self) -> None:
        await self._reading.wait()

    async def began(self, client: Client) -> None:
        for option in self._once:
            self._options.pop(option, None)
        await self.write(client, "SUBSCRIBE", {**self._subscription, "receipt": "subscribed"})

    def lost(self) -> None:
        self._subscribed.clear()
        self.held.clear()
        self._acks.clear()

    def take(self, client: Client, frame: Frame) -> None:
        if frame.command == "MESSAGE":
            self._take_message(client, frame)
        elif frame.command == "RECEIPT":
            receipt = frame.headers["receipt-id"]
            if receipt == "subscribed":
                self._subscribed.set()
            elif client is self.client:
                for message in self._acks.pop(receipt, ()):
                    self.ledger.acknowledge(self.name, message)
        else:
            assert frame.command == "ERROR", frame
            self.errors.append(frame)

    def _take_message(self, client: Client, frame: Frame) -> None:
        sender, number, _ = frame.body.split(b" ", 2)
        message = Id(sender.decode(), int(number))
        if client is not self.client:
            self.late.append(message)
            return
        self.ledger.deliver(self.name, message, frame.headers.get("redelivered") == "true")
        if self._tracked:
            self.held.append((message, frame.ack))
            if len(self.held) > self.lag:
                self._acknowledge()

    def _acknowledge(self) -> None:
        client = self.client
        assert client is not None
        count = len(self.held) - self.lag
        if count <= 0:
            return
        settled = [self.held.popleft() for _ in range(count)]
        for chosen in [settled] if self._cumulative else [[one] for one in settled]:
            receipt = f"a{next(self._receipts)}"
            self._acks[receipt] = [message for message, _ in chosen]
            # Written at once, in its order: the frame is small, and nothing is waited for.
            self.spawn(self.write(client, "ACK", {"id": chosen[-1][1], "receipt": receipt}))
