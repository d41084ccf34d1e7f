"""permessage-deflate in both directions."""

from __future__ import annotations

import os
import zlib

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.frames import ws_frame
from stompbridge.routing.deflate import Deflater
from tests.gateway.harness import BINARY, CLOSE, CONT, TEXT, Client, Server, frame, request

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate"}


def deflated(data: bytes, bits: int = 15) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.fixture
async def compressing(server: Server) -> Server:
    server.listen["compression"] = True
    server.limits["frame"] = 100_000
    await server.start()
    return server


async def open_one(server: Server, headers: dict[str, str | None] | None = None) -> Client:
    client = await server.raw()
    await client.send(request(headers=OFFER if headers is None else headers))
    assert (await client.response())[0] == 101
    return client


async def test_off_unless_wanted(server: Server) -> None:
    await server.start()
    async with server.websocket(compression="deflate") as client:
        assert client.protocol.extensions == []
        assert not server.listeners[0].connection.compresses


async def test_what_the_websockets_client_sends_and_reads(compressing: Server) -> None:
    async with compressing.websocket(compression="deflate") as client:
        [extension] = client.protocol.extensions
        assert extension.remote_no_context_takeover
        assert extension.local_no_context_takeover
        listener = compressing.listeners[0]
        assert listener.connection.compresses
        text = "grüße " * 1000
        for _ in range(2):
            await client.send(text)
        await client.send(b"\xff" * 50_000)
        await client.send(["grü", "ße ", "x" * 1000])
        await listener.until(lambda it: sum(map(len, it.data)) == 2 * 8000 + 50_000 + 1008)
        assert listener.data[:3] == [text.encode(), text.encode(), b"\xff" * 50_000]
        assert b"".join(listener.data[3:]) == "grüße ".encode() + b"x" * 1000
        assert listener.connection.bytes_in < 2000
        deflater = Deflater()
        tail = b"body " * 200
        for head in (b"one\n", b"two\n"):
            listener.connection.write(ws_frame(deflater.payload(head, tail), False, True))
            assert await client.recv() == (head + tail).decode()
            listener.connection.send(head + tail)
            assert await client.recv() == (head + tail).decode()
        assert listener.connection.bytes_out < 2 * 1100
    assert await listener.until_lost() is CloseReason.CLIENT_CLOSED


async def test_a_client_with_a_small_window(compressing: Server) -> None:
    offer = [ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9)]
    async with compressing.websocket(compression=None, extensions=offer) as client:
        connection = compressing.listeners[0].connection
        assert not connection.compresses
        await client.send("hello " * 100)
        await compressing.listeners[0].until(lambda it: it.data == [b"hello " * 100])


async def test_a_client_that_wants_none(compressing: Server) -> None:
    async with compressing.websocket() as client:
        assert not compressing.listeners[0].connection.compresses
        await client.send("hello")
        await compressing.listeners[0].until(lambda it: it.data)


async def violation(client: Client, code: int) -> None:
    opcode, payload = await client.frame()
    assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, code)
    client.close()


async def test_a_reserved_bit_without_an_agreement(compressing: Server) -> None:
    client = await open_one(compressing, {})
    await client.send(frame(TEXT, deflated(b"x"), rsv=4))
    await violation(client, 1002)
    await compressing.until_ended(CloseReason.PROTOCOL_ERROR)


@pytest.mark.parametrize("limit", [100_000, 5000])
async def test_a_bomb(compressing: Server, limit: int) -> None:
    client = await open_one(compressing)
    compressing.listeners[0].connection.max_message = limit
    await client.send(frame(BINARY, deflated(b"\0" * limit), rsv=4))
    await compressing.listeners[0].until(lambda it: it.data == [b"\0" * limit])
    bomb = deflated(b"\0" * (limit + 1))
    assert len(bomb) < 1000
    await client.send(frame(BINARY, bomb, rsv=4))
    await violation(client, 1009)
    await compressing.until_ended(CloseReason.TOO_BIG)
    assert len(compressing.listeners[0].data) == 1


async def test_a_bomb_in_fragments(compressing: Server) -> None:
    client = await open_one(compressing)
    bomb = deflated(b"\0" * 1_000_000)
    parts = [bomb[n : n + 100] for n in range(0, len(bomb), 100)]
    await client.send(frame(BINARY, parts[0], fin=False, rsv=4))
    for part in parts[1:-1]:
        await client.send(frame(CONT, part, fin=False))
    await violation(client, 1009)
    await compressing.until_ended(CloseReason.TOO_BIG)
    assert sum(map(len, compressing.listeners[0].data)) <= 100_000


async def test_a_message_of_the_greatest_length_and_an_empty_fragment(compressing: Server) -> None:
    """Nothing is left of the limit then, which must not mean that there is none."""
    client = await open_one(compressing)
    start, end = deflated(b"\0" * 100_000), deflated(b"\0" * 1_000_000)
    await client.send(frame(BINARY, start, fin=False, rsv=4))
    await compressing.listeners[0].until(lambda it: sum(map(len, it.data)) == 100_000)
    await client.send(frame(CONT, b"", fin=False) + frame(CONT, end))
    await violation(client, 1009)
    await compressing.until_ended(CloseReason.TOO_BIG)
    assert sum(map(len, compressing.listeners[0].data)) == 100_000


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x07", os.urandom(3000)])
async def test_garbage(compressing: Server, data: bytes) -> None:
    client = await open_one(compressing)
    # A block of the third, reserved type (RFC 1951 section 3.2.3) begins it.
    await client.send(frame(BINARY, b"\x06" + data, rsv=4))
    await violation(client, 1002)
    await compressing.until_ended(CloseReason.PROTOCOL_ERROR)


async def test_text_that_is_none(compressing: Server) -> None:
    client = await open_one(compressing)
    await client.send(frame(TEXT, deflated(b"\xff"), rsv=4))
    await violation(client, 1007)
    await compressing.until_ended(CloseReason.BAD_TEXT)


async def test_nothing_is_kept_between_messages(compressing: Server) -> None:
    """A client that keeps its context in spite of what was agreed on is not understood; nothing else happens."""
    client = await open_one(compressing)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    text = bytes(range(32, 127)) * 3
    first, second = ((compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    await client.send(frame(TEXT, first, rsv=4) + frame(TEXT, second, rsv=4))
    await violation(client, 1002)
    assert compressing.listeners[0].data == [text]
    await compressing.until_ended(CloseReason.PROTOCOL_ERROR)
