"""The server's side of one STOMP session as a state machine: bytes in, events out; answers are bytes to send.

What needs no broker is decided here: commands, versions, acknowledgement, transactions. Destinations are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import takewhile
from operator import is_not

from . import errors, heartbeat
from .errors import StompError
from .events import (
    AckMode,
    Commit,
    Connect,
    Delivery,
    Disconnect,
    Done,
    Event,
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
    "TRANSITIONS",
    "AckMode",
    "Commit",
    "Connect",
    "Delivery",
    "Disconnect",
    "Done",
    "Event",
    "Refused",
    "Send",
    "ServerSession",
    "SessionSettings",
    "Settle",
    "State",
    "Subscribe",
    "Subscription",
    "Unsubscribe",
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

_ACK_MODES = {mode.value: mode for mode in AckMode}
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
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
    max_transaction_bytes: int = 16 * 1024 * 1024


class ServerSession:
    """One client's session. ``version`` and ``heartbeat`` hold once the client is accepted.

    ``subscriptions`` are by tag; ``unacked`` by the value that the client will acknowledge them with, in the order in
    which they were sent.
    """

    __slots__ = (
        "_connect",
        "_parser",
        "_released",
        "_row",
        "_settings",
        "_transactions",
        "heartbeat",
        "session_id",
        "state",
        "subscriptions",
        "unacked",
        "version",
    )

    def __init__(self, settings: SessionSettings, session_id: str) -> None:
        self.session_id = session_id
        self.state = State.AWAITING_CONNECT
        self.version = Version.V12
        self.heartbeat = HeartBeat()
        self.subscriptions: dict[str, Subscription] = {}
        self.unacked: dict[str, Delivery] = {}
        # By tag of an ended subscription: the last message that went back with it.
        self._released: dict[str, str] = {}
        self._settings = settings
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
            if frame.command not in self._row:
                raise self._out_of_place(frame.command)
            return _HANDLERS[frame.command](self, frame)
        except StompError as error:
            self._close_after(error)
            receipt = None if frame is None or frame.command in _CONNECTING else frame.headers.get("receipt")
            return Refused(error.with_traceback(None), receipt)

    # Answers

    def accept(self, server: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
        """CONNECTED, with ``server`` as the server's name and ``extra`` headers; the :class:`Connect` takes effect.

        ``extra`` is written as it is and so may not contain line ends.
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
            ("server", server),
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

    def track(self, ack_id: str, subscription: Subscription, token: object) -> Delivery:
        """Remembers a message that was sent until the client acknowledges it with ``ack_id``."""
        delivery = self.unacked[ack_id] = Delivery(subscription, ack_id, token)
        return delivery

    def forget(self, tag: str) -> list[Delivery]:
        """Drops a subscription that the server ended or never began; returns its unacknowledged deliveries."""
        subscription = self.subscriptions.pop(tag, None)
        released = [delivery for delivery in self.unacked.values() if delivery.subscription is subscription]
        for delivery in released:
            del self.unacked[delivery.ack_id]
        if released:
            self._released.pop(tag, None)
            self._released[tag] = released[-1].ack_id
            if len(self._released) > self._settings.max_subscriptions:
                del self._released[next(iter(self._released))]
        return released

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
        self._transactions.add(transaction, send)
        return Done(None)

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
        return self._settle(frame, False, _boolean(frame.headers, "requeue", True))

    def _on_begin(self, frame: Frame) -> Event:
        self._transactions.begin(_transaction_of(frame))
        return Done(frame.headers.get("receipt"))

    def _on_commit(self, frame: Frame) -> Event:
        actions: list[Send | Settle] = []
        for action in self._transactions.end(_transaction_of(frame)):
            if isinstance(action, Send):
                actions.append(action)
            elif self.unacked.get(action.delivery.ack_id) is action.delivery:
                actions.append(Settle(self._take(action.delivery), action.ack, action.requeue, None))
        return Commit(actions, frame.headers.get("receipt"))

    def _on_abort(self, frame: Frame) -> Event:
        self._transactions.end(_transaction_of(frame))
        return Done(frame.headers.get("receipt"))

    def _on_disconnect(self, frame: Frame) -> Event:
        self._become(self._row["DISCONNECT"])
        self._transactions.clear()
        return Disconnect(frame.headers.get("receipt"))

    # Acknowledgement

    def _settle(self, frame: Frame, ack: bool, requeue: bool) -> Event:
        headers = frame.headers
        name = "id" if self.version is Version.V12 else "message-id"
        ack_id = headers.get(name)
        if ack_id is None:
            raise errors.missing_ack_header(frame.command, name)
        delivery = self.unacked.get(ack_id)
        if delivery is None:
            raise self._not_waiting(frame.command, name, ack_id)
        transaction = headers.get("transaction")
        if transaction is None:
            return Settle(self._take(delivery), ack, requeue, headers.get("receipt"))
        self._transactions.add(transaction, Acknowledgement(delivery, ack, requeue))
        return Done(headers.get("receipt"))

    def _take(self, delivery: Delivery) -> list[Delivery]:
        """Takes out what the acknowledgement of ``delivery`` stands for. In mode ``client`` that is all that was sent
        before it as well, whatever subscription it was sent to: RabbitMQ's plugin has one channel for them all."""
        unacked = self.unacked
        taken: list[Delivery] = []
        if delivery.subscription.ack is AckMode.CLIENT:
            taken.extend(takewhile(partial(is_not, delivery), unacked.values()))
        taken.append(delivery)
        for each in taken:
            del unacked[each.ack_id]
        return taken

    def _not_waiting(self, command: str, header: str, ack_id: str) -> StompError:
        # An identifier is a tag, which may contain the separator, a session and a number.
        parts = ack_id.rsplit("@@", 2)
        if len(parts) < 3:
            return errors.invalid_ack_header(command, header)
        tag, _, number = parts
        if not (number.isdigit() and number.isascii()):
            return errors.processing_error(f"'{header}' must end with a number.")
        if tag not in self.subscriptions or self._was_released(tag, number):
            return errors.subscription_not_found(ack_id)
        return errors.unknown_delivery_tag(number)

    def _was_released(self, tag: str, number: str) -> bool:
        """Whether a message went back with an earlier subscription of the same id: its late ACK harms nobody."""
        last = self._released.get(tag)
        return last is not None and _number_before_or_at(number, last.rpartition("@")[2])


def _number_before_or_at(number: str, last: str) -> bool:
    # Compared as digits: int() refuses thousands of them with an error of its own.
    return (len(number), number) <= (len(last), last)


def _transaction_of(frame: Frame) -> str:
    transaction = frame.headers.get("transaction")
    if transaction is None:
        raise errors.missing_transaction(frame.command)
    return transaction


def _boolean(headers: Mapping[str, str], name: str, default: bool) -> bool:
    text = headers.get(name)
    if text is None:
        return default
    value = _BOOLEANS.get(text)
    if value is None:
        raise errors.processing_error(f"'{name}' must be true or false.")
    return value


def _require_id_if_durable(headers: Mapping[str, str]) -> None:
    durable = _boolean(headers, "durable", False) or _boolean(headers, "persistent", False)
    if durable and "id" not in headers:
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
