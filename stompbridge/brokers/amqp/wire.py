"""One AMQP connection: the library connects, authenticates and keeps it alive; its channels are ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable
from struct import error
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aiormq
import structlog
from aiormq.connection import SSLContextProvider
from aiormq.exceptions import AMQPError, AuthenticationError, ProbableAuthenticationError

from ... import __version__
from ...histogram import Histogram
from ..base import Failure
from . import methods
from .channel import Channel, ChannelClosed, LinkLost
from .codec import HEARTBEAT
from .login import Login
from .splitter import Blocked, Confirm, ConnectionClosing, Delivery, Event, Returned, Splitter, StreamError

GATHER = 0.001
"""Seconds; the shortest that uvloop knows. RabbitMQ confirms in 0.3 ms when it is idle."""
WRITE_BUFFER = 512 * 1024
"""Unsent bytes from which on publishing is held back."""
ORDERLY = 320
"""The broker's reply code when it is stopped or an operator closes the connection."""
REFUSED = ("access_refused", "not_allowed")
"""Its words, during the handshake, for a login and for a virtual host."""
SILENTLY = Failure("closed", "the connection was closed in answer to the login")
"""A refusal as AMQP 0-9-1 has it (section 4.10), of a login too long for a frame, say. Or the broker has just died."""

_log = structlog.get_logger(__name__)

for _name in ("aiormq.connection", "aiormq.channel"):
    # It logs each loss of a connection with a traceback; the supervisor reports the same in one line.
    logging.getLogger(_name).addFilter(lambda _record: False)


class WireError(Exception):
    """A connection that could not be made: where and why, without credentials. ``refused`` is the broker's answer where
    it does not let the login in, or not into the virtual host."""

    def __init__(self, text: str, refused: Failure | None = None) -> None:
        super().__init__(text)
        self.refused = refused


