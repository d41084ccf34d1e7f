"""The server's side of one STOMP session as a state machine: bytes in, events out; answers are bytes to send.

What needs no broker is decided here: commands, versions, acknowledgement, transactions. Destinations are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from . import errors, heartbeat
from .acknowledgement import Unacknowledged
from .errors import StompError
from .events import (
    AckMode,
    Commit,
    Connect,
    Delivery,
    Disconnect,
    Done,
    Event,
    Keep,
    Refused,
    Send,
    Settle,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from .frames import Frame, Version, encode, escape
from .heartbeat import HeartBeat
from .parser import FrameParser
from .transactions import Acknowledgement, Transactions

__all__ = [
    "COMMANDS",
    "INVALID",
    "TRANSITIONS",
    "AckMode",
    "Commit",
    "Connect",
    "Delivery",
    "Disconnect",
    "Done",
    "Event",
    "Keep",
    "Refused",
    "Send",
    "ServerSession",
    "SessionSettings",
    "Settle",
    "State",
    "Subscribe",
    "Subscription",
    "Unsubscribe",
    "frame_counts",
]


class State(Enum):
    AWAITING_CONNECT = "awaiting connect"
    CONNECTED = "connected"
    DISCONNECTING = "disconnecting"
    CLOSED = "closed"


TRANSITIONS: Mapping[State, Mapping[str, State]] = {
    # "Connecting": a client starts with CONNECT or STOMP and sends nothing else before.
    State.AWAITING_CONNECT: {
        "CONNECT": State.CONNECTED,
        "STOMP": State.CONNECTED,
    },
    # "Client Frames": all the others.
    State.CONNECTED: {
        "SEND": State.CONNECTED,
        "SUBSCRIBE": State.CONNECTED,
        "UNSUBSCRIBE": State.CONNECTED,
        "ACK": State.CONNECTED,
        "NACK": State.CONNECTED,
        "BEGIN": State.CONNECTED,
        "COMMIT": State.CONNECTED,
        "ABORT": State.CONNECTED,
        "DISCONNECT": State.DISCONNECTING,
    },
    # "DISCONNECT": clients must not send any more frames after it.
    State.DISCONNECTING: {},
    # "ERROR": the server closes the connection after it.
    State.CLOSED: {},
}
"""What a client may send in which state, and the state that follows (STOMP 1.2, sections as named).

CONNECT takes effect when the server accepts it, DISCONNECT at once. An error that ends the session leads from every
state to CLOSED; any other leaves the state as it is.
"""
COMMANDS = tuple(dict.fromkeys(command for row in TRANSITIONS.values() for command in row))
"""All that a client may send."""
INVALID = "invalid"
"""What frames are counted under that may not be sent, or not now, and bytes that are no frame."""

_ACK_MODES = {mode.value: mode for mode in AckMode}
_TRUE = ("true", "True")
_FALSE = ("false", "False")
_VERSIONS = (Version.V12, Version.V11, Version.V10)
_SUPPORTED = "1.0,1.1,1.2"
_CONNECTING = ("CONNECT", "STOMP")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Heart-beats in milliseconds, sizes in bytes. ``max_transaction_frames`` is for each transaction,
    ``max_transaction_bytes`` for all that are open together."""

    send_floor_ms: int
    receive_floor_ms: int
    close_on_error: bool
    max_frame: int
    max_frame_before_connect: int
    max_headers: int
    max_header_bytes: int
    max_subscriptions: int
    max_transactions: int
    max_transaction_frames: int
    max_transaction_bytes: int


