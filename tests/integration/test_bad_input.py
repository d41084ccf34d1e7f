"""Input that no client library sends: each costs its sender the session at most, and nobody else a message."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.stomp import Client, encode

BAD_STREAMS = {
    "no stomp at all": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "header without colon": b"SEND\nbroken\n\n\0",
    "undefined escape": b"SEND\ndestination:/topic/x\nown:\\t\n\n\0",
    "content-length no number": b"SEND\ndestination:/topic/x\ncontent-length:ten\n\nx\0",
    "content-length negative": b"SEND\ndestination:/topic/x\ncontent-length:-1\n\nx\0",
    "content-length huge": b"SEND\ndestination:/topic/x\ncontent-length:99999999999999999999999999\n\nx\0",
    "content-length too short": b"SEND\ndestination:/topic/x\ncontent-length:1\n\nxxx\0",
    "header bytes no utf-8": b"SEND\ndestination:/topic/\xff\n\n\0",
    "frame over the limit": b"SEND\ndestination:/topic/x\ncontent-length:99999999\n\n" + b"x" * 4096,
    "header line without end": b"SEND\n" + b"x" * 200_000,
    "command without end": b"S" * 200_000,
    "too many headers": b"SEND\n" + b"".join(b"h%d:x\n" % n for n in range(5000)) + b"\n\0",
}


@asynccontextmanager
async def undisturbed(connect: Connect, name: str) -> AsyncIterator[None]:
    """Other clients exchange numbered messages meanwhile; each has to arrive once and in order."""
    sender, receivers = await connect(), [await connect(), await connect()]
    await receivers[0].subscribe(f"/topic/{name}.room")
    await receivers[1].subscribe(f"/queue/{name}.queue", ack="client-individual")
    stop = asyncio.Event()
    sent = 0

    async def talk() -> None:
        nonlocal sent
        for number in itertools.count():
            for destination in (f"/topic/{name}.room", f"/queue/{name}.queue"):
                await sender.send_and_wait(destination, str(number))
            sent = number + 1
            if stop.is_set() and number >= 10:
                return

    talking = asyncio.create_task(talk())
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(talking, 20)
    for number in range(sent):
        await receivers[0].message(str(number))
        await receivers[1].acknowledge(await receivers[1].message(str(number)))
    for client in (sender, *receivers):
        await client.alive()


async def closed_with_an_error(client: Client) -> None:
    """An ERROR comes, then the end."""
    await client.wait_closed()
    assert [frame.command for frame in client.pending] == ["ERROR"], list(client.pending)


@pytest.mark.parametrize("data", BAD_STREAMS.values(), ids=BAD_STREAMS.keys())
async def test_garbage(bridge: Bridge, connect: Connect, name: str, data: bytes) -> None:
    async with undisturbed(connect, name):
        client = await connect()
        await client.ws.send(data)
        if data.startswith(b"GET"):
            await client.ws.send(b"\0")
            await client.expect("ERROR")
        else:
            await closed_with_an_error(client)


async def test_garbage_before_connect(bridge: Bridge, connect: Connect, name: str) -> None:
    async with undisturbed(connect, name):
        for messages in ([b"\xff\xfe\xfd\0"], [b"A" * 40_000] * 2, [b"CONNECT\nbroken\n\n\0"]):
            client = await connect(connected=False)
            for data in messages:
                await client.ws.send(data)
            await closed_with_an_error(client)
        client = await connect(connected=False)
        await client.ws.send(b"A" * 100_000)
        assert await client.wait_closed() == 1009


RAW = {
    # first bytes of WebSocket frames, close codes that may answer them
    "2^63 bytes": (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\0\0\0\0", {1002, 1009}),
    "2^63 - 1 bytes": (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", {1009}),
    "4 GiB": (b"\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00\0\0\0\0", {1009}),
    "unmasked": (b"\x81\x01x", {1002}),
    "reserved bits": (b"\xf1\x81\0\0\0\0x", {1002}),
    "unknown opcode": (b"\x83\x81\0\0\0\0x", {1002}),
    "continuation of nothing": (b"\x80\x81\0\0\0\0x", {1002}),
    "long ping": (b"\x89\xfe\x00\xff\0\0\0\0" + b"x" * 255, {1002}),
    "text no utf-8": (b"\x81\x82\0\0\0\0\xff\xfe", {1007}),
    "close with a bad code": (b"\x88\x82\0\0\0\0\x00\x01", {1002}),
}


@pytest.mark.parametrize(("data", "codes"), RAW.values(), ids=RAW.keys())
async def test_websocket_violations(bridge: Bridge, connect: Connect, name: str, data: bytes, codes: set[int]) -> None:
    async with undisturbed(connect, name):
        client = await connect()
        await client.write_bytes(data)
        assert await client.wait_closed() in codes


async def test_endless_fragments(bridge: Bridge, connect: Connect, name: str) -> None:
    async with undisturbed(connect, name):
        client = await connect()
        await client.write_bytes(b"\x01\x81\0\0\0\0\n" + b"\x00\x81\0\0\0\0\n" * 5000)
        assert await client.wait_closed() in {1008, 1009}


@pytest.mark.parametrize("cut", ["websocket", "stomp", "handshake"])
async def test_socket_dies_in_mid_frame(bridge: Bridge, connect: Connect, name: str, cut: str) -> None:
    async with undisturbed(connect, name):
        for _ in range(5):
            if cut == "handshake":
                _, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
                writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgr")
                await writer.drain()
                writer.transport.abort()
                continue
            client = await connect()
            await client.subscribe(f"/topic/{name}.room")
            if cut == "websocket":
                await client.write_bytes(b"\x82\xfe\x04\x00\0\0\0\0SEND\ndestination:/topic/")
            else:
                await client.send_raw(encode("SEND", {"destination": f"/topic/{name}.room"}, "never")[:-3])
            client.abort()


async def test_ten_mebibyte_body(bridge: Bridge, connect: Connect, name: str) -> None:
    async with undisturbed(connect, name):
        client = await connect()
        frame = encode("SEND", {"destination": f"/topic/{name}.room"}, b"x" * 10 * 1024 * 1024)
        sending = asyncio.create_task(client.ws.send(frame))
        assert await client.wait_closed() in {1002, 1006, 1009}
        await asyncio.gather(sending, return_exceptions=True)


async def test_ten_mebibyte_body_in_pieces_gets_an_error(bridge: Bridge, connect: Connect, name: str) -> None:
    async with undisturbed(connect, name):
        client = await connect()
        frame = encode("SEND", {"destination": f"/topic/{name}.room"}, b"x" * 10 * 1024 * 1024)
        await client.ws.send(frame[: 64 * 1024])
        await closed_with_an_error(client)


async def test_unknown_exchange_costs_nobody_else_a_message(bridge: Bridge, connect: Connect, name: str) -> None:
    async with undisturbed(connect, name):
        for command in ("SEND", "SUBSCRIBE", "SEND", "SUBSCRIBE"):
            client = await connect()
            await client.send_frame(command, {"destination": f"/exchange/{name}.no/k", "id": "x"}, "x")
            await client.error("not_found")
            await client.wait_closed()


async def test_queue_with_other_arguments_costs_nobody_else_a_message(
    bridge: Bridge, connect: Connect, name: str
) -> None:
    first = await connect()
    await first.subscribe(f"/queue/{name}.ttl", x_message_ttl="60000")
    async with undisturbed(connect, name):
        for _ in range(3):
            client = await connect()
            await client.send_frame("SUBSCRIBE", {"destination": f"/queue/{name}.ttl", "id": "x"})
            frame = await client.receive()
            if frame.command == "ERROR":  # the embedded broker does not compare arguments
                assert frame.message == "precondition_failed"
                await client.wait_closed()


async def test_too_many_subscriptions(bridge: Bridge, connect: Connect, name: str) -> None:
    async with undisturbed(connect, name):
        client = await connect()
        frames = [encode("SUBSCRIBE", {"destination": f"/topic/{name}", "id": str(n)}) for n in range(1001)]
        await client.send_raw(b"".join(frames))
        await client.expect("ERROR")


async def test_too_many_transactions(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    for number in range(16):
        await client.request("BEGIN", {"transaction": str(number)})
    await client.send_frame("BEGIN", {"transaction": "17"})
    await client.expect("ERROR")