class _Tap(asyncio.StreamReaderProtocol):
    """Shows the bytes to the wire and passes on what is the library's."""

    def __init__(self, wire: Wire, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        # The base class holds the reader weakly once the library has let go of it.
        self._kept_reader = reader
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writable = cast(asyncio.Transport, transport)
        writable.set_write_buffer_limits(WRITE_BUFFER)
        self._wire.transport = writable
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        passed, events = self._wire.received(data)
        if passed:
            super().data_received(passed)
        if events:
            self._wire.dispatch(events)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wire.flow(paused=True)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wire.flow(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wire.lose("the connection was lost" if exc is None else f"the connection was lost ({_cause(exc)})")


class _Transports(aiormq.TransportFactory):
    """The library's seam: our protocol under its reader and writer."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(self, url: Any, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        context: ssl.SSLContext | None = None
        if url.scheme == "amqps":
            provider: SSLContextProvider = kwargs["ssl_context_provider"]
            context = await provider.get_context()
        reader = asyncio.StreamReader(loop=loop)
        tap = _Tap(self._wire, reader, loop)
        transport, _ = await loop.create_connection(lambda: tap, url.host, url.port, ssl=context)
        return reader, asyncio.StreamWriter(transport, tap, reader, loop)


class Wire:
    """One connection, with the credentials of ``login`` or else those of ``url``. ``on_lost`` is called once, with
    the reason, when it ends by itself; ``on_flow`` whenever ``paused`` or ``blocked`` change. ``gathers``: what is
    written while an answer is due waits for it, at most :data:`GATHER`, so that a busy broker gets few large writes.
    ``latency`` gets, for each delivery, the seconds from the read of its bytes until it was handed on."""

    def __init__(
        self,
        url: str,
        name: str,
        heartbeat: float,
        on_lost: Callable[[str], None],
        on_flow: Callable[[], None],
        login: Login | None = None,
        gathers: bool = False,
        latency: Histogram | None = None,
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.paused = False
        """The socket's buffer is full."""
        self.blocked: str | None = None
        """Why the broker does not want messages now (a resource alarm)."""
        self.frame_max = 0
        self.channel_max = 0
        self.answers_cancel = False
        self.failure: Failure | None = None
        """Why the broker closed the connection, if for something that was sent on it."""
        self.heartbeat = 0
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._on_flow = on_flow
        self._latency = Histogram() if latency is None else latency
        self._splitter = Splitter()
        self._channels: dict[int, Channel] = {}
        self._free: deque[int] = deque()
        self._next = 1
        self._out: list[bytes] = []
        self._gathers = gathers
        # Whether something was written since the broker was last heard.
        self._unanswered = False
        self._late: asyncio.TimerHandle | None = None
        self._opened = False
        self._reason = ""
        self._explained = ""
        self._refused: Failure | None = None
        # The last method of the handshake.
        self._method = b""
        self._last_read = self._last_passed = time.monotonic()
        try:
            self._connection = aiormq.Connection(
                _address(url if login is None else login.address(url), heartbeat),
                transport_factory=_Transports(self),
                client_properties={"connection_name": name, "product": "stompbridge", "version": __version__},
            )
        except (ValueError, KeyError):
            raise WireError("the broker's address is no amqp:// or amqps:// URL") from None
        self.where = f"{self._connection.url.host}:{self._connection.url.port}"
        self.user = self._connection.url.user or "guest"
        if login is not None:
            self._connection.vhost = login.virtual_host
        self.vhost = self._connection.vhost

    @property
    def server(self) -> dict[str, Any]:
        """What the broker says about itself once connected: ``product``, ``version``, ``capabilities``."""
        return cast(dict[str, Any], self._connection.server_properties)

    async def open(self, within: float) -> None:
        """Connects, within so many seconds. Raises :class:`WireError`."""
        try:
            async with asyncio.timeout(within):
                await self._connection.connect()
        except TimeoutError:
            await self.close(0)
            raise WireError(f"{self.where}: no answer within {within:g} s") from None
        except ProbableAuthenticationError as problem:
            text = f"{self.where}: login refused for user {self.user!r} ({_cause(problem)})"
            raise WireError(text, self._refused) from None
        except (AMQPError, OSError, ValueError, error, StopAsyncIteration) as problem:
            # StopAsyncIteration is aiormq's word for a connection that ends between two frames of the handshake.
            reason = self._explained or _cause(problem)
            answered = self._method != methods.CONNECTION_START or isinstance(problem, AuthenticationError)
            await self.close(0)
            raise WireError(f"{self.where}: {reason}", self._refused if answered else SILENTLY) from None
        tune = self._connection.connection_tune
        self.frame_max = tune.frame_max or 0
        self.channel_max = tune.channel_max or 65535
        self.heartbeat = self._connection.heartbeat_timeout
        self.answers_cancel = self._connection.accept_consumer_cancel_ok
        self._opened = True
        if self.closed:
            raise WireError(self._reason)

    async def close(self, within: float) -> None:
        """Closes it in order if so many seconds allow, else at once. Never raises."""
        transport = self.transport
        lost, self.closed = self.closed, True
        self._flush()
        if transport is not None and (lost or not within):
            transport.abort()
        for channel in self._forget_channels():
            channel.connection_lost("the connection was closed")
        with contextlib.suppress(Exception):
            async with asyncio.timeout(within or 1.0):
                await self._connection.close()
        if transport is not None:
            transport.abort()

    async def open_channel(self, spare: int = 0) -> Channel:
        """A new channel. Raises :class:`LinkLost`, or :class:`.ChannelClosed` with ``resource_error`` when fewer than
        ``spare`` would be left."""
        if self.closed:
            raise LinkLost("the connection is closed")
        if self._next <= self.channel_max - spare:
            number = self._next
            self._next += 1
        elif len(self._free) > spare:
            # First freed, first used again: the broker is surely done with it.
            number = self._free.popleft()
        else:
            text = f"all {self.channel_max} channels of the broker connection are in use"
            raise ChannelClosed(Failure("resource_error", text, fatal=False), culprit=True)
        channel = self._channels[number] = Channel(self, number)
        self._splitter.channels.add(number)
        try:
            await channel.call(methods.channel_open())
        except BaseException:
            channel.close()
            raise
        return channel

    def release(self, channel: Channel) -> None:
        if self._channels.pop(channel.number, None) is not None:
            self._splitter.forget(channel.number)
            self._free.append(channel.number)

    def send(self, data: bytes) -> None:
        """Writes whole frames, those of one turn of the loop together; where it ``gathers``, those until the broker has
        answered what was written before."""
        if self.closed:
            return
        if not self._out:
            if self._unanswered:
                self._late = self._loop.call_later(GATHER, self._flush)
            else:
                self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, transport = self._out, self.transport
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._unanswered = self._gathers and bool(out)
        if out and transport is not None and not transport.is_closing():
            transport.write(b"".join(out))
        out.clear()

    def received(self, data: bytes) -> tuple[bytes, list[Event]]:
        """Called by the protocol with what was read. Returns what the library is to see, and our events."""
        now = self._last_read = time.monotonic()
        if self._unanswered:
            self._unanswered = False
            if self._out:
                self._loop.call_soon(self._flush)
        try:
            passed, events = self._splitter.feed(data)
        except StreamError as problem:
            self.fail(f"the broker sent what is not AMQP ({problem})")
            return b"", []
        if passed:
            self._last_passed = now
            if not self._opened:
                self._method = passed[7:11]
        elif self._opened and now - self._last_passed > 1.0:
            # The broker sends no heart-beat while it delivers, and the library sees no delivery.
            self._last_passed = now
            passed = HEARTBEAT
        return passed, events

    def dispatch(self, events: list[Event]) -> None:
        """Hands events to their channels, neighbouring deliveries of one channel together."""
        batch: list[Delivery] = []
        for event in events:
            if type(event) is Delivery:
                if batch and batch[0].channel != event.channel:
                    self._deliver(batch)
                    batch = []
                batch.append(event)
                continue
            if batch:
                self._deliver(batch)
                batch = []
            try:
                self._dispatch_one(event)
            except StreamError as problem:
                self.fail(f"the broker sent what is not AMQP ({problem})")
            except Exception:
                _log.exception("broker_callback_failed")
        if batch:
            self._deliver(batch)

    def _deliver(self, batch: list[Delivery]) -> None:
        channel = self._channels.get(batch[0].channel)
        if channel is not None and not channel.closed:
            try:
                channel.on_deliveries(batch)
            except Exception:
                _log.exception("broker_callback_failed")
            self._latency.observe(time.monotonic() - self._last_read, len(batch))

    def _dispatch_one(self, event: Event) -> None:
        if isinstance(event, Blocked):
            self.blocked = event.reason
            self._on_flow()
            return
        if isinstance(event, ConnectionClosing):
            self._explained = f"{event.close.code} {event.close.text}"
            failure = event.close.failure
            if not self._opened and failure.code in REFUSED:
                self._refused = failure
            if event.close.code != ORDERLY:
                self.failure = failure
            self.lose(self._explained)
            return
        channel = self._channels.get(event.channel)
        if channel is None:
            return
        if isinstance(event, Confirm):
            if not channel.closed:
                channel.on_confirm(event)
        elif isinstance(event, Returned):
            if not channel.closed:
                channel.on_returned(event)
        elif not isinstance(event, Delivery):
            channel.method(event.payload)

    def flow(self, *, paused: bool) -> None:
        """Called by the protocol when the socket's buffer fills up and empties."""
        self.paused = paused
        self._on_flow()

    def check(self, now: float) -> None:
        """Called a few times a second: a peer silent for two heart-beat intervals is gone."""
        silent = now - self._last_read
        if self.heartbeat and silent > 2 * self.heartbeat + 0.5 and not self.closed:
            self.fail(f"the broker was silent for {silent:.0f} s")

    def stalled(self, seconds: float) -> None:
        """This process did not run for a while: what the peer sent may still be unread."""
        self._last_read += seconds

    def fail(self, reason: str) -> None:
        """Gives the connection up."""
        self._explained = reason
        self.lose(reason)
        if self.transport is not None:
            self.transport.abort()

    def lose(self, reason: str) -> None:
        """The connection is of no use any more."""
        if self.closed:
            return
        self.closed = True
        self._out.clear()
        self._reason = f"{self.where}: {reason}"
        for channel in self._forget_channels():
            channel.connection_lost(self._reason, self.failure)
        if self._opened:
            self._on_lost(self._reason)

    def _forget_channels(self) -> list[Channel]:
        channels = list(self._channels.values())
        self._channels.clear()
        return channels


def _address(url: str, seconds: float) -> str:
    """The URL with the configured heart-beat, unless it has one of its own."""
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise ValueError
    query = parse_qsl(parts.query, keep_blank_values=True)
    if not any(name == "heartbeat" for name, _ in query):
        query.append(("heartbeat", str(max(1, round(seconds)) if seconds else 0)))
    return urlunsplit(parts._replace(query=urlencode(query)))


def _cause(problem: BaseException) -> str:
    """An exception's text for people, on one line."""
    if isinstance(problem, ConnectionRefusedError) or "Connect call failed" in str(problem):
        return "connection refused"
    if isinstance(problem, StopAsyncIteration):
        return "the connection was lost"
    text = " ".join(str(part) for part in problem.args) or type(problem).__name__
    if isinstance(problem, ssl.SSLError):
        text = problem.reason or text
    return " ".join(text.split())
