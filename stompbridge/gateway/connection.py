"""One client's socket: WebSocket on one side, payloads and ready-made frames on the other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from websockets.protocol import SEND_EOF

from stompbridge.gateway.capacity import Seat
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection_listener import ConnectionListener, part
from stompbridge.gateway.frames import PING, is_utf8, ws_frame
from stompbridge.gateway.handshake import StompServerProtocol
from stompbridge.gateway.opening import NO_HEADERS, Opening
from stompbridge.gateway.receiver import Receiver
from stompbridge.log import get_logger

if TYPE_CHECKING:
    from stompbridge.gateway.listener import Gateway

_log = get_logger(__name__)

_HIGH_WATER = 64 * 1024


class Connection(asyncio.Protocol):
    """One socket from its accept to its end.

    Nothing here raises towards its caller, and no call of the listener comes from inside a call that it makes.
    """

    __slots__ = (
        "_bytes_seen",
        "_checked",
        "_clear",
        "_deadline",
        "_gateway",
        "_held",
        "_listener",
        "_lost",
        "_opening",
        "_pinged",
        "_protocol",
        "_receiver",
        "_seat",
        "_time",
        "_transport",
        "_transport_write",
        "_write_limit",
        "address",
        "busy",
        "bytes_in",
        "bytes_out",
        "check_at",
        "compresses",
        "last_read",
        "last_write",
        "ping",
        "reading_paused",
        "reason",
        "remote",
        "subprotocol",
        "upgrade",
        "writing_paused",
    )

    _transport: asyncio.Transport
    _transport_write: Callable[[bytes], None]

    def __init__(self, gateway: Gateway) -> None:
        limits = gateway.limits
        self._gateway = gateway
        self._time = gateway.loop.time
        self._protocol = StompServerProtocol(limits.frame, gateway.listen.compression)
        self._receiver = Receiver(self._protocol, limits.frame, limits.fragments)
        self._opening: Opening | None = None
        self._seat: Seat | None = None
        self._listener: ConnectionListener | None = None
        # Whether write() may go straight to the transport.
        self._clear = False
        # What write() tolerates while the transport is full, in bytes.
        self._write_limit = 0
        # Whether the transport is paused. Outlasts reading_paused until what had arrived before is worked off.
        self._held = False
        self._lost = False
        self._deadline = math.inf
        self._checked = 0.0
        self._bytes_seen = 0
        self._pinged = 0.0
        self.remote = ""
        """The client's address, ``ip:port``."""
        self.address = ""
        """The client's IP address."""
        self.upgrade: Mapping[str, str] = NO_HEADERS
        """Headers of the upgrade request that tell who the client is, by lower-case name; until it is accepted."""
        self.subprotocol: str | None = None
        self.compresses = False
        """Whether :meth:`write` may be given compressed frames."""
        self.reason: CloseReason | None = None
        """Why the connection ends or ended; ``None`` as long as it does not."""
        self.ping = False
        """Whether an idle client is pinged, since it has no heart-beats of its own."""
        self.reading_paused = False
        """Whether :meth:`pause_reading` holds."""
        self.writing_paused = False
        """Whether the client takes less than is written to it, so that more should wait where it can."""
        self.last_read = 0.0
        """When the last bytes came, by ``loop.time()``. While reading is paused the client counts as heard."""
        self.last_write = 0.0
        """A time not after the last write, and not before the last :meth:`check` before it."""
        self.busy = False
        """Whether something was written between the last two checks."""
        self.check_at = 0.0
        """From when on :meth:`check` has something to do, by ``loop.time()``. Thousands of idle clients are not looked
        at in each sweep for the sake of one heart-beat in ten seconds."""
        self.bytes_in = 0
        self.bytes_out = 0
        """Bytes of the frames given to :meth:`write`."""

    @property
    def max_message(self) -> int:
        """The longest WebSocket message that is taken, in bytes; at first ``limits.frame``."""
        return self._receiver.max_size

    @max_message.setter
    def max_message(self, size: int) -> None:
        self._receiver.max_size = size

    def accepted(self) -> None:
        """The client has been let in."""
        assert self._seat is not None
        self._seat.accepted()
        self.upgrade = NO_HEADERS

    @property
    def unsent(self) -> int:
        """Bytes that are written and that the operating system has not taken yet."""
        return 0 if self._lost else self._transport.get_write_buffer_size()

    @property
    def listener(self) -> ConnectionListener | None:
        """Whom the news go to, while the WebSocket is open."""
        return self._listener

    # Writing.

    def write(self, frame: bytes) -> None:
        """Sends a whole WebSocket frame, as :func:`ws_frame` makes them. Once the connection ends it is dropped.

        A client that leaves more than ``limits.send_buffer`` bytes unread is cut off as a slow consumer.
        """
        if self._clear:
            self.bytes_out += len(frame)
            self._transport_write(frame)
        elif self._listener is not None:
            if self._transport.get_write_buffer_size() > self._write_limit:
                self.abort(CloseReason.SLOW_CONSUMER)
            else:
                self.bytes_out += len(frame)
                self._transport_write(frame)

    def tap(self, tap: Callable[[bytes], None] | None) -> None:
        """Has ``tap``, which must not raise, see what is written from now on."""
        write = self._transport.write

        def write_and_show(data: bytes) -> None:
            write(data)
            if tap is not None:
                tap(data)

        self._transport_write = write if tap is None else write_and_show

    def send(self, payload: bytes) -> None:
        """Sends a message: text, or binary if it is not UTF-8."""
        self.write(ws_frame(payload, not is_utf8(payload)))

    # Back-pressure towards the client.

    def pause_reading(self) -> None:
        """Passes no payload on until :meth:`resume_reading`, and leaves what comes with the operating system.

        What had arrived is kept, in its order. The end of the stream is noticed only later, too.
        """
        if self.reason is None:
            self.reading_paused = self._held = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Goes on, in a later turn of the loop."""
        if self.reading_paused:
            self.reading_paused = False
            self.last_read = self._time()
            self._gateway.loop.call_soon(self._catch_up)

    # Ending.

    def close(self, reason: CloseReason, text: str = "") -> None:
        """Sends what is unsent and a Close frame with the reason's code and ``text`` (cut to 123 bytes), then waits
        for the client to close, at most ``limits.close_timeout``. What the client sends until then is dropped."""
        if self.reason is not None:
            return
        if reason is CloseReason.CLIENT_LOST:
            self.abort(reason)
            return
        if self._opening is not None:
            self._opening.turn_away(reason)
        else:
            # A control frame's payload has 125 bytes (RFC 6455 section 5.5), the code takes two.
            shown = (text or reason.text).encode()[:123].decode(errors="ignore")
            self._protocol.send_close(reason.code, shown)
        finished = self._flush()
        self._end(reason)
        if finished:
            self._shut()

    def abort(self, reason: CloseReason) -> None:
        """Ends the connection at once; what is unsent is thrown away."""
        self._end(reason)
        # asyncio's transport must not be aborted once it is gone.
        if not self._lost:
            self._transport.abort()

    def give_up(self, reason: CloseReason) -> None:
        """Ends without a word."""
        self._end(reason)
        self._shut()

    # Deadlines.

    def check(self, now: float) -> None:
        """Acts on deadlines that have passed; called by the gateway in the first sweep after ``check_at``."""
        if now >= self._deadline:
            self._expire()
            return
        self.check_at = self._deadline
        listener = self._listener
        if listener is None:
            return
        self.busy = self._bytes_seen != self.bytes_out
        if self.busy:
            self.last_write = self._checked
        self._checked = now
        if self.reading_paused:
            self.last_read = now
        if self.ping:
            self._check_pings(now)
        # After the pings: STOMP clients do not see them, so they take no heart-beat's place.
        written = self.bytes_out
        try:
            self.check_at = min(self.check_at, listener.on_check(now))
        except Exception:
            self._fail()
        self._bytes_seen = self.bytes_out
        if written != self.bytes_out:
            self.last_write = now

    def _check_pings(self, now: float) -> None:
        interval = self._gateway.limits.ping_interval
        idle = now - self.last_read
        if idle >= 2 * interval:
            self.close(CloseReason.PING_LOST)
        elif idle < interval:
            self.check_at = min(self.check_at, self.last_read + interval)
        else:
            self.check_at = min(self.check_at, self.last_read + 2 * interval)
            if self._pinged != self.last_read:
                self._pinged = self.last_read
                self.write(PING)

    def _expire(self) -> None:
        if self.reason is not None:
            self._deadline = math.inf
            self._transport.abort()
        elif self._opening is not None:
            self.abort(CloseReason.OPEN_TIMEOUT)
        else:
            self.abort(CloseReason.SLOW_CONSUMER)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gateway = self._gateway
        self._transport = cast(asyncio.Transport, transport)
        self._transport_write = self._transport.write
        self._transport.set_write_buffer_limits(high=min(_HIGH_WATER, gateway.limits.send_buffer))
        now = self._time()
        self.last_read = self.last_write = self._checked = now
        self._deadline = now + gateway.limits.open_timeout
        gateway.connection_made(self)
        self._opening = Opening(gateway.door, self._protocol, transport.get_extra_info("peername"))
        self._take_over(self._opening)

    def data_received(self, data: bytes) -> None:
        self.last_read = self._time()
        self.bytes_in += len(data)
        opening = self._opening
        if opening is not None:
            if self.reason is not None:
                return
            rest = opening.receive(data)
            if rest is None:
                return
            if not self._take_over(opening):
                return
            data = rest
            self._open(opening.upgrade)
        self._receiver.feed(data)
        if not self._held:
            self._process()

    def eof_received(self) -> None:
        # A half-closed WebSocket is of no use. That nothing is returned makes the transport close.
        self._end(CloseReason.CLIENT_LOST)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(CloseReason.CLIENT_LOST)
        self._lost = True
        self._receiver.clear()
        if self._seat is not None:
            self._seat.leave()
        self._gateway.connection_lost(self)

    def pause_writing(self) -> None:
        if self._listener is not None:
            limits = self._gateway.limits
            self.writing_paused = True
            self._clear = False
            # A single message may be bigger than the limit: what is piled up now is not held against the client.
            self._write_limit = self._transport.get_write_buffer_size() + limits.send_buffer
            self._deadline = self._time() + limits.send_timeout
            self.check_at = 0.0

    def resume_writing(self) -> None:
        if self._listener is not None:
            self.writing_paused = False
            self._clear = True
            self._deadline = math.inf
            try:
                self._listener.on_writable()
            except Exception:
                self._fail()

    # Opening.

    def _take_over(self, opening: Opening) -> bool:
        """Notes what is known by now, and answers; tells whether the client may go on."""
        self._seat, self.remote, self.address = opening.seat, opening.remote, opening.address
        if not self._flush():
            return True
        if self._gateway.note_refusal(opening.reason, self.remote, opening.refusal):
            self.give_up(opening.reason)
        else:
            self.abort(opening.reason)
        return False

    def _open(self, upgrade: Mapping[str, str]) -> None:
        self._opening = None
        self._deadline = math.inf
        self.check_at = 0.0
        self.subprotocol = self._protocol.subprotocol
        self.compresses = self._protocol.compresses
        self.upgrade = upgrade
        try:
            listener = self._gateway.accept(self)
            if self.reason is None:
                self._listener = listener
                self._clear = True
                listener.on_open(self)
        except Exception:
            self._fail()

    def _process(self) -> None:
        receiver = self._receiver
        while not self.reading_paused and (data := receiver.next()) is not None:
            listener = self._listener
            if listener is not None:
                try:
                    listener.on_data(data)
                except Exception:
                    self._fail()
        if receiver.touched:
            receiver.touched = False
            if self._flush():
                self._end(receiver.violation())
                self._shut()

    def _catch_up(self) -> None:
        if self._held and not self.reading_paused:
            self._process()
            if not self.reading_paused:
                self._held = False
                self._transport.resume_reading()

    # Towards the end.

    def _flush(self) -> bool:
        """Sends what the protocol has to send, in one write; tells whether it was the last."""
        out = self._protocol.data_to_send() if self._opening is None else self._opening.output()
        finished = bool(out) and out[-1] == SEND_EOF
        if finished:
            out.pop()
        # Once it ends, only pongs can come here, and those are of no use any more.
        if out and self.reason is None:
            data = b"".join(out)
            if self._listener is None:
                self._transport_write(data)
            else:
                self.write(data)
        return finished

    def _shut(self) -> None:
        """Half-closes the socket. Closing it with input unread would reset it and take our last words along."""
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _end(self, reason: CloseReason) -> None:
        """Lets go of the listener; the socket has ``limits.close_timeout`` left. Does nothing the second time."""
        if self.reason is not None:
            return
        self.reason = reason
        self._clear = False
        self._deadline = self._time() + self._gateway.limits.close_timeout
        self.check_at = 0.0
        listener, self._listener = self._listener, None
        if listener is not None:
            self._gateway.loop.call_soon(part, listener, reason)
        if self._held:
            self.reading_paused = False
            self._gateway.loop.call_soon(self._catch_up)

    def _fail(self) -> None:
        _log.exception("client_failed", remote=self.remote)
        self.close(CloseReason.INTERNAL_ERROR)