class ServerSession:
    """One client's session. ``version`` and ``heartbeat`` hold once the client is accepted.

    ``subscriptions`` are by tag; ``unacked`` by the value that the client will acknowledge them with, in the order in
    which they were sent. ``received``, from :func:`frame_counts`, counts frames for any number of sessions together.
    """

    __slots__ = (
        "_connect",
        "_parser",
        "_received",
        "_row",
        "_settings",
        "_transactions",
        "_unacknowledged",
        "heartbeat",
        "on_frame",
        "session_id",
        "state",
        "subscriptions",
        "unacked",
        "version",
    )

    def __init__(self, settings: SessionSettings, session_id: str, received: dict[str, int]) -> None:
        self.session_id = session_id
        self.state = State.AWAITING_CONNECT
        self.version = Version.V12
        self.heartbeat = HeartBeat()
        self.subscriptions: dict[str, Subscription] = {}
        self._unacknowledged = Unacknowledged(settings.max_subscriptions)
        self.unacked = self._unacknowledged.waiting
        self._settings = settings
        self._received = received
        self.on_frame: Callable[[Frame], None] | None = None
        """Shown each frame before it takes effect, also one that is out of place; must not raise."""
        self._parser = FrameParser(settings.max_frame_before_connect, settings.max_headers, settings.max_header_bytes)
        self._row = TRANSITIONS[self.state]
        self._connect: Connect | None = None
        self._transactions = Transactions(
            settings.max_transactions, settings.max_transaction_frames, settings.max_transaction_bytes
        )

    @property
    def closing(self) -> bool:
        """Whether an error ended the session: its ERROR is the last frame."""
        return self.state is State.CLOSED

    @property
    def buffered(self) -> int:
        """The number of bytes that were fed and gave no event yet."""
        return self._parser.buffered

    def feed(self, data: bytes) -> None:
        """Adds what was received. Once nothing more is expected, it is dropped."""
        if self._row:
            self._parser.feed(data)

    def next_event(self) -> Event | None:
        """The next event, or ``None`` until more is fed or, after a :class:`Connect`, until it is answered.

        Never raises: what the client did wrong comes as :class:`Refused`, and nothing comes after one that is fatal.
        """
        if not self._row or self._connect is not None:
            return None
        frame = None
        try:
            frame = self._parser.next_frame()
            if frame is None:
                return None
            if self.on_frame is not None:
                self.on_frame(frame)
            if frame.command not in self._row:
                raise self._out_of_place(frame.command)
            self._received[frame.command] += 1
            return _HANDLERS[frame.command](self, frame)
        except StompError as error:
            if frame is None or frame.command not in self._row:
                self._received[INVALID] += 1
            self._close_after(error)
            receipt = None if frame is None or frame.command in _CONNECTING else frame.headers.get("receipt")
            return Refused(error.with_traceback(None), receipt)

    # Answers

    def accept(self, server: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
        """CONNECTED; the :class:`Connect` takes effect. ``server`` is the server's name, which it need not have.

        ``extra`` headers are written as they are and so may not contain line ends.
        """
        connect = self._connect
        if connect is None:
            raise RuntimeError("there is no CONNECT to accept")
        self._connect = None
        self._become(self._row["CONNECT"])
        self.version = self._parser.version = connect.version
        self.heartbeat = connect.heartbeat
        self._parser.max_frame = self._settings.max_frame
        headers = [
            *([("server", server)] if server else ()),
            ("session", self.session_id),
            ("heart-beat", connect.heartbeat.header),
            ("version", connect.version.value),
            *extra,
        ]
        return encode("CONNECTED", headers, escaped=False)

    def refuse(self, error: StompError) -> bytes:
        """ERROR in answer to a :class:`Connect`. The client may try again, unless the error is fatal."""
        return self.error(error)

    def receipt(self, receipt_id: str) -> bytes:
        """RECEIPT."""
        return f"RECEIPT\nreceipt-id:{escape(receipt_id)}\n\n\0\n".encode()

    def error(self, error: StompError, receipt: str | None = None) -> bytes:
        """ERROR; ``closing`` tells afterwards whether the connection ends with it.

        Unlike RabbitMQ's it names the frame that it answers, where that asked for a ``receipt``. A :class:`Connect`
        that waits for its answer has got it with this.
        """
        self._connect = None
        self._close_after(error)
        body = error.body.encode()
        headers = [("message", error.message), ("content-type", "text/plain"), ("version", _SUPPORTED), *error.headers]
        if receipt is not None:
            headers.append(("receipt-id", receipt))
        headers.append(("content-length", str(len(body))))
        return encode("ERROR", headers, body)

    def keep(self, event: Keep) -> None:
        """Keeps the SEND of a :class:`Keep` for COMMIT. Raises :class:`~stompbridge.stomp.errors.StompError` where
        there is no such transaction, or it exceeds a bound."""
        self._transactions.add(event.transaction, event.send)

    def track(self, ack_id: str, subscription: Subscription, token: object) -> Delivery:
        """Remembers a message that was sent until the client acknowledges it with ``ack_id``."""
        delivery = self.unacked[ack_id] = Delivery(subscription, ack_id, token)
        return delivery

    def forget(self, tag: str) -> list[Delivery]:
        """Drops a subscription that the server ended or never began; returns its unacknowledged deliveries."""
        subscription = self.subscriptions.pop(tag, None)
        return [] if subscription is None else self._unacknowledged.release(subscription)

    def end(self) -> None:
        """The connection is gone: lets go of what came and of what was sent, and takes no more."""
        self._become(State.CLOSED)
        self._transactions.clear()
        self._parser.clear()
        self.unacked.clear()

    # State

    def _become(self, state: State) -> None:
        self.state = state
        self._row = TRANSITIONS[state]

    def _close_after(self, error: StompError) -> None:
        if error.fatal or self._settings.close_on_error:
            self._become(State.CLOSED)

    def _out_of_place(self, command: str) -> StompError:
        if self.state is State.AWAITING_CONNECT:
            return errors.illegal_command()
        if command in _CONNECTING:
            return errors.already_connected()
        return errors.bad_command(command)

    # One method a command

    def _on_connect(self, frame: Frame) -> Event:
        accepted = frame.headers.get("accept-version", Version.V10).split(",")
        version = next((version for version in _VERSIONS if version in accepted), None)
        if version is None:
            raise errors.version_mismatch()
        settings = self._settings
        asked = heartbeat.parse(frame.headers.get("heart-beat"))
        agreed = heartbeat.negotiate(asked, settings.send_floor_ms, settings.receive_floor_ms)
        self._connect = Connect(frame.headers, version, agreed)
        return self._connect

    def _on_send(self, frame: Frame) -> Event:
        headers = frame.headers
        destination = headers.get("destination")
        if destination is None:
            raise errors.missing_destination("SEND")
        send = Send(destination, headers, frame.body, headers.get("receipt"))
        transaction = headers.get("transaction")
        if transaction is None:
            return send
        return Keep(send, transaction, send.receipt)

    def _on_subscribe(self, frame: Frame) -> Event:
        headers = frame.headers
        destination = headers.get("destination")
        if destination is None:
            raise errors.missing_destination("SUBSCRIBE")
        _require_id_if_durable(headers)
        id = headers.get("id")
        if id is not None and id.startswith("/temp-queue/"):
            raise errors.processing_error("'id' may not start with /temp-queue/.")
        ack = _ACK_MODES.get(headers.get("ack", "auto"))
        if ack is None:
            raise errors.processing_error("'ack' must be auto, client or client-individual.")
        tag = f"Q_{destination}" if id is None else f"T_{id}"
        if tag in self.subscriptions:
            raise errors.duplicate_subscription(tag)
        if len(self.subscriptions) >= self._settings.max_subscriptions:
            raise errors.limit("subscriptions", self._settings.max_subscriptions, fatal=False)
        subscription = self.subscriptions[tag] = Subscription(id, destination, ack, tag, headers)
        return Subscribe(subscription, headers.get("receipt"))

    def _on_unsubscribe(self, frame: Frame) -> Event:
        headers = frame.headers
        _require_id_if_durable(headers)
        id = headers.get("id")
        destination = headers.get("destination")
        if id is None and destination is None:
            raise errors.missing_destination_or_id()
        if id is not None and id.startswith("/temp-queue/"):
            raise errors.invalid_unsubscribe_id()
        subscription = self.subscriptions.get(f"Q_{destination}" if id is None else f"T_{id}")
        if subscription is None:
            raise errors.no_subscription(id=id, destination=destination)
        return Unsubscribe(subscription, headers, self.forget(subscription.tag), headers.get("receipt"))

    def _on_ack(self, frame: Frame) -> Event:
        return self._settle(frame, True, False)

    def _on_nack(self, frame: Frame) -> Event:
        return self._settle(frame, False, frame.headers.get("requeue") not in _FALSE)

    def _on_begin(self, frame: Frame) -> Event:
        self._transactions.begin(_transaction_of(frame))
        return Done(frame.headers.get("receipt"))

    def _on_commit(self, frame: Frame) -> Event:
        actions: list[Send | Settle] = []
        for action in self._transactions.end(_transaction_of(frame)):
            if isinstance(action, Send):
                actions.append(action)
            elif self.unacked.get(action.delivery.ack_id) is action.delivery:
                actions.append(Settle(self._unacknowledged.take(action.delivery), action.ack, action.requeue, None))
        return Commit(actions, frame.headers.get("receipt"))

    def _on_abort(self, frame: Frame) -> Event:
        self._transactions.end(_transaction_of(frame))
        return Done(frame.headers.get("receipt"))

    def _on_disconnect(self, frame: Frame) -> Event:
        self._become(self._row["DISCONNECT"])
        self._transactions.clear()
        return Disconnect(frame.headers.get("receipt"))

    def _settle(self, frame: Frame, ack: bool, requeue: bool) -> Event:
        headers = frame.headers
        transaction = headers.get("transaction")
        try:
            delivery = self._unacknowledged.find(frame, self.version, self.subscriptions)
        except StompError as error:
            # As in RabbitMQ's plugin, where a channel that breaks comes after all that the plugin itself looks at.
            if error.fatal and transaction is not None:
                self._transactions.check(transaction)
            raise
        if transaction is None:
            return Settle(self._unacknowledged.take(delivery), ack, requeue, headers.get("receipt"))
        self._transactions.add(transaction, Acknowledgement(delivery, ack, requeue))
        return Done(headers.get("receipt"))


def frame_counts() -> dict[str, int]:
    """None of any command yet."""
    return dict.fromkeys((*COMMANDS, INVALID), 0)


def _transaction_of(frame: Frame) -> str:
    transaction = frame.headers.get("transaction")
    if transaction is None:
        raise errors.missing_transaction(frame.command)
    return transaction


def _require_id_if_durable(headers: Mapping[str, str]) -> None:
    # What is neither true nor false is an error of the destination, where the header has a meaning at all.
    if "id" not in headers and (headers.get("durable") in _TRUE or headers.get("persistent") in _TRUE):
        raise errors.durable_needs_id()


_HANDLERS: Mapping[str, Callable[[ServerSession, Frame], Event]] = {
    "CONNECT": ServerSession._on_connect,
    "STOMP": ServerSession._on_connect,
    "SEND": ServerSession._on_send,
    "SUBSCRIBE": ServerSession._on_subscribe,
    "UNSUBSCRIBE": ServerSession._on_unsubscribe,
    "ACK": ServerSession._on_ack,
    "NACK": ServerSession._on_nack,
    "BEGIN": ServerSession._on_begin,
    "COMMIT": ServerSession._on_commit,
    "ABORT": ServerSession._on_abort,
    "DISCONNECT": ServerSession._on_disconnect,
}
