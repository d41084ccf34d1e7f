"""The AMQP 0-9-1 methods of the control plane: requests as bytes with the reply that belongs to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct

from ..base import Failure, HeaderValue
from .fields import encode_table, read_short_string, short_string

_U16 = Struct(">H")
_COUNTS = Struct(">II")
_QOS = Struct(">IHB")

CHANNEL_OPEN = b"\x00\x14\x00\x0a"
CHANNEL_OPEN_OK = b"\x00\x14\x00\x0b"
CHANNEL_CLOSE = b"\x00\x14\x00\x28"
CHANNEL_CLOSE_OK = b"\x00\x14\x00\x29"
EXCHANGE_DECLARE = b"\x00\x28\x00\x0a"
EXCHANGE_DECLARE_OK = b"\x00\x28\x00\x0b"
QUEUE_DECLARE = b"\x00\x32\x00\x0a"
QUEUE_DECLARE_OK = b"\x00\x32\x00\x0b"
QUEUE_BIND = b"\x00\x32\x00\x14"
QUEUE_BIND_OK = b"\x00\x32\x00\x15"
QUEUE_UNBIND = b"\x00\x32\x00\x32"
QUEUE_UNBIND_OK = b"\x00\x32\x00\x33"
QUEUE_DELETE = b"\x00\x32\x00\x28"
QUEUE_DELETE_OK = b"\x00\x32\x00\x29"
BASIC_QOS = b"\x00\x3c\x00\x0a"
BASIC_QOS_OK = b"\x00\x3c\x00\x0b"
BASIC_CONSUME = b"\x00\x3c\x00\x14"
BASIC_CONSUME_OK = b"\x00\x3c\x00\x15"
BASIC_CANCEL = b"\x00\x3c\x00\x1e"
BASIC_CANCEL_OK = b"\x00\x3c\x00\x1f"
BASIC_RETURN = b"\x00\x3c\x00\x32"
BASIC_DELIVER = b"\x00\x3c\x00\x3c"
BASIC_ACK = b"\x00\x3c\x00\x50"
BASIC_NACK = b"\x00\x3c\x00\x78"
CONFIRM_SELECT = b"\x00\x55\x00\x0a"
CONFIRM_SELECT_OK = b"\x00\x55\x00\x0b"
CONNECTION_START = b"\x00\x0a\x00\x0a"
CONNECTION_CLOSE = b"\x00\x0a\x00\x32"
CONNECTION_BLOCKED = b"\x00\x0a\x00\x3c"
CONNECTION_UNBLOCKED = b"\x00\x0a\x00\x3d"

REPLY_NAMES = {
    311: "content_too_large",
    312: "no_route",
    313: "no_consumers",
    320: "connection_forced",
    402: "invalid_path",
    403: "access_refused",
    404: "not_found",
    405: "resource_locked",
    406: "precondition_failed",
    501: "frame_error",
    502: "syntax_error",
    503: "command_invalid",
    504: "channel_error",
    505: "unexpected_frame",
    506: "resource_error",
    530: "not_allowed",
    540: "not_implemented",
    541: "internal_error",
}
"""AMQP 0-9-1 reply codes by the names that RabbitMQ uses."""


def failure(code: int, text: str) -> Failure:
    """What a reply code and its text mean to a session."""
    return Failure(REPLY_NAMES.get(code, f"error_{code}"), text)


@dataclass(frozen=True, slots=True)
class Request:
    """A method's payload, and the first four bytes of the method that answers it."""

    payload: bytes
    reply: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Channel.Close or Connection.Close: why, and the method (its first four bytes) that caused it."""

    code: int
    text: str
    cause: bytes

    @property
    def failure(self) -> Failure:
        return failure(self.code, self.text)


def channel_open() -> Request:
    return Request(CHANNEL_OPEN + b"\x00", CHANNEL_OPEN_OK)


def channel_close() -> Request:
    return Request(CHANNEL_CLOSE + b"\x00\xc8\x00\x00\x00\x00\x00", CHANNEL_CLOSE_OK)


def confirm_select() -> Request:
    return Request(CONFIRM_SELECT + b"\x00", CONFIRM_SELECT_OK)


def exchange_declare(name: str, kind: str = "", *, passive: bool = False, durable: bool = False) -> Request:
    bits = passive | durable << 1
    payload = EXCHANGE_DECLARE + b"\x00\x00" + short_string(name) + short_string(kind) + bytes((bits,)) + bytes(4)
    return Request(payload, EXCHANGE_DECLARE_OK)


def queue_declare(
    name: str,
    *,
    passive: bool = False,
    durable: bool = False,
    exclusive: bool = False,
    auto_delete: bool = False,
    arguments: Mapping[str, HeaderValue] | None = None,
) -> Request:
    bits = passive | durable << 1 | exclusive << 2 | auto_delete << 3
    payload = QUEUE_DECLARE + b"\x00\x00" + short_string(name) + bytes((bits,)) + encode_table(arguments or {})
    return Request(payload, QUEUE_DECLARE_OK)


def queue_bind(queue: str, exchange: str, key: str, arguments: Mapping[str, HeaderValue] | None = None) -> Request:
    names = short_string(queue) + short_string(exchange) + short_string(key)
    return Request(QUEUE_BIND + b"\x00\x00" + names + b"\x00" + encode_table(arguments or {}), QUEUE_BIND_OK)


def queue_unbind(queue: str, exchange: str, key: str) -> Request:
    names = short_string(queue) + short_string(exchange) + short_string(key)
    return Request(QUEUE_UNBIND + b"\x00\x00" + names + bytes(4), QUEUE_UNBIND_OK)


def queue_delete(name: str) -> Request:
    return Request(QUEUE_DELETE + b"\x00\x00" + short_string(name) + b"\x00", QUEUE_DELETE_OK)


def basic_qos(prefetch: int) -> Request:
    return Request(BASIC_QOS + _QOS.pack(0, min(prefetch, 65535), 0), BASIC_QOS_OK)


def basic_consume(queue: str, tag: str, arguments: Mapping[str, HeaderValue] | None = None) -> Request:
    names = short_string(queue) + short_string(tag)
    return Request(BASIC_CONSUME + b"\x00\x00" + names + b"\x00" + encode_table(arguments or {}), BASIC_CONSUME_OK)


def basic_cancel(tag: str) -> bytes:
    """The payload of a Basic.Cancel that has no answer."""
    return BASIC_CANCEL + short_string(tag) + b"\x01"


def read_close(payload: bytes) -> Close:
    """Channel.Close and Connection.Close, which are built alike."""
    (code,) = _U16.unpack_from(payload, 4)
    text, pos = read_short_string(payload, 6)
    return Close(code, text, payload[pos : pos + 4])


def read_queue_name(payload: bytes) -> str:
    """The queue's name out of Queue.DeclareOk."""
    return read_short_string(payload, 4)[0]


def read_queue_counts(payload: bytes) -> tuple[int, int]:
    """Messages and consumers out of Queue.DeclareOk."""
    messages, consumers = _COUNTS.unpack_from(payload, 5 + payload[4])
    return messages, consumers
