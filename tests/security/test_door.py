"""What comes to the door uninvited: nobody gets in, and nothing piles up in front of it.

Each test runs against the program as its users run it; the log has to be clean at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus

from tests.gateway.harness import BINARY, CLOSE, CONT, TEXT, Client, frame, frame_head, request
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.certificates import Certificate
from tests.support.kinds import StartBridge
from tests.support.stomp import encode

KIB = 1024
MIB = 1024 * KIB
WAIT = 20.0

CONNECT = encode("CONNECT", {"accept-version": "1.2", "host": "x"}, escaped=False)

Open = Callable[..., Awaitable[Client]]


def door(listen: str = "", limits: str = "") -> str:
    """A configuration with these lines in its tables."""
    return configs.memory(f"[listen]\n{listen}", f"[limits]\n{limits}")


def peak(bridge: Bridge) -> int:
    """The most that was resident, in bytes."""
    for line in Path(f"/proc/{bridge.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise AssertionError("no VmHWM")


@pytest.fixture
async def raw(start_bridge: StartBridge) -> AsyncIterator[Open]:
    """``await raw(bridge)`` is a socket that has said nothing, ``await raw(bridge, request())`` one that got its 101.

    They are gone before a bridge of the test's own is stopped, and waits for them.
    """
    clients: list[Client] = []

    async def open_one(bridge: Bridge, hello: bytes = b"", *, trust: ssl.SSLContext | None = None) -> Client:
        hostname = None if trust is None else "localhost"
        streams = await asyncio.open_connection("127.0.0.1", bridge.port, ssl=trust, server_hostname=hostname)
        client = Client(*streams)
        clients.append(client)
        if hello:
            await client.send(hello)
            status, _, _ = await client.response()
            assert status == 101
        return client

    yield open_one
    for client in clients:
        await client.abort()


async def connected(client: Client) -> None:
    """CONNECT, and CONNECTED."""
    await client.send(frame(TEXT, CONNECT))
    opcode, payload = await client.frame()
    assert opcode == TEXT
    assert payload.startswith(b"CONNECTED\n")


async def ended(client: Client) -> bytes:
    """What comes up to the end of the stream, whichever way it ends."""
    data = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(WAIT):
            while part := await client.reader.read(65536):
                data += part
    return data


async def trickle(client: Client, data: bytes, pause: float) -> None:
    """Sends byte by byte until the other side has enough of it."""
    with contextlib.suppress(ConnectionError):
        for n in range(len(data)):
            await client.send(data[n : n + 1])
            await asyncio.sleep(pause)


def close_code(data: bytes) -> int:
    """The code of the Close frame that ``data`` ends with; 0 if it ends otherwise."""
    at = data.rfind(b"\x88")
    if at < 0 or at + 2 + (data[at + 1] & 0x7F) != len(data):
        return 0
    return int.from_bytes(data[at + 2 : at + 4])


# Cross-site WebSockets.


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ("", "http://127.0.0.1:{port}", 101),
        ("", "http://evil.example", 403),
        ("", "http://127.0.0.1.evil.example:{port}", 403),
        ("", "http://127.0.0.1", 403),
        ("", "null", 403),
        ("", "file://", 403),
        ("https://chat.example", "https://chat.example", 101),
        ("https://chat.example", "http://chat.example", 403),
        ("https://chat.example", "https://chat.example.evil.example", 403),
        ("https://chat.example", "https://evilchat.example", 403),
        ("https://chat.example", "https://CHAT.example", 403),
        ("https://chat.example", "http://127.0.0.1:{port}", 403),
        ("https://chat.example", "null", 403),
    ],
)
async def test_pages_of_other_sites(two_doors: dict[str, Bridge], allowed: str, origin: str, status: int) -> None:
    bridge = two_doors[allowed]
    origin = origin.format(port=bridge.port)
    if status == 101:
        async with open_websocket(bridge.url, origin=origin, proxy=None):  # type: ignore[arg-type]
            return
    with pytest.raises(InvalidStatus) as refused:
        async with open_websocket(bridge.url, origin=origin, proxy=None):  # type: ignore[arg-type]
            pass
    assert refused.value.response.status_code == status


@pytest.fixture(scope="module")
def two_doors() -> Iterator[dict[str, Bridge]]:
    """A bridge for its own pages, and one for those of ``https://chat.example``."""
    bridges = {
        "": Bridge(door()),
        "https://chat.example": Bridge(door('allowed_origins = ["https://chat.example"]')),
    }
    try:
        for bridge in bridges.values():
            bridge.start()
        yield bridges
        for bridge in bridges.values():
            assert bridge.stop() == 0
            bridge.assert_clean_log()
    finally:
        for bridge in bridges.values():
            bridge.remove()


# What piles up before CONNECT.

