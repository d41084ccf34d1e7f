"""A small HTTP server for health checks and metrics: one request per connection, answered at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from stompbridge.config import Admin
from stompbridge.gateway.listener import addresses, listen
from stompbridge.log import get_logger

_log = get_logger(__name__)

Handler = Callable[[str], tuple[int, str, bytes]]
"""From the query string, without its ``?``, to status, content type and body. Must not block."""

MAX_SOCKETS = 64
"""Open sockets; more are answered with 503."""

TIMEOUT = 10.0
"""Seconds from connect to the end of a socket."""

_BACKLOG = 128
_TEXT = "text/plain; charset=utf-8"


class AdminServer:
    """Serves ``handlers``, by path. An error in one is logged and answered with 500."""

    def __init__(self, settings: Admin, handlers: Mapping[str, Handler]) -> None:
        self._settings = settings
        self.handlers = handlers
        self.sockets: set[_Exchange] = set()
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> list[tuple[str, int]]:
        """Listens, and returns on which addresses and ports. Raises ``ListenError``."""
        settings = self._settings
        self._server = await listen(lambda: _Exchange(self), "admin", settings.host, settings.port, _BACKLOG)
        return addresses(self._server)

    async def stop(self) -> None:
        """Closes everything at once."""
        if self._server is not None:
            self._server.close()
        for exchange in tuple(self.sockets):
            exchange.abort()
        # The transports close their sockets in one of the next turns of the loop.
        await self._empty.wait()

    def opened(self, exchange: _Exchange) -> bool:
        """A socket is there; whether it may stay."""
        if len(self.sockets) >= MAX_SOCKETS:
            return False
        self.sockets.add(exchange)
        self._empty.clear()
        return True

    def closed(self, exchange: _Exchange) -> None:
        """A socket is gone."""
        self.sockets.discard(exchange)
        if not self.sockets:
            self._empty.set()

    def answer(self, request: Request) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to ``request``."""
        if request.method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"only GET and HEAD\n"
        path, _, query = request.path.partition("?")
        handler = self.handlers.get(path)
        if handler is None:
            return HTTPStatus.NOT_FOUND, _TEXT, b"not found; there is: " + " ".join(self.handlers).encode() + b"\n"
        try:
            return handler(query)
        except Exception:
            _log.exception("admin_request_failed", path=path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"internal error\n"


class _Exchange(asyncio.Protocol):
    """One socket: a request, its answer, the end."""

    __slots__ = ("_answered", "_protocol", "_server", "_timer", "_transport")

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, server: AdminServer) -> None:
        self._server = server
        # Only its HTTP parser is used, which bounds the request line and the headers.
        self._protocol = ServerProtocol()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(TIMEOUT, self.abort)
        if not self._server.opened(self):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"too many connections\n")
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            # The first event; any others are what follows the request, read as frames.
            assert isinstance(event, Request)
            self._send(*self._server.answer(event), with_body=event.method != "HEAD")
            return
        if self._protocol.eof_sent:
            self._send(HTTPStatus.BAD_REQUEST, _TEXT, f"{self._protocol.handshake_exc}\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._server.closed(self)

    def abort(self) -> None:
        """Ends the socket at once."""
        self._transport.abort()

    def _send(self, status: int, content_type: str, body: bytes, *, with_body: bool = True) -> None:
        self._answered = True
        headers = Headers(
            {
                "Date": formatdate(usegmt=True),
                "Connection": "close",
                "Cache-Control": "no-store",
                "Content-Type": content_type,
                "Content-Length": str(len(body)),
                "X-Content-Type-Options": "nosniff",
            }
        )
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET, HEAD"
        response = Response(status, HTTPStatus(status).phrase, headers, body if with_body else b"")
        self._transport.write(response.serialize())
        # Half-closed, so that input left unread does not reset the connection and take the answer along.
        self._transport.write_eof()
