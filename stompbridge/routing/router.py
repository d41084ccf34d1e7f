"""Where a frame goes: SENDs to the broker under the sender's identity, subscriptions to the hub or to a queue."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from stompbridge.brokers.base import Broker, Done, Failure, Message, QueueSpec
from stompbridge.routing.application import Application
from stompbridge.routing.destinations import Destination, Kind, own_queue, parse, prefetch, queue_spec, sent_queue
from stompbridge.routing.headers import message_from_send
from stompbridge.routing.history import QueueHistory
from stompbridge.routing.hub import INTERNAL, Hub
from stompbridge.routing.once import IN_FLIGHT, MISMATCH, STORE, Once, Waiting
from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.session import Send, Subscription

# Headers of a SEND to /queue that change what is declared; without them a name that was declared once is enough.
_DECLARING = frozenset({"durable", "auto-delete", "exclusive"})
_DECLARED_MAX = 10_000
_OWN_ERRORS = {
    MISMATCH.code: errors.idempotency_mismatch,
    IN_FLIGHT.code: errors.idempotency_in_flight,
    STORE.code: errors.store_unavailable,
}


class Sender(Protocol):
    """Who a SEND comes from: an identity and the next of its sequence numbers, which has no gaps."""

    sender_id: str
    next_seq: int


@dataclass(frozen=True, slots=True)
class MailboxPlan:
    """A subscription that the hub serves."""

    exchange: str
    key: str
    prefetch: int | None


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """A subscription that consumes from a queue."""

    spec: QueueSpec
    prefetch: int


class Router:
    """Resolves destinations and publishes what clients send."""

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
    ) -> None:
        self.broker = broker
        self.hub = hub
        self._application = application
        self._once = once
        self._default_prefetch = default_prefetch
        self._window = window
        self._history_ttl = history_ttl
        self._histories: dict[str, QueueHistory] = {}
        self._suppressed_before = 0
        # Queues that a SEND has declared, so that each is declared once and not for each message.
        self._declared: OrderedDict[str, None] = OrderedDict()
        self.sends = 0

    def plan(self, subscription: Subscription) -> MailboxPlan | QueuePlan:
        """What serves a subscription. Raises :class:`StompError` for a destination that can not be subscribed to."""
        destination = parse(subscription.destination, "SUBSCRIBE")
        headers = subscription.headers
        wanted = prefetch(headers) or None  # 0 is AMQP's word for no limit
        if destination.kind is Kind.INTERNAL:
            return MailboxPlan(INTERNAL, destination.key, wanted)
        spec = queue_spec(destination, headers, subscription.id)
        if spec is None:
            if self.hub.can_serve(destination.exchange):
                return MailboxPlan(destination.exchange, destination.key, wanted)
            spec = own_queue(destination, headers, subscription.id)
        return QueuePlan(spec, wanted or self._default_prefetch)

    def send(self, sender: Sender, event: Send, done: Done, resume: Callable[[], None]) -> bool:
        """Publishes a SEND. Raises :class:`StompError` for what is wrong with the frame itself; everything that the
        broker says comes through ``done``, which may be called inside.

        Returns True when later frames of the sender must wait to keep their order, until ``resume`` is called.
        """
        message, destination = self._message(sender, event)
        key = event.headers.get("idempotency-key")
        if key is None:
            return self._publish(sender, message, destination, event, done, resume)
        if destination.kind is Kind.QUEUE:
            # What is wrong with the frame has to be found before the store is asked.
            sent_queue(destination, event.headers)
        publish = partial(self._publish, sender, message, destination, event)
        return self._once.publish(message, event, key, publish, done, resume)

    def _publish(
        self,
        sender: Sender,
        message: Message,
        destination: Destination,
        event: Send,
        done: Done,
        resume: Callable[[], None],
    ) -> bool:
        message.sender = sender.sender_id
        message.seq = sender.next_seq
        if message.message_id is None:
            message.message_id = f"{sender.sender_id}:{sender.next_seq}"
        sender.next_seq += 1
        self.sends += 1
        if destination.kind is not Kind.QUEUE:
            self.broker.publish(message, done)
        elif not destination.declare:
            # As in the plugin, what is sent to a queue that must exist is dropped when it does not.
            self.broker.publish(message, lambda failure: done(None if _is_unroutable(failure) else failure))
        elif destination.queue in self._declared and _DECLARING.isdisjoint(event.headers):
            self._publish_to_queue(message, destination, event, done)
        else:
            return self._declare_and_publish(message, destination, event, done, resume)
        return False

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
            self._suppressed_before += self._histories.pop(queue).suppressed

    @property
    def suppressed(self) -> int:
        """Copies that were recognised and not delivered."""
        return (
            self.hub.suppressed
            + self._suppressed_before
            + sum(history.suppressed for history in self._histories.values())
        )

    def _message(self, sender: Sender, event: Send) -> tuple[Message, Destination]:
        destination = parse(event.destination, "SEND")
        if destination.kind is not Kind.APP:
            return message_from_send(event.headers, event.body, destination.exchange, destination.key), destination
        routed = self._application.apply(destination.text, event.body, sender.sender_id, sender.next_seq)
        message = message_from_send(event.headers, routed.body, routed.exchange, routed.key)
        if routed.persistent:
            message.delivery_mode = 2
        return message, destination

    def _declare_and_publish(
        self, message: Message, destination: Destination, event: Send, done: Done, resume: Callable[[], None]
    ) -> bool:
        spec = sent_queue(destination, event.headers)
        waits = Waiting(resume)

        def declared(failure: Failure | None) -> None:
            if failure is not None:
                done(failure)
            else:
                self._declared[destination.queue] = None
                if len(self._declared) > _DECLARED_MAX:
                    self._declared.popitem(last=False)
                self.broker.publish(message, done)
            waits.end()

        self.broker.declare_queue(spec, declared)
        return waits.begun()

    def _publish_to_queue(self, message: Message, destination: Destination, event: Send, done: Done) -> None:
        def published(failure: Failure | None) -> None:
            if _is_unroutable(failure):
                # Deleted since it was declared: RabbitMQ's plugin would drop the message and send a RECEIPT.
                self._declared.pop(destination.queue, None)
                self._declare_and_publish(message, destination, event, done, _nothing)
            else:
                done(failure)

        self.broker.publish(message, published)


def _nothing() -> None:
    """Nobody waits."""


def _is_unroutable(failure: Failure | None) -> bool:
    return failure is not None and failure.code == "no_route"


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