HALF_OPEN = 5000


def many_files() -> None:
    """As many sockets as the test needs, here and in the processes started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HALF_OPEN + 1000
    if hard not in (resource.RLIM_INFINITY,) and hard < wanted:
        pytest.skip(f"needs {wanted} open files, the limit is {hard}")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def test_five_thousand_half_open_sockets(start_bridge: StartBridge) -> None:
    """Of every kind there is before CONNECT. Each costs little, and a client gets in and out beside them."""
    many_files()
    timeouts = 'open_timeout = "50s"\nconnect_timeout = "50s"'
    bridge = start_bridge(door(limits=f"{timeouts}\npending_per_address = {HALF_OPEN + 200}"))
    half_request = request(headers={"Cookie": "x" * 1000})[:-4]
    half_frame = frame(BINARY, b"CONNECT\n" + b"x" * 1000)[:-1]
    kinds = [b"", half_request, request(), request() + half_frame, request() + frame(TEXT, half_frame[8:], fin=False)]
    sockets: list[socket.socket] = []
    try:
        # What the first few cost is not what each costs.
        add_half_open(bridge, sockets, kinds, 100)
        before = bridge.memory()
        add_half_open(bridge, sockets, kinds, HALF_OPEN)
        cost = (bridge.memory() - before) / HALF_OPEN
        assert cost < 24 * KIB, f"{cost:.0f} bytes for each"
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", bridge.port), timeout=WAIT) as guest:
            guest.sendall(request() + frame(TEXT, CONNECT))
            answer = b""
            while b"CONNECTED" not in answer:
                part = guest.recv(65536)
                assert part, answer
                answer += part
        assert time.monotonic() - started < 2
    finally:
        for sock in sockets:
            sock.close()


def add_half_open(bridge: Bridge, sockets: list[socket.socket], kinds: list[bytes], count: int) -> None:
    """Opens as many sockets, in turn of each kind, no faster than the bridge takes them."""
    for n in range(count):
        sock = socket.create_connection(("127.0.0.1", bridge.port), timeout=WAIT)
        sockets.append(sock)
        hello = kinds[n % len(kinds)]
        if hello:
            sock.sendall(hello)
        if hello[:3] == b"GET" and hello is not kinds[1]:
            assert sock.recv(16).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("opening", "more"),
    [
        (b"GET /ws HTTP/1.1\r\n", b"X-Header: " + b"x" * 1000 + b"\r\n"),
        (b"GET /ws HTTP/1.1\r\nX: ", b"x" * 1000),
        (b"GET /", b"x" * 1000),
    ],
    ids=["headers", "one header", "path"],
)
async def test_a_request_without_end(raw: Open, quiet: Bridge, opening: bytes, more: bytes) -> None:
    before = quiet.memory()
    client = await raw(quiet)
    await client.send(opening)
    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            await client.send(more)
    answer = await ended(client)
    # "URI too long" or "header fields too large"; lost if the connection was reset over what came after it.
    assert answer == b"" or answer.split(b" ")[1] in (b"414", b"431")
    assert quiet.memory() - before < 4 * MIB


@pytest.mark.parametrize("kind", ["frame", "messages", "fragments", "empty fragments"])
async def test_a_connect_without_end(raw: Open, quiet: Bridge, kind: str) -> None:
    """64 KiB are taken, in whatever way they come."""
    before = quiet.memory()
    client = await raw(quiet, request())
    part = b"x" * 8192
    start, more = {
        "frame": (frame_head(BINARY, 50 * MIB), part),
        "messages": (frame(TEXT, b"CONNECT\nx:"), frame(TEXT, part)),
        "fragments": (frame(TEXT, b"CONNECT\nx:", fin=False), frame(CONT, part, fin=False)),
        "empty fragments": (frame(TEXT, b"CONNECT\nx:", fin=False), frame(CONT, b"", fin=False) * 1000),
    }[kind]
    await client.send(start)
    with contextlib.suppress(ConnectionError):
        for _ in range(5000):
            await client.send(more)
    answer = await ended(client)
    # Who goes on sending may find its connection reset, and what was said to it lost.
    assert answer == b"" or close_code(answer) in (1009, 1002)
    assert quiet.memory() - before < 4 * MIB


async def test_a_thousand_that_go_up_to_the_limit(raw: Open, start_bridge: StartBridge) -> None:
    """All that a socket may hold before CONNECT is what it costs."""
    bridge = start_bridge(door(limits='connect_timeout = "50s"'))
    head = frame_head(BINARY, 60 * KIB)
    for _ in range(20):
        await raw(bridge, request())
    before = bridge.memory()
    clients = [await raw(bridge, request()) for _ in range(300)]
    for client in clients:
        await client.send(head + b"x" * (60 * KIB - 1))
    # What was sent before is read before.
    await connected(await raw(bridge, request()))
    cost = (bridge.memory() - before) / len(clients)
    assert cost < 200 * KIB, f"{cost:.0f} bytes for each"


@pytest.fixture(scope="module")
def quiet() -> Iterator[Bridge]:
    """A bridge for tests that all go wrong before CONNECT."""
    bridge = Bridge(door(limits='close_timeout = "500ms"'))
    try:
        bridge.start()
        yield bridge
        assert bridge.stop() == 0
        bridge.assert_clean_log()
    finally:
        bridge.remove()


# Lengths and bombs.


@pytest.mark.parametrize("length", [2**63, 2**63 - 1, 2**64 - 1, 2**32])
@pytest.mark.parametrize("opcode", [TEXT, CONT, CLOSE])
async def test_a_frame_length_beyond_all_bounds(raw: Open, quiet: Bridge, length: int, opcode: int) -> None:
    before = quiet.memory()
    client = await raw(quiet, request())
    await client.send(frame_head(opcode, length) + b"x" * 1000)
    assert close_code(await ended(client)) in (1002, 1009)
    assert quiet.memory() - before < 4 * MIB


def bomb(size: int) -> bytes:
    """So many bytes, deflated to a thousandth."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (compressor.compress(b"\0" * size) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize(("let_in", "allowed"), [(False, 64 * KIB), (True, 4 * MIB)], ids=["before", "after"])
