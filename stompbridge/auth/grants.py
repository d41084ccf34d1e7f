"""What a frame needs to be allowed: an action on a destination, and more for headers that reach further.

====================  ========================================================================================
``subscribe``         SUBSCRIBE. With wildcards: every key that can match
``send``              SEND
``durable``           SUBSCRIBE to an exchange with ``durable:true`` or ``persistent:true``
``queue-name``        SUBSCRIBE to an exchange with ``x-queue-name``. ``/queue/NAME`` has to be allowed for
                      ``subscribe``, too: the queue may be somebody else's. It can be deleted by UNSUBSCRIBE then
``queue-arguments``   SUBSCRIBE or SEND that shapes the queue it declares: ``auto-delete``, ``exclusive``, and what
                      becomes an argument of the queue; ``durable:false`` with ``/queue``. With
                      ``x-dead-letter-exchange`` also ``send`` to where the messages then go
``temp-queue``        SEND with ``reply-to:/temp-queue/NAME``; it is that destination that is looked for in the rules
====================  ========================================================================================

Any other ``reply-to`` is only text. Whoever answers needs ``send`` for where it points: ``/temp-queue/NAME`` has become
``/queue/stomp-subscription-reply.*``.
The queue of a durable subscription is named after key and subscription id alone, as in RabbitMQ's plugin: whoever may
have one on a key shares it with all who use the same id, on whatever exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from stompbridge.auth.patterns import Space, Wild, Word, topic_words
from stompbridge.brokers.topics import words_of
from stompbridge.config import Action
from stompbridge.routing.destinations import QUEUE_ARGUMENTS, TEMPORARY, Destination, Kind, asks_durable, shown
from stompbridge.routing.values import boolean, short_string

ExchangeType = Callable[[str], str | None]
"""``topic``, ``direct``, ``fanout`` or ``headers`` for an exchange of which it is known."""

_SHAPING = QUEUE_ARGUMENTS | {"auto-delete", "exclusive"}
_MANY = (Wild.MANY,)
_DLX = "x-dead-letter-exchange"
_DLX_KEY = "x-dead-letter-routing-key"

SEND_HEADERS = _SHAPING | {"durable", "reply-to"}
"""Headers of a SEND that may need a grant of their own."""


class Resource(NamedTuple):
    """What an action is done to. However a destination is written, it is the same resource.

    ``words`` are those of the key, queue name or path, with wildcards where the action is done to all that match;
    ``name`` is the exchange.
    """

    space: Space
    words: tuple[Word, ...]
    name: str = ""

    def text(self, words: Sequence[Word]) -> str:
        """The destination with these words in place of the resource's own."""
        texts = [word.value if isinstance(word, Wild) else word for word in words]
        match self.space:
            case "exchange" | "queue":
                return shown(self.name, ".".join(texts))
            case "internal":
                return "/internal/" + ".".join(texts)
            case "user-of" if not texts[0]:
                texts = texts[1:]
        return "/".join(["", self.space.removesuffix("-of"), *(text.replace("/", "%2F") for text in texts)])


class Need(NamedTuple):
    """One thing that has to be allowed. Without a resource nothing can allow it, since ``why``."""

    action: Action
    resource: Resource | None
    why: str = ""


def needs(
    action: Literal["subscribe", "send"],
    destination: Destination,
    headers: Mapping[str, str],
    user: str | None,
    exchange_type: ExchangeType,
) -> Iterator[Need]:
    """All that a frame needs, the destination itself first. ``user`` is the sender's name, if it has one.

    Raises :class:`~stompbridge.stomp.errors.StompError` (not fatal) for header values that make no sense.
    """
    resource = resource_of(action, destination, user, exchange_type)
    yield Need(action, resource)
    if action == "subscribe":
        yield from _needs_of_subscribe(destination, resource, headers)
    else:
        yield from _needs_of_send(destination, resource, headers)


def resource_of(
    action: Literal["subscribe", "send"], destination: Destination, user: str | None, exchange_type: ExchangeType
) -> Resource:
    """The resource of a destination. Exchanges that look at no key give everything to every subscription."""
    subscribes = action == "subscribe"
    match destination.kind:
        case Kind.EXCHANGE:
            exchange, key = destination.exchange, destination.key
            kind = exchange_type(exchange) if subscribes else None
            if kind in ("fanout", "headers"):
                return Resource("exchange", _MANY, exchange)
            takes_pattern = subscribes and kind != "direct"
            return Resource("exchange", topic_words(key) if takes_pattern else tuple(words_of(key)), exchange)
        case Kind.QUEUE:
            return _queue(destination.queue)
        case Kind.APP:
            parts = destination.text.removeprefix("/app/").split("/")
            return Resource("app", tuple(part.replace("%2F", "/") for part in parts))
        case Kind.INTERNAL:
            return Resource("internal", topic_words(destination.key))
    path = tuple(words_of(destination.key))
    return Resource("user", path) if subscribes else Resource("user-of", (destination.user or user or "", *path))


def _needs_of_subscribe(destination: Destination, resource: Resource, headers: Mapping[str, str]) -> Iterator[Need]:
    is_exchange = destination.kind is Kind.EXCHANGE
    if not is_exchange and not (destination.kind is Kind.QUEUE and destination.declare):
        return
    durable = asks_durable(headers)
    if durable and is_exchange:
        yield Need("durable", resource)
    name = headers.get("x-queue-name", "").strip()
    if name and is_exchange:
        yield Need("queue-name", resource)
        yield Need("subscribe", _queue(short_string("header 'x-queue-name'", name)))
    transient = durable is False and not is_exchange
    if transient or not _SHAPING.isdisjoint(headers):
        yield Need("queue-arguments", resource)
    yield from _dead_letters(headers)


def _needs_of_send(destination: Destination, resource: Resource, headers: Mapping[str, str]) -> Iterator[Need]:
    reply_to = headers.get("reply-to", "")
    if reply_to.startswith(TEMPORARY):
        name = short_string("header 'reply-to'", reply_to).removeprefix(TEMPORARY)
        yield Need("temp-queue", Resource("temp-queue", tuple(name.split("/"))))
    if not destination.declare:
        return
    if not boolean("header 'durable'", headers.get("durable", "true")) or not _SHAPING.isdisjoint(headers):
        yield Need("queue-arguments", resource)
    yield from _dead_letters(headers)


def _dead_letters(headers: Mapping[str, str]) -> Iterator[Need]:
    exchange, key = headers.get(_DLX), headers.get(_DLX_KEY)
    if exchange is None:
        return
    exchange = short_string(f"header '{_DLX}'", exchange.strip())
    if key is not None:
        key = short_string(f"header '{_DLX_KEY}'", key.strip())
    if exchange:
        # Without a key of the queue's own, messages keep theirs, whatever it is.
        yield Need("send", Resource("exchange", _MANY if key is None else tuple(words_of(key)), exchange))
    elif key is None:
        yield Need("send", None, f"with an empty {_DLX} and without {_DLX_KEY} it may be to any queue")
    else:
        yield Need("send", _queue(key))


def _queue(name: str) -> Resource:
    return Resource("queue", tuple(words_of(name)))
