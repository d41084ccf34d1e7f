"""One subscription of one client: what is written to it, what it holds unacknowledged, how it settles."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

from stompbridge.brokers.base import Done, Failure, Message, QueueConsumer, QueueSpec
from stompbridge.dedup.store import Lock
from stompbridge.gateway.gate import Gate, Settling
from stompbridge.routing.destinations import asks_durable
from stompbridge.routing.history import Copy, QueueHistory
from stompbridge.routing.hub import INTERNAL, FrameKey, Hub
from stompbridge.routing.router import MailboxPlan, QueuePlan, Router
from stompbridge.stomp.errors import slow_consumer
from stompbridge.stomp.frames import Version
from stompbridge.stomp.session import AckMode, Delivery, Subscription

if TYPE_CHECKING:
    from stompbridge.gateway.client import Client


class SubscriptionReceiver(Protocol):
    """What a client needs of each of its subscriptions, whatever serves it."""

    subscription: Subscription
    gate: Gate | None

    @property
    def waiting(self) -> int:
        """Messages that wait here for the client, or for the store."""

    @property
    def prefetch(self) -> int | None:
        """How many messages the client may hold unacknowledged; ``None``: any number."""

    def start(self, done: Done) -> None:
        """Asks for messages; ``done`` when what is sent from now on will arrive."""

    def stop(self, unacknowledged: Sequence[Delivery], in_doubt: bool, done: Done | None = None) -> None:
        """Takes nothing more, and gives back what the client has not acknowledged. ``in_doubt``: its session ends,
        and the next one is to be told that the client may have seen that. ``done`` when the broker gives this
        subscription nothing more either; it may be called inside."""

    def settle(self, deliveries: Sequence[Delivery], ack: bool, requeue: bool, settling: Settling) -> None:
        """The client's ACK or NACK. ``settling`` waits for what the store makes of it."""

    def on_writable(self) -> None:
        """The client reads again."""

    def on_check(self) -> None:
        """Comes once a sweep."""


def frame_key(subscription: Subscription, client: Client, named: bool, shown: str | None = None) -> FrameKey:
    """What the MESSAGE frames of a subscription look like (STOMP 1.2 alone has the ``ack`` header)."""
    tracked = subscription.ack is not AckMode.AUTO
    with_ack = tracked and client.session.version is Version.V12
    direct = not tracked and not named
    return FrameKey(subscription.tag, subscription.id, with_ack, direct, shown, client.connection.compresses)


class Held:
    """A message that came through the mailbox and that the client has to acknowledge, and the claim on it."""

    __slots__ = ("lock", "message")

    def __init__(self, message: Message, lock: Lock | None) -> None:
        self.message = message
        self.lock = lock


class MailboxReceiver:
    """A subscription served by the hub. The broker has long been told that its messages are taken: what the client
    holds is kept here, up to ``prefetch`` messages, and what comes meanwhile waits in a bounded backlog."""

    __slots__ = (
        "_backlog",
        "_client",
        "_hub",
        "_outstanding",
        "_plan",
        "_tracked",
        "frame_key",
        "gate",
        "subscription",
    )

    def __init__(
        self, client: Client, subscription: Subscription, plan: MailboxPlan, hub: Hub, gate: Gate | None
    ) -> None:
        self.subscription = subscription
        self.frame_key = frame_key(subscription, client, gate is not None, plan.shown)
        self._client = client
        self._plan = plan
        self._hub = hub
        self.gate = gate
        self._tracked = subscription.ack is not AckMode.AUTO
        self._outstanding = 0
        self._backlog: deque[tuple[bytes, str, Held]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._backlog) + (0 if self.gate is None else self.gate.waiting)

    @property
    def prefetch(self) -> int | None:
        return self._plan.prefetch

    @property
    def session(self) -> str:
        return self._client.sender_id

    def start(self, done: Done) -> None:
        self._hub.subscribe(self._plan.exchange, self._plan.key, self, done)

    def stop(self, unacknowledged: Sequence[Delivery], in_doubt: bool, done: Done | None = None) -> None:
        self._hub.unsubscribe(self._plan.exchange, self._plan.key, self)
        if self.gate is not None:
            self.gate.close()
            _unlock(held for _, _, held in self._backlog)
            if not in_doubt:
                _unlock(delivery.token for delivery in unacknowledged)
        self._backlog.clear()
        if done is not None:
            done(None)

    def write(self, frames: bytes, count: int = 1) -> None:
        client = self._client
        client.messages_out += count
        client.connection.write(frames)

    def deliver(self, frame: bytes, ack_id: str, message: Message) -> None:
        if self.gate is None:
            self._offer(frame, ack_id, Held(message, None))
        else:
            self.gate.ask(message, partial(self._granted, frame, ack_id), _nothing)

    def _granted(self, frame: bytes, ack_id: str, message: Message, lock: Lock | None) -> None:
        if self._client.connection.reason is not None:
            # What would be written now is lost.
            if lock is not None:
                lock.release()
            return
        if lock is not None and lock.in_doubt:
            frame, ack_id = self._hub.encode(self.frame_key, message)
        if self._tracked:
            self._offer(frame, ack_id, Held(message, lock))
        else:
            self.write(frame)
            if lock is not None:
                lock.commit()

    def _offer(self, frame: bytes, ack_id: str, held: Held) -> None:
        client = self._client
        limit = self._plan.prefetch
        if limit is not None and self._outstanding >= limit:
            if len(self._backlog) >= client.shared.limits.backlog:
                client.fail(slow_consumer(f"{len(self._backlog)} messages wait behind prefetch-count:{limit}"))
            else:
                self._backlog.append((frame, ack_id, held))
            return
        if client.hold_unacked(self.subscription, ack_id, held):
            self._outstanding += 1
            client.messages_out += 1
            client.connection.write(frame)
        elif held.lock is not None:
            held.lock.release()

    def settle(self, deliveries: Sequence[Delivery], ack: bool, requeue: bool, settling: Settling) -> None:
        self._outstanding -= len(deliveries)
        again = not ack and requeue
        returned = []
        for delivery in deliveries:
            held = delivery.token
            assert isinstance(held, Held)
            if held.lock is not None:
                if again:
                    held.lock.release(settling.begin())
                else:
                    held.lock.commit(settling.begin())
            if again:
                returned.append(held.message)
        if returned or self._backlog:
            # What the client may have now comes after the receipt, as in RabbitMQ.
            settling.after.append(partial(self._go_on, returned))

    def _go_on(self, returned: Sequence[Message]) -> None:
        for message in returned:
            self._hub.redeliver(self, message)
        limit = self._plan.prefetch
        while self._backlog and (limit is None or self._outstanding < limit):
            self._offer(*self._backlog.popleft())

    def on_writable(self) -> None:
        """Nothing is held back here: what is unsent is bounded by the connection."""

    def on_check(self) -> None:
        if self.gate is not None:
            self.gate.retry()


