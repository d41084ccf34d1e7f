from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from stompbridge.gateway.frames import ws_frame
from stompbridge.routing.deflate import Deflater
from tests.bench import chat, wire
from tests.bench.chat import Bodies, ChatClient, ChatTally, Room

FIRST = wire.FIRST_NUMBER


class Recorder:
    """Stands for a transport."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def connected(
    tally: ChatTally, *, compressed: bool = False, ack: str = "auto", extensions: str = "permessage-deflate"
) -> tuple[ChatClient, Recorder]:
    client = ChatClient(tally, "/app/message/7", "/topic/a", 200, ack=ack, compressed=compressed)
    recorder = Recorder()
    client.connection_made(cast(asyncio.Transport, recorder))
    client.data_received(f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Extensions: {extensions}\r\n\r\n".encode())
    client.data_received(ws_frame(b"CONNECTED\nversion:1.2\n\n\0\n", False))
    client.data_received(ws_frame(b"RECEIPT\nreceipt-id:subscribed\n\n\0\n", False))
    recorder.written = b""
    return client, recorder


def stamped(number: int, stamp: int) -> bytes:
    """A body as it comes back from the bridge."""
    return Bodies(200)(FIRST + number, stamp)[:-1] + b',"roomId":7,"seq":12345}'


def message(number: int) -> bytes:
    body = stamped(number, wire.now())
    return b"MESSAGE\nsubscription:0\nmessage-id:m%d\nack:a%d\n\n%b\0\n" % (number, number, body)


@pytest.mark.parametrize("size", [110, 200, 1000])
def test_bodies_have_one_size_and_are_json(size: int) -> None:
    bodies = Bodies(size)
    for number in (FIRST, FIRST + 250, FIRST + 12_345):
        body = bodies(number, wire.now())
        assert len(body) == size
        read = json.loads(body)
        assert read["n"] == number
        assert set(read) == {"n", "t", "senderName", "message"}


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_counting_whatever_the_pieces(step: int) -> None:
    tally = ChatTally()
    client, recorder = connected(tally, ack="client")
    tally.restart()
    data = ws_frame(message(0) + message(1), False) + ws_frame(message(3), False) + ws_frame(message(3), False)
    for at in range(0, len(data), step):
        client.data_received(data[at : at + step])
    assert (client.delivered, client.missing, client.doubled) == (3, {FIRST + 2}, 1)
    assert (tally.arrived, tally.late, tally.received, tally.errors) == (4, 0, len(data), 0)
    assert len(tally.samples) == 4
    assert recorder.written.count(b"ACK\n") == 4
    assert b"ACK\nid:a3\n\n\0" in recorder.written
    tally.restart()
    assert (tally.samples, tally.received, tally.late) == ([], 0, 0)


async def test_late_deliveries_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = ChatTally()
    client, _ = connected(tally)
    monkeypatch.setattr(chat, "TIMEOUT", 0.0)
    client.data_received(ws_frame(message(0), False))
    assert tally.late == 1


@pytest.mark.parametrize("step", [1, 100_000])
async def test_compressed_messages(step: int) -> None:
    tally = ChatTally()
    client, recorder = connected(tally, compressed=True, ack="client")
    deflater = Deflater()
    for number in range(2):
        text = message(number) + b" " * 256
        head, tail = text[:20], text[20:]
        payload = deflater.payload(head, tail)
        assert payload
        data = ws_frame(payload, False, True)
        for at in range(0, len(data), step):
            client.data_received(data[at : at + step])
    assert (client.delivered, tally.arrived, tally.errors) == (2, 2, 0)
    assert b"ACK\nid:a1\n\n\0" in recorder.written


async def test_a_compressed_error_is_an_error() -> None:
    tally = ChatTally()
    client, _ = connected(tally, compressed=True)
    text = b"ERROR\nmessage:no\n\n" + b"no " * 100 + b"\0"
    client.data_received(ws_frame(Deflater().payload(b"", text), False, True))
    assert tally.first_error.startswith("ERROR\nmessage:no")


async def test_what_cannot_be_read_is_an_error() -> None:
    tally = ChatTally()
    client, _ = connected(tally)
    client.data_received(ws_frame(b"MESSAGE\nsubscription:0\n\nhello\0\n", False))
    assert tally.errors == 1


async def test_inflated_texts_are_not_kept_for_ever() -> None:
    tally = ChatTally()
    client, _ = connected(tally, compressed=True)
    for number in range(300):
        text = message(number) + b" " * 256
        client.data_received(ws_frame(Deflater().payload(b"", text), False, True))
    assert client.delivered == 300


async def test_a_server_that_does_not_compress_is_no_server_for_this() -> None:
    client, _ = connected(ChatTally(), compressed=True, extensions="none")
    with pytest.raises(ConnectionError, match="does not compress"):
        await client.ready


async def test_a_room_numbers_what_its_members_say_in_turn() -> None:
    tally = ChatTally()
    members = [connected(tally) for _ in range(2)]
    room = Room([client for client, _ in members], Bodies(200))
    for _ in range(4):
        room.send()
    for member, (_, recorder) in enumerate(members):
        for turn in (member, member + 2):
            assert b'{"n":%d,"t":' % (FIRST + turn) in recorder.written
        size = int.from_bytes(recorder.written[2:4], "big")
        frame = recorder.written[8 : 8 + size]
        assert frame.startswith(b"SEND\ndestination:/app/message/7\n")
        assert frame.endswith(b'"}\0')
        assert len(recorder.written) == 2 * (8 + size)
