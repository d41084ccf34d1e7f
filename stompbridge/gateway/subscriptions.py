"""One subscription of one client: what is written to it, what it holds unacknowledged, how it settles."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from stompbridge.brokers.base import Done, Failure, Message, QueueConsumer
from stompbridge.routing.history import Copy, QueueHistory
from stompbridge.routing.hub import FrameKey, Hub
from stompbridge.routing.router import MailboxPlan, QueuePlan, Router
from stompbridge.stomp.errors import slow_consumer
from stompbridge.stomp.frames import Version
from stompbridge.stomp.session import AckMode, Delivery, Subscription

if TYPE_CHECKING:
    from stompbridge.gateway.client import Client


class SubscriptionReceiver(Protocol):
    """What a client needs of each of its subscriptions, whatever serves it."""

    subscription: Subscription

    def start(self, done: Done) -> None:
        """Asks for messages; ``done`` when what is sent from now on will arrive."""

    def stop(self, unacknowledged: Sequence[Delivery]) -> None:
        """Takes nothing more, and gives back what the client has not acknowledged."""

    def settle(self, deliveries: Sequence[Delivery], ack: bool, requeue: bool) -> None:
        """The client's ACK or NACK."""

    def on_writable(self) -> None:
        """The client reads again."""


def frame_key(subscription: Subscription, version: Version) -> FrameKey:
    """What the MESSAGE frames of a subscription look like (STOMP 1.2 alone has the ``ack`` header)."""
    tracked = subscription.ack is not AckMode.AUTO
    return FrameKey(subscription.tag, subscription.id, tracked and version is Version.V12, tracked)


class MailboxReceiver:
    """A subscription served by the hub. The broker has long been told that its messages are taken: what the client
    holds is kept here, up to ``prefetch`` messages, and what comes meanwhile waits in a bounded backlog."""

    __slots__ = ("_backlog", "_client", "_hub", "_outstanding", "_plan", "_started", "frame_key", "subscription")

    def __init__(self, client: Client, subscription: Subscription, plan: MailboxPlan, hub: Hub) -> None:
        self.subscription = subscription
        self.frame_key = frame_key(subscription, client.session.version)
        self._client = client
        self._plan = plan
        self._hub = hub
        self._outstanding = 0
        self._backlog: deque[tuple[bytes, str, Message]] = deque()

    def start(self, done: Done) -> None:
        self._hub.subscribe(self._plan.exchange, self._plan.key, self, done)

    def stop(self, unacknowledged: Sequence[Delivery]) -> None:
        self._hub.unsubscribe(self._plan.exchange, self._plan.key, self)
        self._backlog.clear()

    def write(self, frame: bytes) -> None:
        client = self._client
        client.messages_out += 1
        client.connection.write(frame)

    def deliver(self, frame: bytes, ack_id: str, message: Message) -> None:
        client = self._client
        limit = self._plan.prefetch
        if limit is not None and self._outstanding >= limit:
            if len(self._backlog) >= client.shared.limits.backlog:
                client.fail(slow_consumer(f"{len(self._backlog)} messages wait behind prefetch-count:{limit}"))
            else:
                self._backlog.append((frame, ack_id, message))
            return
        if client.hold_unacked(self.subscription, ack_id, message):
            self._outstanding += 1
            client.messages_out += 1
            client.connection.write(frame)

    def settle(self, deliveries: Sequence[Delivery], ack: bool, requeue: bool) -> None:
        self._outstanding -= len(deliveries)
        if not ack and requeue:
            for delivery in deliveries:
                assert isinstance(delivery.token, Message)
                self._hub.redeliver(self, delivery.token)
        limit = self._plan.prefetch
        while self._backlog and (limit is None or self._outstanding < limit):
            self.deliver(*self._backlog.popleft())

    def on_writable(self) -> None:
        """Nothing is held back here: what is unsent is bounded by the connection."""


class QueueReceiver:
    """A subscription with a consumer of its own. ACK, NACK and prefetch are the broker's; in ack mode ``auto`` the
    bridge acknowledges what it has written, and stops doing so while the client does not read."""

    __slots__ = (
        "_acks",
        "_client",
        "_consumer",
        "_flushing",
        "_history",
        "_plan",
        "_router",
        "frame_key",
        "subscription",
    )

    def __init__(self, client: Client, subscription: Subscription, plan: QueuePlan, router: Router) -> None:
        self.subscription = subscription
        self.frame_key = frame_key(subscription, client.session.version)
        self._client = client
        self._plan = plan
        self._router = router
        self._consumer: QueueConsumer | None = None
        self._history: QueueHistory | None = None
        # Written, and to be acknowledged in one go at the end of this turn of the loop.
        self._acks: list[Copy] = []
        self._flushing = False

    def start(self, done: Done) -> None:
        def started(result: QueueConsumer | Failure) -> None:
            done(result if isinstance(result, Failure) else None)

        self._consumer = self._router.broker.consume(self._plan.spec, self._plan.prefetch, self, started)

    def stop(self, unacknowledged: Sequence[Delivery]) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        self._flush()
        for delivery in unacknowledged:
            copy = delivery.token
            assert isinstance(copy, Copy)
            if self._history is not None:
                self._history.release(copy)
            if copy.consumer is not consumer:
                # Its newest copy came through another subscription's consumer, which goes on.
                copy.consumer.nack((copy.tag,), requeue=True)
        consumer.cancel()

    def on_queue_message(self, message: Message, tag: int) -> None:
        client, consumer = self._client, self._consumer
        assert consumer is not None
        if self._history is None:
            self._history = self._router.history(consumer.queue)
        copy = Copy(consumer, tag, message)
        if not self._history.admit(copy):
            return
        frame, ack_id = self._router.hub.encode(self.frame_key, message)
        if self.frame_key.tracked:
            if client.hold_unacked(self.subscription, ack_id, copy):
                client.messages_out += 1
                client.connection.write(frame)
            return
        client.messages_out += 1
        client.connection.write(frame)
        self._history.commit(copy)
        self._acks.append(copy)
        if not self._flushing and not client.connection.writing_paused:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def on_queue_restored(self) -> None:
        """Tags given before are void: what was written is recognised in its history when it comes again."""
        self._acks.clear()

    def on_queue_cancelled(self, failure: Failure | None) -> None:
        self._client.subscription_ended(self)

    def settle(self, deliveries: Sequence[Delivery], ack: bool, requeue: bool) -> None:
        history = self._history
        assert history is not None
        by_consumer: dict[QueueConsumer, list[int]] = {}
        for delivery in deliveries:
            copy = delivery.token
            assert isinstance(copy, Copy)
            by_consumer.setdefault(copy.consumer, []).append(copy.tag)
            if ack:
                history.commit(copy)
            else:
                history.release(copy)
        for consumer, tags in by_consumer.items():
            if ack:
                consumer.ack(tags)
            else:
                consumer.nack(tags, requeue)

    def on_writable(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self._flushing = False
        if self._acks and self._consumer is not None:
            tags = [copy.tag for copy in self._acks]
            self._acks.clear()
            self._consumer.ack(tags)


def make_receiver(client: Client, subscription: Subscription, router: Router) -> SubscriptionReceiver:
    """The receiver for a subscription's destination.

    Raises :class:`~stompbridge.stomp.errors.StompError` where it can not be subscribed to.
    """
    plan = router.plan(subscription)
    if isinstance(plan, MailboxPlan):
        return MailboxReceiver(client, subscription, plan, router.hub)
    return QueueReceiver(client, subscription, plan, router)
