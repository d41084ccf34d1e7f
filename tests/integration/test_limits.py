"""Clients that are slow, silent or too many for their limits; the limits are short here."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.stomp import open_client

LIMITS = """
[limits]
open_timeout = "1s"
connect_timeout = "1s"
close_timeout = "1s"
ping_interval = "1s"
send_buffer = "256KiB"
send_timeout = "2s"
unacked = 10
backlog = 5
"""


@pytest.fixture(scope="module")
def strict() -> Iterator[Bridge]:
    """A bridge with short limits and the embedded broker."""
    process = Bridge(configs.memory(LIMITS, '[listen]\nallowed_origins = ["https://chat.example"]'))
    try:
        process.start()
        yield process
        assert process.stop() == 0
        process.assert_clean_log()
    finally:
        process.remove()


def narrow_socket(bridge: Bridge) -> socket.socket:
    """A connected socket that takes little in when nobody reads it."""
    parts = urlsplit(bridge.url)
    assert parts.hostname is not None
    assert parts.port is not None
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.connect((parts.hostname, parts.port))
    sock.setblocking(False)
    return sock


async def test_no_handshake(strict: Bridge) -> None:
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
    async with asyncio.timeout(5):
        await reader.read()
    assert 0.9 < time.monotonic() - start < 3
    writer.close()


async def test_no_connect(strict: Bridge, connect: Connect) -> None:
    client = await connect(strict, connected=False)
    start = time.monotonic()
    await client.wait_closed(5)
    assert 0.9 < time.monotonic() - start < 3


async def test_bytes_that_never_become_a_connect(strict: Bridge, connect: Connect) -> None:
    client = await connect(strict, connected=False)
    closing = asyncio.create_task(client.wait_closed(5))
    while not closing.done():
        await client.ws.send("\n")
        await asyncio.wait([closing], timeout=0.2)
        if client.ws.close_code is not None:
            break
    await closing


async def test_slow_reader_is_closed_and_others_go_on(strict: Bridge, connect: Connect, name: str) -> None:
    slow = await connect(strict, sock=narrow_socket(strict))
    fast, sender = await connect(strict), await connect(strict)
    for client in (slow, fast):
        await client.subscribe(f"/topic/{name}")
    slow.ws.transport.pause_reading()
    body = "x" * 65_536
    before = strict.memory()
    for number in range(400):
        await sender.send_and_wait(f"/topic/{name}", f"{number} {body}")
        await fast.message(f"{number} {body}")
    assert strict.memory() - before < 32 * 1024 * 1024
    await asyncio.to_thread(strict.wait_log, "session_closed", reason="slow_consumer")
    slow.abort()


async def test_reader_that_stops_is_closed(strict: Bridge, connect: Connect, name: str) -> None:
    beats = {"accept-version": "1.2", "heart-beat": "60000,0"}  # or a ping would end it first
    stuck = await connect(strict, beats, sock=narrow_socket(strict))
    fast, sender = await connect(strict), await connect(strict)
    for client in (stuck, fast):
        await client.subscribe(f"/topic/{name}")
    stuck.ws.transport.pause_reading()
    body = "x" * 16_384
    sent = 0
    deadline = time.monotonic() + 15
    while not (closed := [end for end in strict.events("session_closed") if end["session"] == stuck.session]):
        assert time.monotonic() < deadline, "never closed"
        await sender.send_and_wait(f"/topic/{name}", body)
        await fast.message(body)
        sent += 1
        await asyncio.sleep(0.01 if sent < 300 else 0.1)
    assert closed[0]["reason"] == "slow_consumer"
    stuck.abort()


async def test_client_that_never_acknowledges_is_bounded(strict: Bridge, connect: Connect, name: str) -> None:
    lazy, fast = await connect(strict), await connect(strict)
    await lazy.subscribe(f"/topic/{name}", ack="client", prefetch_count="3")
    await fast.subscribe(f"/topic/{name}")
    for number in range(50):
        await fast.send(f"/topic/{name}", str(number))
    for number in range(50):
        await fast.message(str(number))
    for number in range(3):
        await lazy.message(str(number))
    await lazy.expect("ERROR")
    await lazy.wait_closed()


async def test_pings_keep_a_client_without_heart_beats(strict: Bridge, connect: Connect) -> None:
    client = await connect(strict)
    await client.silent(3.5)
    await client.alive()


async def test_client_that_answers_no_ping_is_closed(strict: Bridge, connect: Connect) -> None:
    client = await connect(strict)
    client.ws.transport.pause_reading()
    closed = await asyncio.to_thread(strict.wait_log, "session_closed", session=client.session)
    assert closed["reason"] == "ping_lost"


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        ("https://chat.example", True),
        (None, True),
        ("https://evil.example", False),
        ("http://chat.example", False),
        ("null", False),
        ("same", False),
    ],
)
async def test_origins(strict: Bridge, origin: str | None, welcome: bool) -> None:
    sent = f"http://127.0.0.1:{strict.port}" if origin == "same" else origin
    if welcome:
        client = await open_client(strict.url, origin=sent)
        await client.connect()
        await client.disconnect()
    else:
        with pytest.raises(InvalidStatus) as refused:
            await open_client(strict.url, origin=sent)
        assert refused.value.response.status_code == 403


async def test_same_origin_is_enough_where_none_is_listed(start_bridge: StartBridge) -> None:
    bridge = start_bridge()
    client = await open_client(bridge.url, origin=f"http://127.0.0.1:{bridge.port}")
    await client.connect()
    await client.disconnect()
    for origin in (f"http://127.0.0.1:{bridge.port + 1}", "http://localhost", "null"):
        with pytest.raises(InvalidStatus):
            await open_client(bridge.url, origin=origin)
