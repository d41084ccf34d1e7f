from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from stompbridge.admin import server as module
from stompbridge.admin.server import AdminServer, Answer, Refusal, Request, Sink, Stream
from stompbridge.config import Admin
from stompbridge.gateway.listener import ListenError

WAIT = 10.0
HOST = b"\r\nHost: 127.0.0.1"


class Site:
    """A server, the requests that it got, and clients that send any bytes."""

    def __init__(self) -> None:
        self.server = AdminServer(Admin(port=0), self.handle)
        self.port = 0
        self.requests: list[Request] = []
        self.sinks: list[Sink] = []
        self.ended = 0
        self.late = asyncio.Event()
        self.cancelled = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def handle(self, request: Request) -> Answer | Stream:
        self.requests.append(request)
        match request.path:
            case "/livez":
                return Answer(200, "text/plain", b"ok\n")
            case "/echo":
                return Answer(200, "text/plain", request.query.encode() + request.body)
            case "/big":
                return Answer(200, "text/plain", b"x" * 5_000_000)
            case "/stream":
                return Stream("application/x-ndjson", self.sinks.append, self.end)
            case "/late":
                try:
                    await self.late.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
                return Answer(200, "text/plain", b"late\n")
            case "/fail":
                raise RuntimeError("broken")
        raise Refusal(405, "only GET", ("Allow", "GET, HEAD"))

    def end(self) -> None:
        self.ended += 1

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def leave(self) -> None:
        """Ends all clients."""
        for writer in self._writers:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower-case) and body of the answer to these bytes."""
        return parse(await self.exchange(*parts))

    async def exchange(self, *parts: bytes) -> bytes:
        """All that comes back for these bytes."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            with suppress(ConnectionError):
                await writer.drain()
        async with asyncio.timeout(WAIT):
            answer = await reader.read()
        writer.close()
        return answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for the server to see what a client did."""
        async with asyncio.timeout(WAIT):
            while not condition():
                # Whatever comes of it: where sockets have little time, this one may have too little.
                with suppress(ConnectionError):
                    await self.exchange(b"GET /livez HTTP/1.1" + HOST + b"\r\n\r\n")


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split(" ")[1]), headers, body


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    served = Site()
    [(_, served.port)] = await served.server.start()
    try:
        yield served
    finally:
        await served.leave()
        await served.server.stop()
        assert not served.server.sockets


async def test_answers(site: Site) -> None:
    status, headers, body = await site.ask(b"GET /livez?a=b HTTP/1.1\r\nHost: x\r\nX-Y:  z \r\n\r\n")
    assert (status, body) == (200, b"ok\n")
    assert headers["content-type"] == "text/plain"
    assert headers["content-length"] == "3"
    assert headers["connection"] == "close"
    assert headers["date"].endswith("GMT")
    assert site.requests == [Request("GET", "/livez", "a=b", {"host": "x", "x-y": "z"}, b"", "127.0.0.1")]


async def test_security_headers(site: Site) -> None:
    for path in (b"/livez", b"/nothing", b"/fail", b"bad request"):
        _, headers, _ = await site.ask(b"GET " + path + b" HTTP/1.1" + HOST + b"\r\n\r\n")
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"):
            assert part in policy.split("; ")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /echo?a=b&c HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /echo?a= HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nb&c",
        b"POST /echo?a= HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n2\r\n&c\r\n0\r\n\r\n",
        b"GET /echo?a=b&c HTTP/1.0\r\n\r\n",
    ],
)
async def test_whole_and_byte_by_byte(site: Site, data: bytes) -> None:
    expected = b"b&c" if data.startswith(b"POST") else b"a=b&c"
    for parts in ([data], [data[n : n + 1] for n in range(len(data))]):
        status, _, body = await site.ask(*parts)
        assert (status, body[-len(expected) :]) == (200, expected)


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /echo?x?y HTTP/1.1" + HOST, 200),
        (b"GET /echo HTTP/1.0", 200),
        (b"HEAD /livez HTTP/1.1" + HOST, 200),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\nContent-Length: 0", 200),
        (b"POST /livez HTTP/1.1" + HOST, 200),
        (b"DELETE /livez HTTP/1.1" + HOST, 200),
        (b"OPTIONS * HTTP/1.1" + HOST, 405),
        (b"CONNECT other:80 HTTP/1.1" + HOST, 405),
        (b"GET http://127.0.0.1/livez HTTP/1.1" + HOST, 405),
        (b"GET /livez HTTP/1.1", 400),
        (b"GET /livez HTTP/1.1" + HOST + HOST, 400),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\nContent-Length: x", 400),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\nContent-Length: -1", 400),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\nContent-Length: 3\r\nContent-Length: 4", 400),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\nTransfer-Encoding: gzip", 501),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\n folded: x\r\nno colon", 400),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\nX: a\0b", 400),
        (b"GET /li vez HTTP/1.1" + HOST, 400),
        (b"GET /livez HTTP/9" + HOST, 400),
        (b"hello", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1" + HOST, 431),
        (b"GET /livez HTTP/1.1" + HOST + b"\r\nX: " + b"x" * 20_000, 431),
        (b"GET /livez HTTP/1.1" + HOST + b"".join(b"\r\nX%d: y" % n for n in range(10_000)), 431),
    ],
)
@pytest.mark.parametrize("trailer", [b"", b"GET /livez HTTP/1.1\r\n\r\n", b"\xff" * 100_000])
async def test_requests(site: Site, request_head: bytes, status: int, trailer: bytes) -> None:
    got, headers, content = await site.ask(request_head + b"\r\n\r\n" + trailer)
    assert got == status
    assert request_head.startswith(b"HEAD") or headers["content-length"] == str(len(content))
    assert status == 200 or content.startswith(b'{"error":"')
    assert ("allow" in headers) == (status == 405)
    assert len(site.requests) == (status in (200, 405))


@pytest.mark.parametrize(
    "data",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"GET /livez HTTP/x\r\n\r\n",
    ],
)
async def test_malformed_byte_by_byte(site: Site, data: bytes) -> None:
    status, _, body = await site.ask(*[data[n : n + 1] for n in range(len(data))])
    assert status == 400
    assert body.startswith(b'{"error":"not a valid HTTP request: ')


async def test_head_tells_the_length_of_the_body(site: Site) -> None:
    _, headers, body = await site.ask(b"HEAD /livez HTTP/1.1" + HOST + b"\r\n\r\n")
    assert headers["content-length"] == "3"
    assert body == b""


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 65537", b""),
        (b"Content-Length: 65537", b"x" * 65537),
        (b"Content-Length: 99999999999999999999", b""),
        (b"Transfer-Encoding: chunked", (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n"),
    ],
)
async def test_a_body_that_is_too_large(site: Site, head: bytes, body: bytes) -> None:
    status, _, answer = await site.ask(b"POST /echo HTTP/1.1" + HOST + b"\r\n" + head + b"\r\n\r\n" + body)
    assert (status, answer) == (413, b'{"error":"the body is longer than 65536 bytes"}\n')
    assert not site.requests


async def test_the_largest_body(site: Site) -> None:
    head = b"POST /echo HTTP/1.1" + HOST + b"\r\nContent-Length: 65536\r\nExpect: 100-continue\r\n\r\n"
    reader, writer = await site.connect()
    writer.write(head)
    async with asyncio.timeout(WAIT):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"x" * 65536)
        status, _, body = parse(await reader.read())
    assert (status, body) == (200, b"x" * 65536)


async def test_more_after_the_answer_is_dropped(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"GET /livez HTTP/1.1" + HOST + b"\r\n\r\n")
    async with asyncio.timeout(WAIT):
        assert (await reader.read()).endswith(b"ok\n")
    writer.write(b"GET /fail HTTP/1.1" + HOST + b"\r\n\r\n")
    await writer.drain()
    writer.close()
    await site.until(lambda: len(site.server.sockets) <= 1)
    assert "/fail" not in [request.path for request in site.requests]


async def test_a_client_that_says_no_more_gets_its_answer(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"GET /late HTTP/1.1" + HOST + b"\r\n\r\n")
    writer.write_eof()
    await site.until(lambda: any(request.path == "/late" for request in site.requests))
    site.late.set()
    async with asyncio.timeout(WAIT):
        assert (await reader.read()).endswith(b"late\n")


@pytest.mark.parametrize(
    "sent", [b"", b"GET /livez HTTP/1.1\r\n", b"POST /echo HTTP/1.0\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_a_client_that_says_no_more_too_early(site: Site, sent: bytes) -> None:
    reader, writer = await site.connect()
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(WAIT):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ") if sent else answer == b""
    assert not site.requests
    await site.until(lambda: len(site.server.sockets) <= 1)


async def test_a_client_that_leaves_before_its_answer(site: Site) -> None:
    _, writer = await site.connect()
    writer.write(b"GET /late HTTP/1.1" + HOST + b"\r\n\r\n")
    await site.until(lambda: any(request.path == "/late" for request in site.requests))
    # A reset: the end of what it says would not mean that it does not listen.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await site.until(lambda: site.cancelled == 1)


async def test_a_handler_that_fails(site: Site) -> None:
    with capture_logs() as logs:
        status, _, body = await site.ask(b"GET /fail?secret HTTP/1.1" + HOST + b"\r\n\r\n")
    assert (status, body) == (500, b'{"error":"internal error"}\n')
    assert [(entry["event"], entry["path"]) for entry in logs] == [("admin_request_failed", "/fail")]


async def test_big_answer(site: Site) -> None:
    _, _, body = await site.ask(b"GET /big HTTP/1.1" + HOST + b"\r\n\r\n")
    assert len(body) == 5_000_000


async def test_sockets_are_bounded(site: Site) -> None:
    idle = [await site.connect() for _ in range(module.MAX_SOCKETS)]
    status, _, body = await site.ask(b"GET /livez HTTP/1.1" + HOST + b"\r\n\r\n")
    assert (status, body) == (503, b'{"error":"too many connections"}\n')
    idle[0][1].close()
    async with asyncio.timeout(WAIT):
        while (await site.ask(b"GET /livez HTTP/1.1" + HOST + b"\r\n\r\n"))[0] == 503:
            pass


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
        b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_a_socket_has_limited_time(site: Site, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    _, writer = await site.connect()
    writer.transport.pause_reading()
    writer.write(sent)
    await site.until(lambda: len(site.server.sockets) == 2 or not site.server.sockets)
    await site.until(lambda: len(site.server.sockets) <= 1)
    writer.close()


async def test_a_stream_outlasts_the_limit_and_ends_with_its_client(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    reader, writer = await site.connect()
    writer.write(b"GET /stream HTTP/1.1" + HOST + b"\r\n\r\n")
    async with asyncio.timeout(WAIT):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked\r\n" in head
        assert b"application/x-ndjson" in head
        [sink] = site.sinks
        assert sink.unsent == 0
        sink.write(b"one\n")
        assert await reader.readexactly(9) == b"4\r\none\n\r\n"
        # A connection that has nothing but the limit is gone by then.
        other, _ = await site.connect()
        assert await other.read() == b""
        sink.write(b"two\n")
        assert await reader.readexactly(9) == b"4\r\ntwo\n\r\n"
    assert not site.ended
    writer.write_eof()
    await site.until(lambda: site.ended == 1)
    sink.write(b"three\n")


async def test_stop_ends_streams(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"GET /stream HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(WAIT):
        await reader.readuntil(b"\r\n\r\n")
        site.sinks[0].write(b"one\n")
        assert await reader.readexactly(4) == b"one\n"
        await site.server.stop()
    assert site.ended == 1


async def test_stop_cuts_open_sockets(site: Site) -> None:
    reader, writer = await site.connect()
    await site.ask(b"GET /livez HTTP/1.1" + HOST + b"\r\n\r\n")
    await site.server.stop()
    async with asyncio.timeout(WAIT):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await site.connect()


async def test_stop_without_start(site: Site) -> None:
    await AdminServer(Admin(), site.handle).stop()


async def test_port_in_use(site: Site) -> None:
    with pytest.raises(ListenError, match=r"\(admin.host, admin.port\): Address already in use; "):
        await AdminServer(Admin(port=site.port), site.handle).start()
