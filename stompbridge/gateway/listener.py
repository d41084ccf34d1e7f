"""The sockets that browsers connect to, and all connections that came of them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence

from stompbridge.certificates import expires_at, server_context
from stompbridge.config import Limits, Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.connection_listener import ConnectionListener
from stompbridge.gateway.opening import Door
from stompbridge.gateway.sweep import Sweep
from stompbridge.gateway.tls import TlsTransport
from stompbridge.lifecycle.sockets import close_empty, serve_passed
from stompbridge.log import get_logger

_log = get_logger(__name__)

_HINTS: dict[int | None, str] = {
    errno.EADDRINUSE: "another program, perhaps another stompbridge, listens there: stop it or choose another port",
    errno.EACCES: "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE): choose another port or grant it",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose one that it has, or 0.0.0.0 for all",
}

_ABORT_TIMEOUT = 1.0
# Refused sockets that may linger, at a time, until they have read that there is no room for them.
_MAX_REFUSED = 256
# Seconds between two warnings of the same kind.
_WARNING_INTERVAL = 10.0


class ListenError(OSError):
    """A server socket could not be opened; the text names the address, the cause and what to do."""


async def listen(
    factory: Callable[[], asyncio.Protocol], section: str, host: str, port: int, backlog: int, reuse_port: bool = False
) -> asyncio.Server:
    """Opens a server on ``host`` and ``port``, which are the settings ``host`` and ``port`` of ``section``.
    ``reuse_port`` (SO_REUSEPORT) shares them with other processes that set it, too.

    Raises :class:`ListenError`.
    """
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_server(factory, host, port, backlog=backlog, reuse_port=reuse_port or None)
    except OSError as exc:
        if exc.errno is None or isinstance(exc, socket.gaierror):
            cause = exc.strerror or str(exc)
        else:
            cause = os.strerror(exc.errno)
        hint = _HINTS.get(exc.errno, "choose another address")
        error = ListenError(f"cannot listen on {host}:{port} ({section}.host, {section}.port): {cause}; {hint}")
        error.errno = exc.errno
        raise error from exc


def addresses(server: asyncio.Server) -> list[tuple[str, int]]:
    """Where a server of :func:`listen` listens."""
    return [opened.getsockname()[:2] for opened in server.sockets]


class Gateway:
    """Listens, holds all connections, and sweeps over them. Where sockets are ``passed``, those are listened on.

    ``accept`` is called for each connection whose handshake is done and returns its listener, whose ``on_open``
    follows. It may close the connection instead; then no call of the listener follows.
    """

    def __init__(
        self,
        settings: Settings,
        accept: Callable[[Connection], ConnectionListener],
        sweep: Sweep,
        passed: Sequence[socket.socket] = (),
    ) -> None:
        self.listen = settings.listen
        self.limits = settings.limits
        self.door = Door(settings)
        self.accept = accept
        self.connections: set[Connection] = set()
        self.connections_total = 0
        self.closed: dict[CloseReason, int] = dict.fromkeys(CloseReason, 0)
        """How many connections have ended for each reason, failed handshakes among them."""
        self.ended_bytes_in = 0
        self.ended_bytes_out = 0
        """Bytes of sockets that are gone."""
        self._sweep = sweep
        self._passed = passed
        self._servers: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self.certificate_expires_at: float | None = None
        """When the certificate in use ends, in seconds since 1970; ``None`` without TLS."""
        self._next_warning: dict[CloseReason, float] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connections_open(self) -> int:
        """Sockets that are open, also those still in, or past, their handshake."""
        return len(self.connections)

    @property
    def slow_consumers(self) -> int:
        """Clients cut off because they did not read."""
        return self.closed[CloseReason.SLOW_CONSUMER]

    async def start(self) -> list[tuple[str, int]]:
        """Listens, and returns on which addresses and ports.

        Raises :class:`ListenError`, and :class:`~stompbridge.certificates.CertificateError`.
        """
        self.loop = asyncio.get_running_loop()
        settings = self.listen
        self.reload_tls()
        if self._passed:
            self._servers = await serve_passed(self._new_protocol, self._passed, settings.backlog)
        else:
            self._servers = [
                await listen(
                    self._new_protocol, "listen", settings.host, settings.port, settings.backlog, settings.reuse_port
                )
            ]
        self._sweep.add(self._check)
        return [address for server in self._servers for address in addresses(server)]

    def read_certificate(self) -> ssl.SSLContext | None:
        """What the files hold now; ``None`` without TLS. Raises :class:`~stompbridge.certificates.CertificateError`."""
        return server_context(self.listen.tls_cert, self.listen.tls_key) if self.listen.tls_cert else None

    def use_certificate(self, context: ssl.SSLContext | None) -> None:
        """For the handshakes to come; connections stay."""
        self._tls = context
        if context is not None:
            self.certificate_expires_at = expires_at(self.listen.tls_cert)

    def reload_tls(self) -> None:
        """Both."""
        self.use_certificate(self.read_certificate())

    def listeners(self) -> list[ConnectionListener]:
        """Those behind the open WebSockets."""
        return [connection.listener for connection in self.connections if connection.listener is not None]

    def use_limits(self, limits: Limits) -> None:
        """For what is asked from now on; connections stay."""
        self.limits = limits
        self.door.capacity.use(limits)

    async def stop_accepting(self) -> None:
        """Closes the server's sockets; connections stay. Those that waited to be accepted are taken in, unless the
        socket was passed: then they wait for whoever has it, too."""
        servers, self._servers = self._servers, []
        if not self._passed:
            await close_empty(servers, self._new_protocol)
        for server in servers:
            server.close()

    async def close_all(self, reason: CloseReason, limit: float) -> None:
        """Closes all connections and waits for their end. Those that are there after ``limit`` seconds are cut."""
        for connection in tuple(self.connections):
            connection.close(reason)
        if not await self._emptied(limit):
            for connection in tuple(self.connections):
                connection.abort(reason)
            await self._emptied(_ABORT_TIMEOUT)

    def connection_made(self, connection: Connection) -> None:
        """A connection's socket is there."""
        self.connections.add(connection)
        self.connections_total += 1
        self._empty.clear()

    def connection_lost(self, connection: Connection) -> None:
        """A connection's socket is gone."""
        self.connections.discard(connection)
        assert connection.reason is not None
        self.closed[connection.reason] += 1
        self.ended_bytes_in += connection.bytes_in
        self.ended_bytes_out += connection.bytes_out
        if not self.connections:
            self._empty.set()

    def note_refusal(self, reason: CloseReason, remote: str, text: str) -> bool:
        """A socket is refused before it is a WebSocket; whether there is time for it to read why."""
        if reason in (CloseReason.REJECTED, CloseReason.BAD_PROXY):
            _log.info("handshake_refused", remote=remote, reason=text)
        else:
            now = self.loop.time()
            if now >= self._next_warning.get(reason, now):
                self._next_warning[reason] = now + _WARNING_INTERVAL
                _log.warning("limit_reached", limit=reason.label, remote=remote)
        return len(self.connections) - self.door.capacity.sockets <= _MAX_REFUSED

    def _new_protocol(self) -> asyncio.Protocol:
        connection = Connection(self)
        return connection if self._tls is None else TlsTransport(connection, self._tls)

    def _check(self, now: float) -> None:
        for connection in tuple(self.connections):
            if now >= connection.check_at:
                connection.check(now)

    async def _emptied(self, limit: float) -> bool:
        try:
            await asyncio.wait_for(self._empty.wait(), limit)
        except TimeoutError:
            return False
        return True
