from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from stompbridge.admin import server as module
from stompbridge.admin.server import AdminServer
from stompbridge.config import Admin
from stompbridge.gateway.listener import ListenError

WAIT = 10.0


def fail(query: str) -> tuple[int, str, bytes]:
    raise RuntimeError("broken")


HANDLERS = {
    "/livez": lambda query: (200, "text/plain", b"ok\n"),
    "/echo": lambda query: (200, "text/plain; charset=utf-8", query.encode()),
    "/readyz": lambda query: (503, "application/json", b"{}"),
    "/big": lambda query: (200, "text/plain", b"x" * 5_000_000),
    "/fail": fail,
}


class Site:
    def __init__(self) -> None:
        self.server = AdminServer(Admin(port=0), HANDLERS)
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

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
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            with suppress(ConnectionError):
                await writer.drain()
        async with asyncio.timeout(WAIT):
            answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return int(lines[0].split(" ")[1]), headers, body

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for the server to see what a client did."""
        async with asyncio.timeout(WAIT):
            while not condition():
                await self.ask(b"GET /livez HTTP/1.1\r\n\r\n")


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
    status, headers, body = await site.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body) == (200, b"ok\n")
    assert headers["content-type"] == "text/plain"
    assert headers["content-length"] == "3"
    assert headers["connection"] == "close"
    assert headers["cache-control"] == "no-store"
    assert headers["date"].endswith("GMT")


async def test_answers_byte_by_byte(site: Site) -> None:
    data = b"GET /echo?a=b&c HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await site.ask(*[data[n : n + 1] for n in range(len(data))]))[2] == b"a=b&c"


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        (b"GET /echo?x?y HTTP/1.1", 200, b"x?y"),
        (b"GET /echo HTTP/1.0", 200, b""),
        (b"GET /readyz HTTP/1.1", 503, b"{}"),
        (b"HEAD /livez HTTP/1.1", 200, b""),
        (b"GET /nothing HTTP/1.1", 404, b"not found; there is: /livez /echo /readyz /big /fail\n"),
        (b"GET /livez/ HTTP/1.1", 404, b"not found; there is: /livez /echo /readyz /big /fail\n"),
        (b"HEAD /nothing HTTP/1.1", 404, b""),
        (b"POST /livez HTTP/1.1", 405, b"only GET and HEAD\n"),
        (b"DELETE /livez HTTP/1.1", 405, b"only GET and HEAD\n"),
        (b"GET /livez HTTP/1.1\r\nContent-Length: 3", 400, b"did not receive a valid HTTP request\n"),
        (b"GET /livez HTTP/9", 400, b"did not receive a valid HTTP request\n"),
        (b"hello", 400, b"did not receive a valid HTTP request\n"),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1", 400, None),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 10_000, 400, None),
    ],
)
@pytest.mark.parametrize("trailer", [b"", b"\x88\x80\x00\x00\x00\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000])
async def test_requests(site: Site, request_line: bytes, status: int, body: bytes | None, trailer: bytes) -> None:
    got, headers, content = await site.ask(request_line + b"\r\n\r\n" + trailer)
    assert got == status
    assert body is None or content == body
    assert ("allow" in headers) == (status == 405)
    assert request_line.startswith(b"HEAD") or headers["content-length"] == str(len(content))


async def test_head_tells_the_length_of_the_body(site: Site) -> None:
    _, headers, body = await site.ask(b"HEAD /livez HTTP/1.1\r\n\r\n")
    assert headers["content-length"] == "3"
    assert body == b""


async def test_more_after_the_answer_is_dropped(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(WAIT):
        assert (await reader.read()).endswith(b"ok\n")
    writer.write(b"GET /fail HTTP/1.1\r\n\r\n")
    await writer.drain()
    writer.close()
    await site.until(lambda: len(site.server.sockets) <= 1)


async def test_a_handler_that_fails(site: Site) -> None:
    with capture_logs() as logs:
        status, _, body = await site.ask(b"GET /fail?secret HTTP/1.1\r\n\r\n")
    assert (status, body) == (500, b"internal error\n")
    assert [(entry["event"], entry["path"]) for entry in logs] == [("admin_request_failed", "/fail")]


async def test_big_answer(site: Site) -> None:
    _, _, body = await site.ask(b"GET /big HTTP/1.1\r\n\r\n")
    assert len(body) == 5_000_000


async def test_sockets_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SOCKETS", 3)
    idle = [await site.connect() for _ in range(3)]
    status, _, body = await site.ask(b"GET /livez HTTP/1.1\r\n\r\n")
    assert (status, body) == (503, b"too many connections\n")
    idle[0][1].close()
    async with asyncio.timeout(WAIT):
        while (await site.ask(b"GET /livez HTTP/1.1\r\n\r\n"))[0] == 503:
            pass
    for _, writer in idle:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\n", b"GET /big HTTP/1.1\r\n\r\n"])
async def test_a_socket_has_limited_time(site: Site, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    _, writer = await site.connect()
    writer.transport.pause_reading()
    writer.write(sent)
    await site.until(lambda: len(site.server.sockets) == 2 or not site.server.sockets)
    await site.until(lambda: len(site.server.sockets) <= 1)
    writer.close()


async def test_stop_cuts_open_sockets(site: Site) -> None:
    reader, writer = await site.connect()
    await site.ask(b"GET /livez HTTP/1.1\r\n\r\n")
    await site.server.stop()
    async with asyncio.timeout(WAIT):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await site.connect()


async def test_stop_without_start() -> None:
    await AdminServer(Admin(), {}).stop()


async def test_port_in_use(site: Site) -> None:
    with pytest.raises(ListenError, match=r"\(admin.host, admin.port\): Address already in use; "):
        await AdminServer(Admin(port=site.port), {}).start()
