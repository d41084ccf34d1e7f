"""A STOMP client that costs next to nothing: it shares the machine with the server that it measures."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import cast

from tests.bench import wire

PARALLEL = 50
"""How many clients are on their way to being connected at a time."""
HALF_OPEN = 200
"""How many clients of a storm are between connecting and the end of the WebSocket handshake at a time."""
OPEN_TIMEOUT = 60.0
_CONTROL_FRAME = 0x88
_CLOSE = wire.client_frame((1000).to_bytes(2, "big"), opcode=8)
_HEARTBEAT = wire.client_frame(b"\n")
_MESSAGE = ord("M")


class Tally:
    """What the clients of one run have seen together."""

    __slots__ = ("arrived", "disconnected", "errors", "first_error", "sample_every", "samples")

    def __init__(self, sample_every: int = 1) -> None:
        self.samples: list[int] = []
        """Nanoseconds from SEND to MESSAGE, of every ``sample_every``-th delivery to a client."""
        self.sample_every = sample_every
        self.arrived = 0
        """MESSAGE frames, those that came twice included."""
        self.errors = 0
        self.disconnected = 0
        self.first_error = ""

    def restart(self) -> None:
        """What is measured begins now."""
        self.samples.clear()

    def error(self, text: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or text[:500]


class Client(asyncio.Protocol):
    """One connection: opens itself, subscribes, counts what arrives and finds what is missing or came twice."""

    __slots__ = (
        "acking",
        "connect",
        "doubled",
        "expected",
        "first",
        "head",
        "missing",
        "number",
        "on_upgraded",
        "ready",
        "reordered",
        "rest",
        "sample_at",
        "subscribe",
        "tally",
        "transport",
        "upgraded",
    )

    def __init__(
        self,
        tally: Tally,
        send_to: str,
        subscribe_to: str | None = None,
        *,
        ack: str = "auto",
        heartbeat: str = "0,0",
        stagger: int = 0,
        named: bool = False,
    ) -> None:
        """``stagger`` spreads the sampled deliveries over the clients: the first one sampled is the ``stagger``-th.
        A ``named`` client has a history that outlives its session (``client-id``)."""
        self.tally = tally
        self.connect = wire.client_frame(
            wire.stomp(
                "CONNECT",
                {
                    "accept-version": "1.2",
                    "host": "/",
                    "login": "guest",
                    "passcode": "guest",
                    "heart-beat": heartbeat,
                    **({"client-id": uuid.uuid4().hex} if named else {}),
                },
            )
        )
        headers = {"id": "0", "destination": subscribe_to or "", "ack": ack, "receipt": "subscribed"}
        self.subscribe = wire.client_frame(wire.stomp("SUBSCRIBE", headers)) if subscribe_to else b""
        self.acking = ack != "auto"
        self.head = wire.send_head(send_to)
        self.number = wire.FIRST_NUMBER
        self.first = self.expected = wire.FIRST_NUMBER
        self.sample_at = wire.FIRST_NUMBER + stagger % tally.sample_every
        self.missing: set[int] = set()
        self.doubled = 0
        self.reordered = 0
        self.rest = b""
        self.upgraded = False
        self.on_upgraded: Callable[[], None] | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    @property
    def delivered(self) -> int:
        """Different messages that have arrived."""
        return self.expected - self.first - len(self.missing)

    async def open(self, port: int, path: str) -> None:
        """Connects and returns when the subscription stands. ``ConnectionError`` says why it does not."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", port)
        self.write(wire.handshake(port, path))
        await self.ready

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def send(self) -> None:
        """Sends the next message."""
        self.write(b"%b%b\0" % (self.head, wire.body(self.number, wire.now())))
        self.number += 1

    def beat(self) -> None:
        self.write(_HEARTBEAT)

    def close(self) -> None:
        """Ends the session; what arrives from now on is nobody's."""
        if self.transport is not None:
            transport, self.transport = self.transport, None
            transport.write(_CLOSE)
            transport.close()

    # The protocol's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:
            self.ready.cancel()
            return
        self.transport = None
        self.tally.disconnected += 1
        self._failed("the server closed the connection")

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
            self.rest = b""
        if not self.upgraded:
            data = self._upgrade(data)
        size = len(data)
        at = 0
        while at + 2 <= size:
            length = data[at + 1]
            start = at + 2
            if length == 126:
                start = at + 4
                if start > size:
                    break
                length = data[at + 2] << 8 | data[at + 3]
            elif length == 127:
                start = at + 10
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            end = start + length
            if end > size:
                break
            if length and data[start] == _MESSAGE:
                try:
                    self._messages(data, start, end)
                except ValueError:
                    self.tally.error(data[start:end].decode(errors="replace"))
            else:
                self._other(data[at], data[start:end])
            at = end
        if at < size:
            self.rest = data[at:]

    def _messages(self, data: bytes, start: int, end: int) -> None:
        nul = data.find(b"\0", start, end)
        while nul >= 0:
            number = int(data[nul + wire.NUMBER_FROM : nul + wire.NUMBER_TO])
            self.tally.arrived += 1
            if number == self.expected:
                self.expected = number + 1
            else:
                self._out_of_order(number)
            if number >= self.sample_at:
                self.sample_at += self.tally.sample_every
                self.tally.samples.append(wire.now() - int(data[nul + wire.TIME_FROM : nul + wire.TIME_TO]))
            if self.acking:
                at = data.index(b"\nack:", start, nul) + 5
                self.write(wire.client_frame(b"ACK\nid:%b\n\n\0" % data[at : data.index(b"\n", at)]))
            start = nul + 1
            nul = data.find(b"\0", start, end)

    def _out_of_order(self, number: int) -> None:
        if number > self.expected:
            self.missing.update(range(self.expected, number))
            self.expected = number + 1
        elif number in self.missing:
            self.missing.remove(number)
            self.reordered += 1
        else:
            self.doubled += 1

    def _upgrade(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.rest = data
            return b""
        if b" 101 " not in data[:20]:
            self._failed(data[:200].decode(errors="replace"))
            return b""
        self.upgraded = True
        self.write(self.connect)
        if self.on_upgraded is not None:
            self.on_upgraded()
        return data[end + 4 :]

    def _other(self, opcode: int, payload: bytes) -> None:
        if opcode >= _CONTROL_FRAME:
            if opcode == 0x89:
                self.write(wire.client_frame(payload, opcode=10))
            elif opcode == 0x88 and self.transport is not None:
                self.tally.error(f"closed by the server: {payload[:2].hex()} {payload[2:].decode(errors='replace')}")
            return
        for frame in payload.split(b"\0"):
            command = frame.lstrip().partition(b"\n")[0]
            if command == b"CONNECTED" and self.subscribe:
                self.write(self.subscribe)
            elif command in (b"CONNECTED", b"RECEIPT"):
                if not self.ready.done():
                    self.ready.set_result(None)
            elif command:
                text = frame.decode(errors="replace")
                self.tally.error(text)
                self._failed(text)

    def _failed(self, reason: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(reason))


async def open_all(clients: Sequence[Client], port: int, path: str) -> list[float]:
    """Opens the clients, at most :data:`PARALLEL` at a time; the milliseconds that each took until its subscription
    stood. ``TimeoutError`` when it takes longer than :data:`OPEN_TIMEOUT`, ``ConnectionError`` when one is refused."""
    waiting = iter(clients)
    took: list[float] = []

    async def work() -> None:
        for client in waiting:
            began = wire.now()
            await client.open(port, path)
            took.append((wire.now() - began) / 1e6)

    await _together([work() for _ in range(min(PARALLEL, len(clients)))])
    return took


async def open_at_once(clients: Sequence[Client], port: int, path: str) -> list[float]:
    """Opens the clients all at once: none waits for another's subscription, only for its handshake, and for that only
    where more than :data:`HALF_OPEN` are at it. The milliseconds from the beginning until each subscription stood;
    raises what :func:`open_all` raises."""
    slots = asyncio.Semaphore(HALF_OPEN)
    began = wire.now()
    took: list[float] = []

    async def work(client: Client) -> None:
        await slots.acquire()
        client.on_upgraded = slots.release
        await client.open(port, path)
        took.append((wire.now() - began) / 1e6)

    await _together([work(client) for client in clients])
    return took


async def _together(works: Sequence[Coroutine[None, None, None]]) -> None:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT), asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except* OSError as refused:
        raise ConnectionError(f"a client could not connect: {refused.exceptions[0]}") from None