class QueueReceiver:
    """A subscription with a consumer of its own. ACK, NACK and prefetch are the broker's; in ack mode ``auto`` the
    bridge acknowledges what it has written, and stops doing so while the client does not read."""

    __slots__ = (
        "_acks",
        "_asked",
        "_client",
        "_consumer",
        "_flushing",
        "_history",
        "_place",
        "_plan",
        "_router",
        "_tracked",
        "delivered",
        "frame_key",
        "gate",
        "subscription",
    )

    def __init__(
        self, client: Client, subscription: Subscription, plan: QueuePlan, router: Router, gate: Gate | None
    ) -> None:
        self.subscription = subscription
        self.frame_key = frame_key(subscription, client, gate is not None)
        self.gate = gate
        self._tracked = subscription.ack is not AckMode.AUTO
        self.delivered = 0
        """Messages that were written to the client."""
        self._client = client
        self._plan = plan
        self._router = router
        self._consumer: QueueConsumer | None = None
        self._history: QueueHistory | None = None
        # The history's name.
        self._place = ""
        # Before the gate.
        self._asked: dict[Copy, None] = {}
        # Written, and to be acknowledged in one go at the end of this turn of the loop.
        self._acks: list[Copy] = []
        self._flushing = False

    @property
    def waiting(self) -> int:
        return len(self._asked)

    @property
    def prefetch(self) -> int | None:
        return self._plan.prefetch

    @property
    def spec(self) -> QueueSpec:
        """The queue."""
        return self._plan.spec

    def start(self, done: Done) -> None:
        def started(result: QueueConsumer | Failure) -> None:
            done(result if isinstance(result, Failure) else None)

        plan = self._plan
        self._consumer = self._router.queues.consume(self._client, plan.spec, plan.prefetch, self, started)

    def stop(self, unacknowledged: Sequence[Delivery], in_doubt: bool, done: Done | None = None) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        self._flush()
        if self.gate is not None:
            self.gate.close()
            if not in_doubt:
                _unlock(delivery.token for delivery in unacknowledged)
        for asked in self._asked:
            self._give_back(asked)
        for delivery in unacknowledged:
            copy = delivery.token
            assert isinstance(copy, Copy)
            self._give_back(copy)
        self._router.queues.cancel(consumer, self, done)

    def on_queue_message(self, message: Message, tag: int) -> None:
        consumer = self._consumer
        assert consumer is not None
        client = self._client
        if client.leaving or client.connection.reason is not None:
            # What is not admitted goes back with the end of the consumer.
            return
        if not self._place:
            self._place = consumer.queue
            if "x-stream-offset" in message.headers:
                # Every consumer of a stream reads all of it, from where it says.
                self._place = f"{consumer.queue} {self._client.sender_id} {self.subscription.tag}"
                self.gate = None
        # Asked for each time: one that nothing was heard of for long has been forgotten.
        self._history = self._router.history(self._place)
        copy = Copy(consumer, tag, message)
        if not self._history.admit(copy):
            return
        if self.gate is None:
            self._offer(copy, message)
        else:
            self._asked[copy] = None
            self.gate.ask(message, partial(self._granted, copy), partial(self._already_has, copy))

    def _granted(self, copy: Copy, message: Message, lock: Lock | None) -> None:
        if self._client.leaving or self._client.connection.reason is not None:
            # What would be written now is lost, or not acknowledged in time. It goes back with the end of the consumer.
            if lock is not None:
                lock.release()
            return
        del self._asked[copy]
        copy.lock = lock
        self._offer(copy, message)

    def _already_has(self, copy: Copy) -> None:
        del self._asked[copy]
        assert self._history is not None
        self._history.commit(copy)
        copy.consumer.ack((copy.tag,))

    def _offer(self, copy: Copy, message: Message) -> None:
        client, history = self._client, self._history
        assert history is not None
        frame, ack_id = self._router.hub.encode(self.frame_key, message)
        if self._tracked:
            if client.hold_unacked(self.subscription, ack_id, copy):
                self.delivered += 1
                client.messages_out += 1
                client.connection.write(frame)
            else:
                self._give_back(copy)
                if copy.lock is not None:
                    copy.lock.release()
            return
        self.delivered += 1
        client.messages_out += 1
        client.connection.write(frame)
        history.commit(copy)
        if copy.lock is not None:
            copy.lock.commit()
        self._acks.append(copy)
        if not self._flushing and not client.connection.writing_paused:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _give_back(self, copy: Copy) -> None:
        """At the end of the consumer: the next copy is passed on to whoever gets it."""
        assert self._history is not None
        self._history.release(copy)
        if copy.consumer is not self._consumer:
            # Its newest copy came through another subscription's consumer, which goes on.
            copy.consumer.nack((copy.tag,), requeue=True)

    def on_queue_restored(self) -> None:
        """Tags given before are void: what was written is recognised in its history when it comes again."""
        self._acks.clear()

    def on_queue_cancelled(self, failure: Failure | None) -> None:
        self._client.subscription_ended(self)

    def settle(self, deliveries: Sequence[Delivery], ack: bool, requeue: bool, settling: Settling) -> None:
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
            if copy.lock is None:
                continue
            if ack or not requeue:
                copy.lock.commit(settling.begin())
            else:
                copy.lock.release(settling.begin())
        for consumer, tags in by_consumer.items():
            if ack:
                consumer.ack(tags)
            else:
                consumer.nack(tags, requeue)

    def on_writable(self) -> None:
        self._flush()

    def on_check(self) -> None:
        if self.gate is not None:
            self.gate.retry()

    def _flush(self) -> None:
        self._flushing = False
        if self._acks and self._consumer is not None:
            tags = [copy.tag for copy in self._acks]
            self._acks.clear()
            self._consumer.ack(tags)


