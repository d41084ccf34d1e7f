"""STOMP headers to AMQP properties and back, as RabbitMQ's STOMP plugin maps them.

A SEND becomes a :class:`~stompbridge.brokers.base.Message`. The way back comes in two parts, so that receivers
share what they can: the head holds what belongs to the subscription, the rest is the same for all of them.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from stompbridge.brokers.base import HeaderValue, Message
from stompbridge.routing.destinations import check_reply_to
from stompbridge.routing.values import SHORT_STRING, boolean, integer, short_string
from stompbridge.stomp import errors
from stompbridge.stomp.frames import escape

OWN_PREFIX = "x-stompbridge-"
"""AMQP headers between bridges; no client sets or sees them."""

_LONGEST_EXPIRATION = 2**32 - 1

# What these say is for the server and stays there.
_CONSUMED = frozenset({"destination", "receipt", "transaction", "content-length", "idempotency-key"})

# An AMQP broker takes these as arrays of routing keys, and closes the channel over anything else.
_ROUTING = frozenset({"CC", "BCC"})

_TEXT_PROPERTIES = {
    "content-type": "content_type",
    "content-encoding": "content_encoding",
    "correlation-id": "correlation_id",
    "reply-to": "reply_to",
    "amqp-message-id": "message_id",
    "type": "type",
    "user-id": "user_id",
    "app-id": "app_id",
}
_SPECIAL = frozenset({"persistent", "priority", "timestamp", "expiration", "message-id"}) | _CONSUMED | _ROUTING

# Of a MESSAGE: what the server says itself is not to be said again by an AMQP header of the same name.
_SERVER = frozenset({"destination", "message-id", "subscription", "redelivered", "ack", "content-length"})

_COLON = escape(":")

_REPLY_PREFIXES = ("/exchange", "/topic", "/queue", "/amq/queue", "/reply-queue/", "/app/", "/user/")


def message_from_send(headers: dict[str, str], body: bytes, exchange: str, key: str) -> Message:
    """The message that a SEND with these headers publishes to ``exchange`` with routing key ``key``.

    Headers without a property of their own travel in the AMQP header table. Raises
    :class:`~stompbridge.stomp.errors.StompError` for values that AMQP cannot carry.
    """
    message = Message(exchange, short_string("the routing key", key), body)
    others = message.headers
    for name, value in headers.items():
        attribute = _TEXT_PROPERTIES.get(name)
        if attribute is not None:
            if len(value) * 4 > SHORT_STRING:
                short_string(f"header '{name}'", value)
            if name == "reply-to":
                check_reply_to(value)
            setattr(message, attribute, value)
        elif name in _SPECIAL:
            if name not in _CONSUMED:
                _set_special(message, name, value)
        elif not name.startswith(OWN_PREFIX):
            if len(name) * 4 > SHORT_STRING:
                short_string("a header's name", name)
            others[name] = value
    return message


class SharedPart(NamedTuple):
    """What the MESSAGE frames of one message have in common, in the order of RabbitMQ's plugin."""

    destination: str
    """The header's line."""
    redelivered: str
    """The header's line."""
    rest: bytes
    """The other headers, the body and the frame's end."""
    binary: bool
    """Whether it must go out as a binary WebSocket message, since the body is not UTF-8."""


def message_head(subscription: str | None, message_id: str, with_ack: bool, shared: SharedPart) -> bytes:
    """The lines of a MESSAGE up to the last that depends on the subscription; ``shared.rest`` follows.
    ``subscription`` is its id, if it has one."""
    message_id = escape(message_id)
    head = "MESSAGE\n" if subscription is None else f"MESSAGE\nsubscription:{escape(subscription)}\n"
    if with_ack:
        ack = f"ack:{message_id}\n"
        return f"{head}{shared.destination}message-id:{message_id}\n{shared.redelivered}{ack}".encode()
    return f"{head}{shared.destination}message-id:{message_id}\n{shared.redelivered}".encode()


def shared_part(message: Message, destination: str) -> SharedPart:
    """Of a MESSAGE that shows this destination."""
    lines: dict[str, str] = {}
    for name, value in message.headers.items():
        if name in _SERVER or name.startswith(OWN_PREFIX):
            continue
        text = value if type(value) is str else _text(value)
        if text is not None:
            lines[name] = text
    _put_properties(lines, message)
    body = message.body
    if body:
        lines["content-length"] = str(len(body))
    rest = b"%b\n\n%b\0\n" % (_join(lines).encode(), body) if lines else b"\n%b\0\n" % body
    redelivered = "redelivered:true\n" if message.redelivered else "redelivered:false\n"
    return SharedPart(f"destination:{escape(destination)}\n", redelivered, rest, not _is_utf8(body))


def _set_special(message: Message, name: str, value: str) -> None:
    what = f"header '{name}'"
    match name:
        case "persistent":
            message.delivery_mode = 2 if boolean(what, value) else None
        case "priority":
            message.priority = integer(what, value, 0, 255)
        case "timestamp":
            message.timestamp = integer(what, value, 0)
        case "expiration":
            message.expiration = str(integer(what, value, 0, _LONGEST_EXPIRATION))
        case "message-id":
            raise errors.message_id_not_allowed()
        case _:
            raise errors.processing_error(f"{what} cannot be sent")


def _put_properties(lines: dict[str, str], message: Message) -> None:
    if message.app_id is not None:
        lines["app-id"] = message.app_id
    if message.user_id is not None:
        lines["user-id"] = message.user_id
    if message.type is not None:
        lines["type"] = message.type
    if message.timestamp is not None:
        lines["timestamp"] = str(message.timestamp)
    if message.message_id is not None:
        lines["amqp-message-id"] = message.message_id
    if message.expiration is not None:
        lines["expiration"] = message.expiration
    reply_to = lines.get("reply-to") if message.reply_to is None else message.reply_to
    if reply_to is not None:
        lines["reply-to"] = reply_to if reply_to.startswith(_REPLY_PREFIXES) else "/reply-queue/" + reply_to
    if message.correlation_id is not None:
        lines["correlation-id"] = message.correlation_id
    if message.priority is not None:
        lines["priority"] = str(message.priority)
    if message.delivery_mode == 2:
        lines["persistent"] = "true"
    if message.content_encoding is not None:
        lines["content-encoding"] = message.content_encoding
    if message.content_type is not None:
        lines["content-type"] = message.content_type


def _join(lines: dict[str, str]) -> str:
    """The header lines. Counting the separators proves that hardly any message needs escapes other than for the colon,
    which stands in each message id of ours."""
    joined = "\n".join([f"{name}:{value}" for name, value in lines.items()])
    if joined.count("\n") == len(lines) - 1 and "\\" not in joined and "\r" not in joined and "\0" not in joined:
        if joined.count(":") == len(lines):
            return joined
        return "\n".join([f"{name.replace(':', _COLON)}:{value.replace(':', _COLON)}" for name, value in lines.items()])
    return "\n".join([f"{escape(name)}:{escape(value)}" for name, value in lines.items()])


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(value: HeaderValue) -> str | None:
    """An AMQP table value as header text; ``None`` where there is nothing to say or no way to say it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict | list):
        try:
            return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            return None
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return str(_plain(value))


def _plain(value: object) -> str | int:
    """A value that JSON has no form for: seconds since 1970, and text for the rest."""
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="replace")
    return str(value)
