"""Credentials, a web server on loopback, and both event loops for every asynchronous test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from stompbridge.auth.base import Credentials

Ask = Callable[..., Credentials]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The standard library's loop and the one that is used in earnest."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def ask() -> Ask:
    """``ask(login, passcode)`` makes credentials; any field can be given by name."""

    def make(login: str | None = None, passcode: str | None = None, **fields: Any) -> Credentials:
        values = {"host": None, "headers": {}, "upgrade": {}, "address": "192.0.2.1", **fields}
        return Credentials(login=login, passcode=passcode, **values)

    return make


def answer(body: bytes | str = b"", status: str = "200 OK", *headers: str) -> bytes:
    """An HTTP response."""
    data = body.encode() if isinstance(body, str) else body
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers, "", ""]).encode() + data


class Web:
    """A server that keeps what it was asked and answers with ``respond(body)``; ``None`` hangs up.

    While ``hold`` is set it answers nobody.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.respond: Callable[[bytes], bytes | None] = lambda _body: answer()
        self.connections = 0
        self.asked = asyncio.Event()
        self.hold = False
        self._released = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/path"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self.scheme = "https" if tls is not None else "http"
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.release()
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def release(self) -> None:
        self.hold = False
        self._released.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
                self.requests.append((head, body))
                self.asked.set()
                if self.hold:
                    await self._released.wait()
                response = self.respond(body)
                if response is None:
                    break
                writer.write(response)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A running web server."""
    server = Web()
    await server.start()
    yield server
    await server.stop()