def _nothing() -> None:
    """A mailbox has nothing to settle."""


def _unlock(tokens: Iterable[object]) -> None:
    """Gives up the claims on messages that a client holds: it does not want them any more."""
    for held in tokens:
        assert isinstance(held, Held | Copy)
        if held.lock is not None:
            held.lock.release()


def make_receiver(client: Client, subscription: Subscription, taken: Set[str]) -> SubscriptionReceiver:
    """The receiver for a subscription's destination. ``taken`` are the scopes of the client's other subscriptions.

    Raises :class:`~stompbridge.stomp.errors.StompError` where it can not be subscribed to.
    """
    router = client.router
    plan = router.plan(subscription, client)
    if isinstance(plan, MailboxPlan):
        gate = None if plan.exchange == INTERNAL else _make_gate(client, _own_scope(subscription, taken))
        return MailboxReceiver(client, subscription, plan, router.hub_of(plan), gate)
    spec = plan.spec
    # Each message of a queue that has a name goes to one of its consumers, so that they have one history.
    scope = _own_scope(subscription, taken) if spec.delete_on_failure else f"queue {spec.name}"
    return QueueReceiver(client, subscription, plan, router, _make_gate(client, scope, plan.prefetch))


def queue_to_delete(receiver: SubscriptionReceiver, headers: Mapping[str, str]) -> QueueSpec | None:
    """The queue that goes with the end of a subscription: that of a durable one to a ``/topic``, where the headers of
    the UNSUBSCRIBE say ``durable`` or ``persistent``, as in RabbitMQ's plugin."""
    if not isinstance(receiver, QueueReceiver) or not asks_durable(headers):
        return None
    return receiver.spec if receiver.subscription.destination.startswith("/topic/") else None


def _own_scope(subscription: Subscription, taken: Set[str]) -> str:
    """The n-th subscription to a destination: each of them has a right to the message. Not by its id, which may be
    another in the client's next session."""
    numbered = (f"{number} {subscription.destination}" for number in count())
    return next(scope for scope in numbered if scope not in taken)


def _make_gate(client: Client, scope: str, at_least: int = 0) -> Gate | None:
    """The way to the client's history; None for a client without a name. ``at_least`` so many messages may wait."""
    if client.named is None:
        return None
    limit = max(client.shared.limits.backlog, at_least)

    def overflow() -> None:
        client.fail(slow_consumer(f"{limit} messages wait for the deduplication store"))

    return Gate(client.named, scope, client.shared.idempotence, limit, overflow)
