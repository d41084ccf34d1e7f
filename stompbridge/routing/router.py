"""Where a frame goes: SENDs to the broker under the sender's identity, subscriptions to the hub or to a queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from stompbridge.brokers.base import Broker, Done, Failure, Message, QueueSpec
from stompbridge.routing.application import Application
from stompbridge.routing.busiest import Busiest
from stompbridge.routing.destinations import (
    Destination,
    Kind,
    own_queue,
    parse,
    prefetch,
    queue_spec,
    reply_queue,
    sent_queue,
)
from stompbridge.routing.headers import message_from_send
from stompbridge.routing.history import QueueHistory
from stompbridge.routing.hub import INTERNAL, Hub
from stompbridge.routing.once import IN_FLIGHT, MISMATCH, STORE, Once
from stompbridge.routing.queues import Queues, SessionQueues, is_unroutable
from stompbridge.routing.users import EXCHANGE as USERS
from stompbridge.routing.users import routing_key
from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.session import Send, Subscription


class Permissions(Protocol):
    """What one user may do. Both raise :class:`StompError` for what is not allowed."""

    def check_send(self, destination: Destination, headers: Mapping[str, str]) -> None: ...

    def check_subscribe(self, destination: Destination, headers: Mapping[str, str]) -> None: ...


_OWN_ERRORS = {
    MISMATCH.code: errors.idempotency_mismatch,
    IN_FLIGHT.code: errors.idempotency_in_flight,
    STORE.code: errors.store_unavailable,
}


class Sender(Protocol):
    """Who a frame comes from: an identity, and the next of its sequence numbers, which has no gaps."""

    sender_id: str
    next_seq: int
    user: str
    """The authenticated user's name; the session's own where nobody authenticates."""
    scope: str
    """Whose the sender's keys are: the user's; empty where nobody authenticates."""
    permissions: Permissions | None
    """What the sender may do; ``None``: anything."""


@dataclass(frozen=True, slots=True)
class MailboxPlan:
    """A subscription that the hub serves."""

    exchange: str
    key: str
    prefetch: int | None
    shown: str | None = None
    """The ``destination`` header of its messages, where exchange and key do not tell it."""


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """A subscription that consumes from a queue."""

    spec: QueueSpec
    prefetch: int


class Router:
    """Resolves destinations and publishes what clients send. ``own`` is the router with the bridge's own login, where
    this one has another: ``/user`` and ``/internal`` are its affair."""

    def __init__(
        self,
        broker: Broker,
        hub: Hub,
        application: Application,
        once: Once,
        *,
        default_prefetch: int,
        window: int,
        history_ttl: float,
        own: Router | None = None,
    ) -> None:
        self.broker = broker
        self.hub = hub
        self._own = self if own is None else own
        self._application = application
        self._once = once
        self._default_prefetch = default_prefetch
        self._window = window
        self._history_ttl = history_ttl
        self._histories: dict[str, QueueHistory] = {}
        # Of histories that are forgotten.
        self._suppressed_before = 0
        self._in_doubt_before = 0
        self.queues = Queues(broker)
        self.sends = 0
        self.sent: Busiest = Busiest() if own is None else own.sent
        """Destinations of SENDs, as clients write them; one table for the whole process."""

    def plan(self, subscription: Subscription, sender: Sender) -> MailboxPlan | QueuePlan:
        """What serves a subscription. Raises :class:`StompError` for a destination that can not be subscribed to."""
        destination = parse(subscription.destination, "SUBSCRIBE")
        headers = subscription.headers
        if sender.permissions is not None:
            sender.permissions.check_subscribe(destination, headers)
        wanted = prefetch(headers) or None  # 0 is AMQP's word for no limit
        if destination.kind is Kind.INTERNAL:
            return MailboxPlan(INTERNAL, destination.key, wanted)
        if destination.kind is Kind.USER:
            return MailboxPlan(USERS, routing_key(sender.user, destination.key), wanted, destination.text)
        spec = queue_spec(destination, headers, subscription.id)
        if spec is None:
            if self.hub.can_serve(destination.exchange):
                return MailboxPlan(destination.exchange, destination.key, wanted)
            spec = own_queue(destination, headers, subscription.id)
        granted = self.queues.to_consume(sender, spec)
        if isinstance(granted, Failure):
            raise failure_to_error(granted)
        return QueuePlan(granted, wanted or self._default_prefetch)

    def plan_reply(self) -> QueuePlan:
        """A queue for answers to one session."""
        return QueuePlan(reply_queue(), self._default_prefetch)

    def leave(self, sender: Sender) -> None:
        """The sender's session has ended, and all of its subscriptions."""
        self.queues.leave(sender)

    def hub_of(self, plan: MailboxPlan) -> Hub:
        """The hub that serves a subscription."""
        return self._own.hub if plan.exchange in (INTERNAL, USERS) else self.hub

    def send(self, sender: Sender, event: Send, done: Done, resume: Callable[[], None]) -> bool:
        """Publishes a SEND. Raises :class:`StompError` for what is wrong with the frame itself; everything that the
        broker says comes through ``done``, which may be called inside.

        Returns True when later frames of the sender must wait to keep their order, until ``resume`` is called.
        """
        message, destination = self._message(sender, event)
        known = self.queues.session(sender) if destination.declare else None
        key = event.headers.get("idempotency-key")
        if key is None:
            return self._publish(sender, message, destination, event, known, done, resume)
        if destination.kind is Kind.QUEUE:
            # What is wrong with the frame has to be found before the store is asked.
            sent_queue(destination, event.headers)
        publish = partial(self._publish, sender, message, destination, event, known)
        scope = sender.scope
        if destination.kind is Kind.USER and not destination.user:
            # The same text is another place for each who says it.
            scope = scope or sender.user
        return self._once.publish(message, scope, event, key, publish, done, resume)

    def check(self, sender: Sender, event: Send) -> None:
        """Raises :class:`StompError` for what is wrong with a SEND that is to be published later."""
        _, destination = self._message(sender, event)
        if destination.kind is Kind.QUEUE:
            sent_queue(destination, event.headers)

    def _publish(
        self,
        sender: Sender,
        message: Message,
        destination: Destination,
        event: Send,
        known: SessionQueues | None,
        done: Done,
        resume: Callable[[], None],
    ) -> bool:
        message.sender = sender.sender_id
        message.seq = sender.next_seq
        if message.message_id is None:
            message.message_id = f"{sender.sender_id}:{sender.next_seq}"
        sender.next_seq += 1
        self.sends += 1
        self.sent.add(destination.text)
        if destination.kind is Kind.USER:
            self._own.broker.publish(message, done)
        elif destination.kind is not Kind.QUEUE:
            self.broker.publish(message, done)
        elif known is None:
            # As in the plugin, what is sent to a queue that must exist is dropped when it does not.
            self.broker.publish(message, lambda failure: done(None if is_unroutable(failure) else failure))
        else:
            return self.queues.publish(known, message, destination, event, done, resume)
        return False

    @property
    def congested(self) -> bool:
        """Whether senders should wait before they send more."""
        return self.broker.congested or (self._own is not self and self._own.congested)

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Calls back once, in a later turn of the loop, when what is congested now is not any more."""
        (self.broker if self.broker.congested else self._own.broker).when_clear(callback)

    def history(self, queue: str) -> QueueHistory:
        """What this process knows of a queue's messages."""
        history = self._histories.get(queue)
        if history is None:
            history = self._histories[queue] = QueueHistory(self._window, self._history_ttl)
        return history

    def sweep(self, now: float) -> None:
        """Forgets senders that have been silent for ``history_ttl``, and the histories of queues without any."""
        self.hub.sweep(now)
        for queue in [queue for queue, history in self._histories.items() if history.sweep(now)]:
            history = self._histories.pop(queue)
            self._suppressed_before += history.suppressed
            self._in_doubt_before += history.in_doubt

    def counters(self) -> dict[str, int]:
        """Totals since the start. ``suppressed`` are copies that were recognised and not delivered, ``in_doubt``
        deliveries that may be such copies; of mailboxes, and of queues."""
        histories = self._histories.values()
        return {
            "mailbox_suppressed": self.hub.suppressed,
            "mailbox_in_doubt": self.hub.in_doubt,
            "queue_suppressed": self._suppressed_before + sum(history.suppressed for history in histories),
            "queue_in_doubt": self._in_doubt_before + sum(history.in_doubt for history in histories),
        }

    def _message(self, sender: Sender, event: Send) -> tuple[Message, Destination]:
        destination = parse(event.destination, "SEND")
        if sender.permissions is not None:
            sender.permissions.check_send(destination, event.headers)
        message = self._made(sender, event, destination)
        if message.user_id is not None and sender.scope:
            self._vouch(sender, message, destination)
        return message, destination

    def _made(self, sender: Sender, event: Send, destination: Destination) -> Message:
        if destination.kind is Kind.USER:
            user_key = routing_key(destination.user or sender.user, destination.key)
            return message_from_send(event.headers, event.body, destination.exchange, user_key)
        if destination.kind is not Kind.APP:
            return message_from_send(event.headers, event.body, destination.exchange, destination.key)
        routed = self._application.apply(destination.text, event.body, sender.sender_id, sender.next_seq)
        message = message_from_send(event.headers, routed.body, routed.exchange, routed.key)
        if routed.persistent:
            message.delivery_mode = 2
        return message

    def _vouch(self, sender: Sender, message: Message, destination: Destination) -> None:
        """``user-id`` must be the sender's own. RabbitMQ sees to that where the login is, too; any other login may not
        set the property, so that it travels as a header then, for which no more than the word of those stands who may
        publish to the exchange."""
        if message.user_id != sender.user:
            text = (
                f"PRECONDITION_FAILED - user_id property set to '{message.user_id}' "
                f"but authenticated user was '{sender.user}'"
            )
            raise errors.broker_error("precondition_failed", text, fatal=True)
        broker = self._own.broker if destination.kind is Kind.USER else self.broker
        if broker.user is not None and broker.user != sender.user:
            message.headers["user-id"], message.user_id = sender.user, None


def failure_to_error(failure: Failure) -> StompError:
    """The ERROR that a client gets for what its broker refused."""
    made = _OWN_ERRORS.get(failure.code)
    if made is not None:
        return made()
    if failure.code == "rejected":
        return errors.message_rejected(failure.text)
    if failure.code == "broker_unavailable":
        return errors.broker_unavailable(failure.text)
    return errors.broker_error(failure.code, failure.text, failure.fatal)
