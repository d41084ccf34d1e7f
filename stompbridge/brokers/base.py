"""The broker side as the rest of the program sees it.

Two implementations stand behind these types: :mod:`stompbridge.brokers.memory`, which lives in the process,
and :mod:`stompbridge.brokers.amqp`, which speaks to RabbitMQ. Only the daemon knows which of them runs.

Everything here is called from the event loop's thread. Calls return at once; what takes time answers through a
``Done`` callback, exactly once, never from inside the call that was given it unless the docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

HeaderValue = object
"""A value of an AMQP header table: str, bool, int, float, bytes, Decimal, datetime, None, list or dict of them."""


@dataclass(slots=True)
class Message:
    """One message with its AMQP 0-9-1 basic properties (specification section 1.8.4); ``None`` where one is not set."""

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, HeaderValue] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    # Who sent it and its running number (AMQP headers x-stompbridge-sender and x-stompbridge-seq), taken out of
    # ``headers`` on delivery and written into the header table on publishing. None: another program's message.
    sender: str | None = None
    seq: int = 0
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the broker refused something: ``code`` in AMQP's words (``not_found``), ``text`` for people.

    ``fatal`` says that RabbitMQ would have closed the channel for it, so that the STOMP session ends, too.
    """

    code: str
    text: str
    fatal: bool = True


class LoginRefused(Exception):
    """The broker does not let a login in. ``virtual_host``: it is who it says, but has no business there. The text is
    the broker's."""

    def __init__(self, text: str, *, virtual_host: bool = False) -> None:
        super().__init__(text)
        self.virtual_host = virtual_host


class Unreachable(Exception):
    """The broker can not be reached, for this reason."""


Done = Callable[[Failure | None], None]


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue that a subscription consumes from, and what to declare and bind before it does.

    ``name`` may be empty for a name of the broker's choice. ``declare`` is false for a queue that must exist; with
    ``reuse`` one that exists is taken as it is.
    ``delete_on_failure``: a queue made for this subscription goes again when its consumer or binding is refused.
    """

    name: str
    declare: bool = True
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    arguments: Mapping[str, HeaderValue] = field(default_factory=dict)
    bindings: tuple[tuple[str, str], ...] = ()
    consumer_arguments: Mapping[str, HeaderValue] = field(default_factory=dict)
    delete_on_failure: bool = False
    reuse: bool = False


class QueueListener(Protocol):
    """The receiver behind one queue consumer."""

    def on_queue_message(self, message: Message, tag: int) -> None:
        """Takes one message. ``tag`` names it towards :class:`QueueConsumer` until it is acknowledged."""

    def on_queue_restored(self) -> None:
        """The link to the broker was lost and is back: every tag given out before is void, and what it stood for
        will be delivered again with ``redelivered`` set."""

    def on_queue_cancelled(self, failure: Failure | None) -> None:
        """The broker ended the consumer (its queue was deleted, or could not be had back after a broker loss)."""


class QueueConsumer(Protocol):
    """One consumer on one queue, for one subscription. Acknowledging a void tag is harmless and does nothing."""

    queue: str
    """The queue's name, once the consumer stands."""

    def ack(self, tags: Sequence[int]) -> None:
        """Settles the messages: the broker forgets them."""

    def nack(self, tags: Sequence[int], requeue: bool) -> None:
        """Refuses the messages: back to the queue, or dropped (dead-lettered where the queue says so)."""

    def cancel(self, done: Done | None = None) -> None:
        """Ends the consumer and requeues what is unacknowledged. No message is passed on after this call."""


class BrokerListener(Protocol):
    """Where a broker's news go."""

    def on_mailbox_messages(self, exchange: str, messages: Sequence[Message]) -> None:
        """Messages that came through ``exchange`` for a key that was bound, in their order. When the call returns,
        they are delivered: the broker is told to forget them."""

    def on_broker_up(self) -> None:
        """The broker can be used; bindings and consumers are restored."""

    def on_broker_down(self, reason: str) -> None:
        """The broker is out of reach; calls wait for its return."""


class Broker(Protocol):
    """What a session needs of a message broker.

    While the broker is away every call waits for its return, at most ``outage_grace`` seconds, and fails with code
    ``broker_unavailable`` then (or at once when the configuration says ``when_down = "error"``).
    """

    @property
    def up(self) -> bool:
        """Whether the broker can be used now."""

    @property
    def down_reason(self) -> str:
        """Why it can not, for people; empty when it can."""

    @property
    def user(self) -> str | None:
        """The login that the broker holds a message's ``user_id`` against; ``None`` where it asks for none."""

    @property
    def congested(self) -> bool:
        """True when no more should be published for now: too much unconfirmed, a full socket, a resource alarm."""

    @property
    def virtual_host(self) -> str:
        """The virtual host, as the broker's error texts name it."""

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name; which there are depends on the broker."""

    def gauges(self) -> Mapping[str, int]:
        """What there is now, by name."""

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Calls back once, in a later turn of the loop, when ``congested`` has become false."""

    async def start(self, listener: BrokerListener) -> None:
        """Begins to connect and returns; the news come through ``listener``."""

    async def stop(self) -> None:
        """Settles what is in flight, within a limit, and lets go of all connections."""

    def exchange_type(self, exchange: str) -> str | None:
        """``topic``, ``direct``, ``fanout`` or ``headers`` where it is known (declared by us, or one of ``amq.*``)."""

    def publish(self, message: Message, done: Done) -> None:
        """Publishes with confirmation; ``done(None)`` when the broker has taken responsibility.

        ``done`` may be called inside this call. Failures: ``not_found`` and ``access_refused`` for the exchange,
        ``rejected`` (not fatal) for a message that the broker did not take, ``broker_unavailable``.
        """

    def declare_queue(self, spec: QueueSpec, done: Done) -> None:
        """Declares and binds what ``spec`` says without consuming: a queue that something will be sent to."""

    def delete_queue(self, spec: QueueSpec, done: Done) -> None:
        """Deletes a queue and what is in it; one that is not there is no failure. Where ``spec`` is exclusive, another
        queue that has got the name since is left alone."""

    def bind(self, exchange: str, key: str, done: Done) -> None:
        """Has messages of ``exchange`` that match ``key`` come through ``on_mailbox_messages``. May call inside."""

    def unbind(self, exchange: str, key: str) -> None:
        """Takes one binding back."""

    def consume(
        self, spec: QueueSpec, prefetch: int, listener: QueueListener, done: Callable[[QueueConsumer | Failure], None]
    ) -> QueueConsumer:
        """Declares and binds what ``spec`` says and starts a consumer with ``prefetch`` messages in flight.

        Returns the handle at once, so that it can be cancelled while it is being set up (``done`` is not called
        after a cancel). ``done`` may be called inside.
        """


class LoginBroker(Broker, Protocol):
    """The broker as one login has it."""

    async def open(self, listener: BrokerListener) -> None:
        """As ``start``, but returns when the broker is up. Raises :class:`LoginRefused` or :class:`Unreachable`."""

    async def verify(self) -> None:
        """Asks anew whether the login is let in. Raises :class:`LoginRefused` or :class:`Unreachable`."""