async def test_deflate_bombs(raw: Open, start_bridge: StartBridge, let_in: bool, allowed: int) -> None:
    """They are inflated up to the limit and no further, before CONNECT as after it."""
    bridge = start_bridge(door("compression = true"))
    offer = request(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
    small, big = bomb(allowed + 1), bomb(60 * MIB)
    assert len(big) < 64 * KIB
    await connected(await raw(bridge, offer))
    before = peak(bridge)
    for n in range(20):
        client = await raw(bridge, offer)
        if let_in:
            await connected(client)
        if n % 2:
            await client.send(frame(BINARY, big if n % 4 == 1 else small, rsv=4))
        else:
            middle = len(big) // 2
            parts = frame(BINARY, big[:middle], fin=False, rsv=4) + frame(CONT, big[middle:])
            with contextlib.suppress(ConnectionError):
                await client.send(parts)
        assert close_code(await ended(client)) == 1009
    grown = peak(bridge) - before
    assert grown < 3 * allowed + 2 * MIB, f"{grown / MIB:.1f} MiB"


# Slow handshakes.


@pytest.mark.parametrize("steps", [("tcp", "http", "websocket", "connect"), ("tls",), ("proxy",)], ids=" ".join)
async def test_a_slow_handshake(raw: Open, start_bridge: StartBridge, tmp_path: Path, steps: tuple[str, ...]) -> None:
    """A byte now and then does not buy more time, at any step."""
    certificate = Certificate(tmp_path)
    listen = ""
    if steps == ("tls",):
        listen = certificate.toml()
    elif steps == ("proxy",):
        listen = 'proxy_protocol = true\ntrusted_proxies = ["127.0.0.1"]'
    timeouts = 'open_timeout = "500ms"\nconnect_timeout = "500ms"\nclose_timeout = "500ms"'
    bridge = start_bridge(door(listen, timeouts))
    await asyncio.gather(*(drag_out(raw, bridge, step) for step in steps))


async def drag_out(raw: Open, bridge: Bridge, step: str) -> None:
    client = await raw(bridge, request() if step in ("websocket", "connect") else b"")
    slow = {
        "tcp": b"",
        "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "http": b"GET /ws HTTP/1.1\r\nX: " + b"x" * 500,
        "proxy": b"PROXY UNKNOWN " + b"x" * 80,
        "websocket": frame_head(TEXT, 500) + bytes(500),
        "connect": b"".join(frame(TEXT, b"CONNECT\nx:xxx"[n : n + 1]) for n in range(13)) + frame(TEXT, b"x") * 50,
    }[step]
    started = time.monotonic()
    sending = asyncio.create_task(trickle(client, slow, 0.05))
    answer = await ended(client)
    assert time.monotonic() - started < 4
    await sending
    if step in ("websocket", "connect"):
        assert b"ERROR\n" in answer
        assert close_code(answer) == 1008
    else:
        assert answer == b""


# Too many.


async def turned_away(client: Client) -> str:
    status, headers, body = await client.response()
    assert status == 503
    assert "retry-after" in headers
    assert headers["connection"] == "close"
    return body.decode()


async def test_more_connections_than_there_may_be(raw: Open, start_bridge: StartBridge) -> None:
    bridge = start_bridge(door(limits="connections = 3"))
    clients = [await raw(bridge, request()) for _ in range(3)]
    for client in clients:
        await connected(client)
    for _ in range(5):
        assert "no more connections" in await turned_away(await raw(bridge))
    bridge.wait_log("limit_reached", limit="full")
    assert len(bridge.events("limit_reached")) == 1
    clients.pop().close()
    await connected(await until_accepted(raw, bridge))


async def test_more_connections_of_an_address_than_there_may_be(raw: Open, start_bridge: StartBridge) -> None:
    bridge = start_bridge(door(limits="connections_per_address = 2"))
    clients = [await raw(bridge, request()) for _ in range(2)]
    assert "of this address" in await turned_away(await raw(bridge))
    # Another address of the same machine has a share of its own.
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port, local_addr=("127.0.0.2", 0))
    other = Client(reader, writer)
    await other.send(request())
    assert (await other.response())[0] == 101
    await other.abort()
    clients.pop().close()
    await until_accepted(raw, bridge)


