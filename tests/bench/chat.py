"""Clients of the chat application: rooms whose members all write, JSON bodies of any size, compression if wanted."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Sequence

from tests.bench import wire
from tests.bench.client import Client, Tally

EXTENSION = "permessage-deflate; client_max_window_bits"
"""What browsers offer."""
TIMEOUT = 3.0
"""Seconds after which a delivery is too late: the chat application's own measure."""

_COMPRESSED_TEXT = 0xC1
_MESSAGE = b"MESSAGE\n"
_BODY = b'{"n":%d,"t":%d,"senderName":"%b","message":"%b"}'
_START = b'\n\n{"n":'
# Where the number and the time stand, counted from the start of _START.
_NUMBER_FROM, _NUMBER_TO, _TIME_FROM, _TIME_TO = 7, 17, 22, 38
_TEXTS, _NAMES, _INFLATED = 251, 97, 256
_ENGLISH = (
    "about after again all also always and answer any are ask back because been before best better but call can check "
    "come could day deploy did different do does done each early email error even every evening file find first for "
    "found from get give good great had has have hello help here how idea if into is it just keep know last later let "
    "like link list little long look lunch made make many maybe meet meeting message might minute month more morning "
    "most much must name need never new next nice not note nothing now number often old once one only open or order "
    "other our out over page people place plan please point problem project question quite ready really right room "
    "same saw say see send server she should show since small some soon sorry start still stop such sure take talk "
    "team tell test than thank that the their them then there these they thing think this those time today together "
    "tomorrow too try two under until update use version very wait want was way week well were what when where which "
    "while who why will with without work would write year yes yesterday yet you your"
)


class Bodies:
    """JSON objects of one size with running number, time, a sender's name and words of English as the message."""

    def __init__(self, size: int, seed: int = 1) -> None:
        """At least 100 bytes."""
        chance = random.Random(seed)
        words = _ENGLISH.split()
        self.size = size
        self._names = [f"{chance.choice(words):-<6.6}.{number:05}".encode() for number in range(_NAMES)]
        room = size - len(_BODY % (wire.FIRST_NUMBER, wire.now(), self._names[0], b""))
        self._texts = [" ".join(chance.choices(words, k=room)).encode()[:room] for _ in range(_TEXTS)]

    def __call__(self, number: int, stamp: int) -> bytes:
        return _BODY % (number, stamp, self._names[number % _NAMES], self._texts[number % _TEXTS])


class ChatTally(Tally):
    """Counts bytes and late deliveries, too, and inflates each compressed payload once for all who receive it."""

    __slots__ = ("_inflated", "late", "received")

    def __init__(self, sample_every: int = 1) -> None:
        super().__init__(sample_every)
        self.received = 0
        """Bytes that came over TCP, as the sockets gave them."""
        self.late = 0
        """Deliveries that took longer than :data:`TIMEOUT`."""
        self._inflated: dict[bytes, bytes] = {}

    def restart(self) -> None:
        super().restart()
        self.received = self.late = 0

    def inflate(self, payload: bytes) -> bytes:
        """The text of a compressed message (RFC 7692 section 7.2.2), without context takeover."""
        text = self._inflated.get(payload)
        if text is None:
            if len(self._inflated) >= _INFLATED:
                self._inflated.clear()
            text = self._inflated[payload] = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
        return text


class ChatClient(Client):
    """Listens to a room, and says what its :class:`Room` has it say."""

    __slots__ = ("_compressed",)

    tally: ChatTally

    def __init__(
        self,
        tally: ChatTally,
        destination: str,
        subscribe_to: str | None,
        size: int,
        *,
        ack: str = "client",
        stagger: int = 0,
        named: bool = False,
        compressed: bool = False,
    ) -> None:
        """Sends bodies of ``size`` bytes. ``compressed``: offers permessage-deflate, and insists on it."""
        super().__init__(tally, destination, subscribe_to, ack=ack, stagger=stagger, named=named)
        self._compressed = compressed
        headers = {"destination": destination, "content-type": "application/json", "content-length": str(size)}
        frame = wire.stomp("SEND", headers, bytes(size))
        self.head = wire.client_head(len(frame)) + frame[: -size - 1]

    async def open(self, port: int, path: str) -> None:
        if not self._compressed:
            return await super().open(port, path)
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        self.write(wire.handshake(port, path, EXTENSION))
        await self.ready

    def say(self, body: bytes) -> None:
        self.write(b"%b%b\0" % (self.head, body))

    def data_received(self, data: bytes) -> None:
        self.tally.received += len(data)
        super().data_received(data)

    def _upgrade(self, data: bytes) -> bytes:
        rest = super()._upgrade(data)
        if self.upgraded and self._compressed and b"permessage-deflate" not in data:
            self._failed("the server does not compress")
        return rest

    def _messages(self, data: bytes, start: int, end: int) -> None:
        tally = self.tally
        at = data.index(_START, start, end)
        while at >= 0:
            number = int(data[at + _NUMBER_FROM : at + _NUMBER_TO])
            took = wire.now() - int(data[at + _TIME_FROM : at + _TIME_TO])
            tally.arrived += 1
            if number == self.expected:
                self.expected = number + 1
            else:
                self._out_of_order(number)
            if took > TIMEOUT * 1e9:
                tally.late += 1
            if number >= self.sample_at:
                self.sample_at += tally.sample_every
                tally.samples.append(took)
            if self.acking:
                found = data.index(b"\nack:", start, at + 1) + 5
                self.write(wire.client_frame(b"ACK\nid:%b\n\n\0" % data[found : data.index(b"\n", found)]))
            start = data.index(b"\0", at, end) + 1
            at = data.find(_START, start, end)

    def _other(self, opcode: int, payload: bytes) -> None:
        if opcode != _COMPRESSED_TEXT:
            return super()._other(opcode, payload)
        text = self.tally.inflate(payload)
        if text.startswith(_MESSAGE):
            self._messages(text, 0, len(text))
        else:
            super()._other(0x81, text)


class Room:
    """Clients who speak in turn. What they say is numbered through, so that who listens knows what is missing."""

    def __init__(self, speakers: Sequence[ChatClient], bodies: Bodies) -> None:
        self._speakers = speakers
        self._bodies = bodies
        self._number = wire.FIRST_NUMBER

    def send(self) -> None:
        speaker = self._speakers[self._number % len(self._speakers)]
        speaker.say(self._bodies(self._number, wire.now()))
        self._number += 1
