"""A small HTTP server for operators: one request per connection, and an answer, or a stream until the client goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol, cast

import h11
import msgspec

from stompbridge.config import Admin
from stompbridge.gateway.listener import addresses, listen
from stompbridge.lifecycle.sockets import serve_passed
from stompbridge.log import get_logger

_log = get_logger(__name__)

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

MAX_SOCKETS = 64
"""Open sockets; more are answered with 503."""
TIMEOUT = 10.0
"""Seconds from connect to the end of a socket, unless it gets a stream."""
MAX_HEAD = 16 * 1024
"""Bytes of a request line and its headers."""
MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

_BACKLOG = 128
# Seconds of silence, seconds between probes, and their number: a peer that is gone is noticed within a minute.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
_SECURITY = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cache-Control", "no-store"),
]


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. ``query`` lacks its ``?``; header names are in lower case, and of repeated ones the last counts.
    ``address`` is the IP address of who asks."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    address: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Sink(Protocol):
    """The socket under a stream."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""

    def write(self, data: bytes) -> None:
        """Sends a piece."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on. ``begin`` is called when its head is sent, ``end`` once when the client is gone."""

    content_type: str
    begin: Callable[[Sink], None]
    end: Callable[[], None]


class Refusal(Exception):
    """A request is not served: its status, a text for the one who asked, and further headers."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.answer = Answer(status, JSON, msgspec.json.encode({"error": text}) + b"\n", headers)


Handler = Callable[[Request], Awaitable[Answer | Stream]]
"""Answers any request. Raises :class:`Refusal`; must not block."""


class AdminServer:
    """Serves what ``handler`` answers. An error in it is logged and answered with 500."""

    def __init__(self, settings: Admin, handler: Handler) -> None:
        self._settings = settings
        self.handler = handler
        self.sockets: set[_Exchange] = set()
        self._servers: list[asyncio.Server] = []
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, passed: Sequence[socket.socket] = ()) -> list[tuple[str, int]]:
        """Listens, on the sockets that were ``passed`` if there are any, and returns on which addresses and ports.
        Raises ``ListenError``."""
        settings = self._settings
        if passed:
            self._servers = await serve_passed(lambda: _Exchange(self), passed, _BACKLOG)
        else:
            self._servers = [await listen(lambda: _Exchange(self), "admin", settings.host, settings.port, _BACKLOG)]
        return [address for server in self._servers for address in addresses(server)]

    async def stop(self) -> None:
        """Closes everything at once."""
        for server in self._servers:
            server.close()
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

    async def answer(self, request: Request) -> Answer | Stream:
        """The answer to a request, whatever happens."""
        try:
            return await self.handler(request)
        except Refusal as refusal:
            return refusal.answer
        except Exception:
            _log.exception("admin_request_failed", path=request.path)
            return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error").answer


class _Exchange(asyncio.Protocol):
    """One socket: a request, its answer or stream, the end."""

    __slots__ = ("_address", "_answered", "_body", "_http", "_request", "_server", "_stream", "_task", "_timer",
                 "_transport")  # fmt: skip

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, server: AdminServer) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._address = ""
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._stream: Stream | None = None
        self._answered = False

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._address = (transport.get_extra_info("peername") or ("",))[0]
        self._timer = asyncio.get_running_loop().call_later(TIMEOUT, self.abort)
        if not self._server.opened(self):
            self._send(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections").answer)
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._answered and self._task is None:
            self._receive(data)

    def eof_received(self) -> bool:
        if not self._answered and self._task is None:
            self._receive(b"")
        # Half-open as long as an answer is still to come; who has a stream and says no more is gone.
        return not self._answered and self._task is not None

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        stream, self._stream = self._stream, None
        self._server.closed(self)
        if stream is not None:
            stream.end()

    def abort(self) -> None:
        """Ends the socket at once."""
        self._transport.abort()

    # As a Sink.

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._bytes(h11.Data(data)))

    # The request.

    def _receive(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            self._take_events()
        except h11.RemoteProtocolError as error:
            self._send(Refusal(error.error_status_hint, f"not a valid HTTP request: {error}").answer)
        except Refusal as refusal:
            self._send(refusal.answer)

    def _take_events(self) -> None:
        while True:
            match self._http.next_event():
                case h11.Request() as request:
                    self._begin(request)
                case h11.Data() as piece:
                    self._body += piece.data
                    if len(self._body) > MAX_BODY:
                        raise _too_large()
                case h11.EndOfMessage():
                    assert self._request is not None
                    self._task = asyncio.get_running_loop().create_task(self._respond(self._whole(self._request)))
                    return
                case _:
                    # More is needed; a connection that closed before its request has nobody who waits for an answer.
                    return

    def _begin(self, request: h11.Request) -> None:
        self._request = request
        if len(request.target) + sum(len(name) + len(value) for name, value in request.headers) > MAX_HEAD:
            raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head is longer than {MAX_HEAD} bytes")
        for name, value in request.headers:
            if name == b"content-length" and int(value) > MAX_BODY:
                raise _too_large()
        if self._http.they_are_waiting_for_100_continue:
            self._transport.write(self._bytes(h11.InformationalResponse(status_code=100, headers=[])))

    def _whole(self, request: h11.Request) -> Request:
        path, _, query = request.target.decode("ascii").partition("?")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        return Request(request.method.decode("ascii"), path, query, headers, bytes(self._body), self._address)

    # The answer.

    async def _respond(self, request: Request) -> None:
        answer = await self._server.answer(request)
        closing = self._transport.is_closing()
        if isinstance(answer, Stream):
            if closing:
                answer.end()
            else:
                self._begin_stream(answer)
        elif not closing:
            self._send(answer)

    def _begin_stream(self, stream: Stream) -> None:
        self._timer.cancel()
        self._answered = True
        self._stream = stream
        _keep_alive(self._transport)
        self._transport.write(self._bytes(self._head(HTTPStatus.OK, stream.content_type)))
        stream.begin(self)

    def _send(self, answer: Answer) -> None:
        self._answered = True
        extra = (("Content-Length", str(len(answer.body))), *answer.headers)
        data = self._bytes(self._head(answer.status, answer.content_type, *extra))
        if self._request is None or self._request.method != b"HEAD":
            data += self._bytes(h11.Data(answer.body))
        self._transport.write(data + self._bytes(h11.EndOfMessage()))
        # Half-closed, so that input left unread does not reset the connection and take the answer along.
        self._transport.write_eof()

    @staticmethod
    def _head(status: int, content_type: str, *extra: tuple[str, str]) -> h11.Response:
        headers = [("Date", formatdate(usegmt=True)), ("Connection", "close"), ("Content-Type", content_type)]
        return h11.Response(
            status_code=status, reason=HTTPStatus(status).phrase, headers=[*headers, *_SECURITY, *extra]
        )

    def _bytes(self, event: Any) -> bytes:
        return self._http.send(event) or b""


def _too_large() -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {MAX_BODY} bytes")


def _keep_alive(transport: asyncio.Transport) -> None:
    opened = transport.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
