"""What a destination string means, and which queue a subscription to it needs.

The forms, the defaults and the names of queues are those of RabbitMQ's STOMP plugin.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Literal

from stompbridge.brokers.base import HeaderValue, QueueSpec
from stompbridge.routing import users
from stompbridge.routing.values import boolean, integer, short_string
from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError

Command = Literal["SEND", "SUBSCRIBE"]

TOPIC_EXCHANGE = "amq.topic"
"""The exchange behind ``/topic``."""

TEMPORARY = "/temp-queue/"
"""What a ``reply-to`` begins with that asks for a queue of the session's own."""

_QUEUE_PREFIX = "stomp-subscription-"
_CACHED_LENGTH = 512  # longer texts are not worth keeping, and would let clients fill the memory
_CACHED_COUNT = 8192

_INTEGER_ARGUMENTS = (
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
)
_TEXT_ARGUMENTS = ("x-dead-letter-exchange", "x-dead-letter-routing-key", "x-queue-type", "x-max-age")
QUEUE_ARGUMENTS = frozenset((*_INTEGER_ARGUMENTS, *_TEXT_ARGUMENTS))
"""Headers that become arguments of a queue that is declared."""
_REPLICATED = ("quorum", "stream")


class Kind(Enum):
    """Who serves a destination."""

    EXCHANGE = "exchange"
    QUEUE = "queue"
    APP = "app"
    INTERNAL = "internal"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination that was understood. ``text`` is what the client wrote.

    A message for it goes to ``exchange`` with ``key``; for a queue these are the default exchange and the queue's
    name; for ``/internal`` the key is the rest of the text. ``declare``: the queue is made at its first use. For
    ``/user`` the key lacks its first word, the name: that is ``user``, or the client's own where it is empty.
    """

    kind: Kind
    text: str
    exchange: str = ""
    key: str = ""
    queue: str = ""
    declare: bool = False
    user: str = ""


def parse(text: str, command: Command) -> Destination:
    """The meaning of a ``destination`` header of ``command``.

    Names are cut at each ``/``; ``%2F``, and nothing else, stands for one inside a name. A text without any slash
    names a queue. Raises :class:`~stompbridge.stomp.errors.StompError` (not fatal) for what cannot be served.
    """
    return _parse_cached(text, command) if len(text) <= _CACHED_LENGTH else _parse(text, command)


def shown(exchange: str, key: str) -> str:
    """The ``destination`` header of a message that came through ``exchange`` with routing key ``key``."""
    return _shown_cached(exchange, key) if len(exchange) + len(key) <= _CACHED_LENGTH else _shown(exchange, key)


def queue_spec(dest: Destination, headers: Mapping[str, str], subscription_id: str | None) -> QueueSpec | None:
    """The queue that a SUBSCRIBE with these headers consumes from.

    ``None`` where no queue is asked for and the messages of an exchange can come from anywhere. Raises
    ``StompError`` for header values that do not fit.
    """
    if dest.kind is Kind.QUEUE:
        return _named_queue(dest, headers, durable=asks_durable(headers))
    if dest.kind is Kind.EXCHANGE and _wants_queue(headers):
        return own_queue(dest, headers, subscription_id)
    return None


def own_queue(dest: Destination, headers: Mapping[str, str], subscription_id: str | None) -> QueueSpec:
    """The queue of its own for a subscription to an exchange, whether the headers ask for one or not.

    Without headers it is transient, exclusive, deleted with its consumer, and named at random. A durable one has
    the name that the plugin would give it, so that queues outlive a change from one to the other. ``x-queue-name``
    names it freely, and such a queue may be shared.
    """
    arguments = _queue_arguments(headers)
    replicated = arguments.get("x-queue-type") in _REPLICATED
    asked = asks_durable(headers)
    durable = replicated if asked is None else asked
    name = headers.get("x-queue-name", "").strip()
    unnamed = not name
    if unnamed and asked:
        if subscription_id is None:
            raise errors.durable_needs_id()
        name = stable_queue_name(dest.key, short_string("the subscription's id", subscription_id))
    elif unnamed:
        name = _QUEUE_PREFIX + secrets.token_urlsafe(16)
    auto_delete = _flag(headers, "auto-delete", default=not replicated)
    return QueueSpec(
        name=short_string("header 'x-queue-name'", name),
        durable=durable,
        auto_delete=auto_delete,
        exclusive=_flag(headers, "exclusive", default=unnamed and auto_delete and not durable),
        arguments=arguments,
        bindings=((dest.exchange, dest.key),),
        consumer_arguments=_consumer_arguments(headers),
        delete_on_failure=unnamed and not asked,
    )


def reply_queue() -> QueueSpec:
    """A queue for answers to one session. It is not named by the broker, so that it can be had back by that name, which
    begins with a word of its own, so that permissions can tell it from others."""
    name = f"{_QUEUE_PREFIX}reply.{secrets.token_urlsafe(16)}"
    return QueueSpec(name, durable=False, auto_delete=True, exclusive=True)


def check_reply_to(text: str) -> None:
    """Raises ``StompError`` for a SEND's ``reply-to`` that is no destination. A queue's name is one."""
    if "/" not in text:
        return
    if text.startswith(TEMPORARY) and len(text) > len(TEMPORARY) and text.count("/") == 2:
        return
    try:
        parse(text, "SEND")
    except StompError as error:
        raise errors.processing_error(f"header 'reply-to': {error.body.strip()}") from None


def sent_queue(dest: Destination, headers: Mapping[str, str]) -> QueueSpec:
    """The queue to declare before the first SEND to ``/queue``. ``persistent`` says nothing about it there: it
    belongs to the message."""
    value = headers.get("durable")
    return _named_queue(dest, headers, durable=None if value is None else boolean("header 'durable'", value))


def stable_queue_name(key: str, subscription_id: str) -> str:
    """The queue name of a durable subscription: the same from any connection, and the same that RabbitMQ's plugin
    computes (a digest over the external form of the Erlang tuple of both strings)."""
    term = b"\x83\x68\x02" + _erlang_string(key) + _erlang_string(subscription_id)
    digest = hashlib.md5(term, usedforsecurity=False).digest()
    return _QUEUE_PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()


def prefetch(headers: Mapping[str, str]) -> int | None:
    """The ``prefetch-count`` of a SUBSCRIBE; 0 means without limit."""
    value = headers.get("prefetch-count")
    return None if value is None else integer("header 'prefetch-count'", value, 0, 65535)


def _parse(text: str, command: Command) -> Destination:
    if not text:
        raise errors.blank_destination()
    parts = text.split("/")
    if len(parts) == 1:
        return _queue(text, text, declare=True)
    if parts[0] == "":
        match parts[1:]:
            case ["queue", name] if name:
                return _queue(text, name, declare=True)
            case ["topic", key] if key:
                return _exchange(text, TOPIC_EXCHANGE, key)
            case ["exchange", name, *rest] if name and len(rest) <= 1:
                return _exchange(text, name, *rest)
            case ["amq", "queue", name] if name:
                return _queue(text, name, declare=False)
            case ["reply-queue", first, *rest] if first or rest:
                return _queue(text, "/".join([first, *rest]), declare=False)
            case ["temp-queue", name] if name:
                raise errors.not_valid_for(text, command)
            case ["app", first, *rest] if first or rest:
                if command != "SEND":
                    raise errors.not_valid_for(text, command)
                return Destination(Kind.APP, text)
            case ["internal", first, *rest] if first or rest:
                if command != "SUBSCRIBE":
                    raise errors.not_valid_for(text, command)
                key = short_string("the destination", text.removeprefix("/internal/"))
                return Destination(Kind.INTERNAL, text, key=key)
            case ["user", *_]:
                user, key = users.parse_user(text, command)
                return Destination(Kind.USER, text, users.EXCHANGE, key, user=user)
            case ["queue" | "topic" | "exchange" | "temp-queue" | "app" | "internal" as kind, *_]:
                raise errors.invalid_destination(text[1 + len(kind) :], kind.replace("-", "_"))
            case ["amq", "queue", *_]:
                raise errors.invalid_destination(text[len("/amq/queue") :], "amqqueue")
            case ["reply-queue", ""]:
                raise errors.invalid_destination("/", "reply_queue")
    raise errors.unknown_destination(text)


_parse_cached = lru_cache(_CACHED_COUNT)(_parse)


def _queue(text: str, name: str, declare: bool) -> Destination:
    name = short_string("the queue's name", name.replace("%2F", "/"))
    return Destination(Kind.QUEUE, text, key=name, queue=name, declare=declare)


def _exchange(text: str, name: str, key: str = "") -> Destination:
    name = short_string("the exchange's name", name.replace("%2F", "/"))
    if name == users.EXCHANGE:
        raise errors.invalid_destination(text.removeprefix("/exchange"), "exchange")
    return Destination(Kind.EXCHANGE, text, name, short_string("the routing key", key.replace("%2F", "/")))


def _shown(exchange: str, key: str) -> str:
    if not exchange:
        return "/queue/" + _encode(key)
    if exchange == TOPIC_EXCHANGE:
        return "/topic/" + _encode(key)
    if not key:
        return "/exchange/" + _encode(exchange)
    return f"/exchange/{_encode(exchange)}/{_encode(key)}"


_shown_cached = lru_cache(_CACHED_COUNT)(_shown)


def _encode(name: str) -> str:
    if name.isascii() and name.isprintable() and "/" not in name and "%" not in name:
        return name
    return "".join(
        f"%{octet:02X}" if octet < 32 or octet > 127 or octet in b"/%" else chr(octet) for octet in name.encode()
    )


def _erlang_string(text: str) -> bytes:
    data = text.encode()
    return b"\x6b" + len(data).to_bytes(2, "big") + data if data else b"\x6a"


def _named_queue(dest: Destination, headers: Mapping[str, str], durable: bool | None) -> QueueSpec:
    consumer_arguments = _consumer_arguments(headers)
    if not dest.declare:
        return QueueSpec(name=dest.queue, declare=False, consumer_arguments=consumer_arguments)
    transient = durable is False
    return QueueSpec(
        name=dest.queue,
        durable=not transient,
        auto_delete=_flag(headers, "auto-delete", default=transient),
        exclusive=_flag(headers, "exclusive", default=transient),
        arguments=_queue_arguments(headers),
        consumer_arguments=consumer_arguments,
    )


def _wants_queue(headers: Mapping[str, str]) -> bool:
    return (
        asks_durable(headers) is True
        or "auto-delete" in headers
        or "exclusive" in headers
        or "x-queue-name" in headers
        or "x-stream-offset" in headers
        or any(name in headers for name in _INTEGER_ARGUMENTS)
        or any(name in headers for name in _TEXT_ARGUMENTS)
    )


def asks_durable(headers: Mapping[str, str]) -> bool | None:
    """Whether a SUBSCRIBE or UNSUBSCRIBE asks for a durable queue; ``None`` where it does not say."""
    for name in ("persistent", "durable"):
        value = headers.get(name)
        if value is not None:
            return boolean(f"header '{name}'", value)
    return None


def _flag(headers: Mapping[str, str], name: str, default: bool) -> bool:
    value = headers.get(name)
    return default if value is None else boolean(f"header '{name}'", value)


def _queue_arguments(headers: Mapping[str, str]) -> dict[str, HeaderValue]:
    arguments: dict[str, HeaderValue] = {}
    for name in _INTEGER_ARGUMENTS:
        if name in headers:
            arguments[name] = integer(f"header '{name}'", headers[name])
    for name in _TEXT_ARGUMENTS:
        if name in headers:
            arguments[name] = headers[name].strip()
    return arguments


def _consumer_arguments(headers: Mapping[str, str]) -> dict[str, HeaderValue]:
    arguments: dict[str, HeaderValue] = {}
    offset = _stream_offset(headers.get("x-stream-offset", ""))
    if offset is not None:
        arguments["x-stream-offset"] = offset
    if "x-stream-filter" in headers:
        arguments["x-stream-filter"] = [word.strip() for word in headers["x-stream-filter"].split(",")]
    if "x-stream-match-unfiltered" in headers:
        arguments["x-stream-match-unfiltered"] = _flag(headers, "x-stream-match-unfiltered", default=False)
    if "x-priority" in headers:
        arguments["x-priority"] = integer("header 'x-priority'", headers["x-priority"], -128, 127)
    return arguments


def _stream_offset(text: str) -> HeaderValue:
    """``None`` for what is no offset, as the plugin has it: RabbitMQ would close the whole connection for it."""
    form, _, number = text.partition("=")
    if form == "offset":
        return integer("header 'x-stream-offset'", number)
    if form == "timestamp":
        # Year 9999: the end of what a datetime holds.
        return datetime.fromtimestamp(integer("header 'x-stream-offset'", number, 0, 253_402_300_799), UTC)
    return text if text in ("first", "last", "next") else None
