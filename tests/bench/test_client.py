from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from tests.bench import wire
from tests.bench.client import Client, Tally

FIRST = wire.FIRST_NUMBER


class Recorder:
    """Stands for a transport."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """One frame as servers send it."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def message(number: int, ack: str = "") -> bytes:
    head = f"MESSAGE\nsubscription:0\nmessage-id:m{number}\n{f'ack:{ack}' if ack else 'x:y'}\n\n".encode()
    return head + wire.body(FIRST + number, wire.now()) + b"\0\n"


def connected(tally: Tally, ack: str = "auto", stagger: int = 0) -> tuple[Client, Recorder]:
    client = Client(tally, "/topic/a", "/topic/a", ack=ack, stagger=stagger)
    recorder = Recorder()
    client.connection_made(cast(asyncio.Transport, recorder))
    client.data_received(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
    client.data_received(frame(b"CONNECTED\nversion:1.2\n\n\0\n"))
    client.data_received(frame(b"RECEIPT\nreceipt-id:subscribed\n\n\0\n"))
    assert client.ready.done()
    recorder.written = b""
    return client, recorder


def test_bodies_have_their_numbers_in_their_places() -> None:
    for number in (FIRST, FIRST + 8_999_999_999):
        stamp = wire.now()
        content = wire.body(number, stamp)
        assert len(content) == wire.BODY_SIZE
        assert json.loads(content)["n"] == number
        data = content + b"\0"
        nul = len(data) - 1
        assert int(data[nul + wire.NUMBER_FROM : nul + wire.NUMBER_TO]) == number
        assert int(data[nul + wire.TIME_FROM : nul + wire.TIME_TO]) == stamp


@pytest.mark.parametrize("size", [0, 5, 125, 126, 200, 65535])
def test_client_frames_are_masked_with_zeros(size: int) -> None:
    data = wire.client_frame(b"a" * size)
    assert data[0] == 0x81
    assert data[1] & 0x80
    assert data.endswith(bytes(4) + b"a" * size)
    assert (data[1] & 0x7F if size < 126 else int.from_bytes(data[2:4], "big")) == size


async def test_opening_takes_its_steps() -> None:
    tally = Tally()
    client = Client(tally, "/topic/a", "/topic/b", ack="client")
    recorder = Recorder()
    client.connection_made(cast(asyncio.Transport, recorder))
    for byte in b"HTTP/1.1 101 Switching Protocols\r\n\r\n":
        client.data_received(bytes((byte,)))
    assert b"CONNECT\naccept-version:1.2\n" in recorder.written
    assert b"SUBSCRIBE" not in recorder.written
    client.data_received(frame(b"CONNECTED\nversion:1.2\n\n\0\n"))
    assert b"SUBSCRIBE\nid:0\ndestination:/topic/b\nack:client\nreceipt:subscribed\n\n\0" in recorder.written
    assert not client.ready.done()
    client.data_received(frame(b"RECEIPT\nreceipt-id:subscribed\n\n\0\n"))
    assert client.ready.done()
    client.close()
    assert recorder.closed
    client.connection_lost(None)
    assert tally.disconnected == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(b"ERROR\nmessage:Bad CONNECT\n\n\0\n"),
    ],
)
async def test_a_refusal_is_told(answer: bytes) -> None:
    client = Client(Tally(), "/topic/a")
    client.connection_made(cast(asyncio.Transport, Recorder()))
    client.data_received(answer)
    with pytest.raises(ConnectionError, match=r"403 Forbidden|Bad CONNECT"):
        await client.ready


async def test_a_lost_connection_is_counted() -> None:
    tally = Tally()
    client, _ = connected(tally)
    client.connection_lost(None)
    assert tally.disconnected == 1


@pytest.mark.parametrize("step", [1, 3, 100, 10_000])
async def test_deliveries_are_counted_however_they_arrive(step: int) -> None:
    tally = Tally(sample_every=2)
    client, _ = connected(tally)
    stream = b"".join(frame(message(number)) for number in range(4))
    stream += frame(message(4) + message(5), first=0x82) + frame(b"\n") + frame(b"")
    stream += frame(b"".join(message(number) for number in range(6, 500)))
    for at in range(0, len(stream), step):
        client.data_received(stream[at : at + step])
    assert client.delivered == 500
    assert (client.doubled, client.reordered, tally.errors) == (0, 0, 0)
    assert len(tally.samples) == 250
    assert 0 < min(tally.samples) < 60e9


async def test_lost_doubled_and_late_ones_are_found() -> None:
    client, _ = connected(Tally())
    for number in (0, 1, 4, 4, 2, 0):
        client.data_received(frame(message(number)))
    assert client.delivered == 4
    assert client.missing == {FIRST + 3}
    assert client.doubled == 2
    assert client.reordered == 1


async def test_samples_are_staggered() -> None:
    tally = Tally(sample_every=4)
    client, _ = connected(tally, stagger=7)
    for number in range(3):
        client.data_received(frame(message(number)))
    assert not tally.samples
    client.data_received(frame(message(3)))
    assert len(tally.samples) == 1


async def test_acknowledgements_name_the_message() -> None:
    client, recorder = connected(Tally(), ack="client")
    client.data_received(frame(message(0, ack="T_0@@s@@1") + message(1, ack="T_0@@s@@2")))
    assert recorder.written == b"".join(wire.client_frame(b"ACK\nid:T_0@@s@@%d\n\n\0" % number) for number in (1, 2))


async def test_errors_and_control_frames() -> None:
    tally = Tally()
    client, recorder = connected(tally)
    client.data_received(frame(b"hello", first=0x89))
    assert recorder.written == wire.client_frame(b"hello", opcode=10)
    client.data_received(frame(b"ERROR\nmessage:no\n\n\0\n"))
    client.data_received(frame(b"MESSAGE\n\nshort\0\n"))
    client.data_received(frame((1008).to_bytes(2, "big") + b"slow", first=0x88))
    assert tally.errors == 3
    assert tally.first_error.startswith("ERROR\nmessage:no")


async def test_sends_are_numbered() -> None:
    client, recorder = connected(Tally())
    client.send()
    client.send()
    first, second = recorder.written.split(b"\0\x81")
    assert b"SEND\ndestination:/topic/a\n" in first
    assert b"\ncontent-length:100\n\n" in first
    assert b'{"n":1000000000,' in first
    assert b'{"n":1000000001,' in second
    size = int.from_bytes(recorder.written[2:4], "big")
    assert recorder.written[8 : 8 + size].endswith(b'"}\0')
    assert len(recorder.written) == 2 * (8 + size)