async def test_more_that_do_not_connect_than_there_may_be(raw: Open, start_bridge: StartBridge) -> None:
    """They do not take away the place of those who do."""
    bridge = start_bridge(door(limits='pending_per_address = 3\nconnect_timeout = "30s"'))
    for _ in range(10):
        await connected(await raw(bridge, request()))
    for _ in range(3):
        await raw(bridge, request())
    assert "just connecting" in await turned_away(await raw(bridge))


async def until_accepted(raw: Open, bridge: Bridge) -> Client:
    """Tries until there is room again."""
    async with asyncio.timeout(WAIT):
        while True:
            client = await raw(bridge)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await client.send(request())
                status, _, _ = await client.response()
                if status == 101:
                    return client
            client.close()


# Who says that it is somebody else.

V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, bytes((203, 0, 113, 9)), b"\x7f\0\0\x01", 1, 2)
FORGED = [
    b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n" + request(),
    V2 + request(),
    request(headers={"X-Forwarded-For": "203.0.113.9"}),
    request(headers={"X-Forwarded-For": "203.0.113.9, 203.0.113.8", "Forwarded": "for=203.0.113.9"}),
    request(headers={"X-Real-IP": "203.0.113.9"}),
]


@pytest.mark.parametrize(
    "listen",
    [
        "",
        'trusted_proxies = ["10.0.0.0/8"]',
        'trusted_proxies = ["10.0.0.0/8"]\nproxy_protocol = true',
    ],
    ids=["nobody is trusted", "somebody else is", "somebody else is, with PROXY"],
)
async def test_forged_addresses(raw: Open, start_bridge: StartBridge, listen: str) -> None:
    bridge = start_bridge(door(listen))
    for hello in FORGED:
        client = await raw(bridge)
        await client.send(hello)
        status, _, _ = await client.response()
        if status == 101:
            await connected(client)
        else:
            assert status == 400
        bridge.wait_log(
            "session_opened" if status == 101 else "handshake_refused",
            remote="{}:{}".format(*client.writer.get_extra_info("sockname")),
        )
    assert "203.0.113" not in bridge.log
    remotes = [record["remote"] for record in bridge.events() if "remote" in record]
    assert all(remote.startswith("127.0.0.1:") for remote in remotes)


async def test_a_limit_does_not_believe_a_forged_address(raw: Open, start_bridge: StartBridge) -> None:
    """What a client puts in front of what its proxy adds is nobody's word."""
    bridge = start_bridge(door('trusted_proxies = ["127.0.0.1"]', "connections_per_address = 1"))
    client = await raw(bridge, request(headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}))
    await connected(client)
    assert bridge.wait_log("session_opened")["remote"] == "203.0.113.9"
    again = await raw(bridge)
    await again.send(request(headers={"X-Forwarded-For": "198.51.100.2, 203.0.113.9"}))
    assert "of this address" in await turned_away(again)
    for garbage in ("203.0.113.9, x", "\x1b[31m", "203.0.113.9 203.0.113.8"):
        odd = await raw(bridge)
        await odd.send(request(headers={"X-Forwarded-For": garbage}))
        assert (await odd.response())[0] in (101, 400)
        odd.close()
        await ended(odd)


# TLS.


async def test_what_is_not_tls(raw: Open, start_bridge: StartBridge, tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    bridge = start_bridge(door(certificate.toml()))
    assert bridge.wait_log("listening")["url"].startswith("wss://")
    for data in (
        request(),
        b"\0" * 1000,
        b"\x16\x03\x01\xff\xff" + b"x" * 1000,
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\0\x02",
    ):
        client = await raw(bridge)
        await client.send(data)
        client.writer.write_eof()
        await ended(client)
    await connected(await raw(bridge, request(), trust=certificate.trust()))
    assert {record["event"] for record in bridge.events()} <= {"few_files", "listening", "session_opened", "broker_up"}
