"""TLS between a socket and its connection.

The event loop's own TLS shows a socket only after its handshake, cannot half-close, and keeps one certificate for good.
Here a connection exists from its accept on, with all of its limits and deadlines, and takes this for its transport.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from stompbridge.gateway.closing import CloseReason
from stompbridge.log import get_logger

if TYPE_CHECKING:
    from stompbridge.gateway.connection import Connection

_log = get_logger(__name__)

# A record holds no more (RFC 8446 section 5.1).
_RECORD = 16384
_NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 37\r\n\r\nthis port speaks TLS: wss:// (https)\n"
)


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The server's side of TLS: a protocol to the socket's transport, a transport to ``connection``.

    Buffer sizes and limits are those of the socket: in encrypted bytes.
    """

    __slots__ = ("_connection", "_incoming", "_open", "_outgoing", "_over", "_ssl", "_transport")

    _transport: asyncio.Transport

    def __init__(self, connection: Connection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Whether the handshake is done.
        self._open = False
        # Whether what comes is of no interest any more.
        self._over = False

    # From the socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connection.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._incoming.write(data)
        plain: list[bytes] = []
        ended = False
        try:
            if not self._open:
                self._ssl.do_handshake()
                self._open = True
            while record := self._ssl.read(_RECORD):
                plain.append(record)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        if plain:
            self._connection.data_received(b"".join(plain))
        if ended and not self._over:
            self.eof_received()
            self._transport.close()

    def eof_received(self) -> None:
        self._over = True
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # From the connection.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts and writes. Before the end of the handshake there is no way to say anything: it is dropped."""
        if not self._open or self._over:
            return
        try:
            sent = self._ssl.write(data)
            while sent < len(data):
                sent += self._ssl.write(memoryview(data)[sent:])
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()

    def write_eof(self) -> None:
        """Says that nothing more is written, and takes nothing more."""
        if self._open and not self._over:
            # Whether the client has said so, too, is of no interest.
            with suppress(ssl.SSLError):
                self._ssl.unwrap()
            self._flush()
        self._over = True
        self._transport.write_eof()

    def abort(self) -> None:
        self._over = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    def _fail(self, error: ssl.SSLError) -> None:
        """No TLS, or none that we agree to. What OpenSSL has to say about it is sent."""
        self._over = True
        _log.debug("tls_failed", remote=self._connection.remote, reason=error.reason or str(error))
        self._flush()
        if error.reason == "HTTP_REQUEST":
            self._transport.write(_NOT_TLS)
        self._connection.give_up(CloseReason.TLS_FAILED)
