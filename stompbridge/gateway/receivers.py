"""The subscriptions of one client, by their tags, and what they hold unacknowledged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from stompbridge.gateway.gate import Settling
from stompbridge.gateway.subscriptions import QueueReceiver, SubscriptionReceiver
from stompbridge.stomp.session import Delivery, ServerSession, Settle


class Receivers:
    """What serves the subscriptions of ``session``. Where a method is told of ``replay``, these are the events of a
    transaction that is being committed: what their acknowledgements name counts as acknowledged for the session, and
    is not settled yet."""

    __slots__ = ("_by_tag", "_session")

    def __init__(self, session: ServerSession) -> None:
        self._session = session
        self._by_tag: dict[str, SubscriptionReceiver] = {}

    def __len__(self) -> int:
        return len(self._by_tag)

    def __iter__(self) -> Iterator[SubscriptionReceiver]:
        return iter(self._by_tag.values())

    def get(self, tag: str) -> SubscriptionReceiver | None:
        """What serves the subscription with this tag."""
        return self._by_tag.get(tag)

    def add(self, receiver: SubscriptionReceiver) -> None:
        """One more subscription, which the session knows of."""
        self._by_tag[receiver.subscription.tag] = receiver

    def pop(self, tag: str) -> SubscriptionReceiver:
        """Takes one out, which goes on as it is."""
        return self._by_tag.pop(tag)

    @property
    def scopes(self) -> set[str]:
        """Those of their gates."""
        return {receiver.gate.scope for receiver in self if receiver.gate is not None}

    @property
    def waiting(self) -> int:
        """Messages that wait behind a ``prefetch-count``, or for the deduplication store."""
        return sum(receiver.waiting for receiver in self)

    @property
    def consuming(self) -> bool:
        """Whether any has a consumer of its own."""
        return any(isinstance(receiver, QueueReceiver) for receiver in self)

    def on_writable(self) -> None:
        """The client reads again."""
        for receiver in list(self):
            receiver.on_writable()

    def on_check(self) -> None:
        """Comes once a sweep to a client that has named itself."""
        for receiver in list(self):
            receiver.on_check()

    def settle(self, event: Settle, settling: Settling) -> None:
        """The client's ACK or NACK, to each subscription that it is about."""
        for tag, deliveries in _by_tag(event.deliveries).items():
            receiver = self._by_tag.get(tag)
            if receiver is not None:
                receiver.settle(deliveries, event.ack, event.requeue, settling)

    def drop(self, receiver: SubscriptionReceiver, replay: Iterable[object]) -> None:
        """Ends a subscription without the client's asking, and what it holds goes back."""
        tag = receiver.subscription.tag
        self._by_tag.pop(tag, None)
        waiting = _by_tag(_waiting_to_settle(replay)).get(tag, ())
        receiver.stop([*self._session.forget(tag), *waiting], in_doubt=False)

    def stop(self, replay: Iterable[object]) -> None:
        """The session ends: so do all of them, and it is in doubt whether the client has seen what goes back."""
        held = _by_tag(chain(self._session.unacked.values(), _waiting_to_settle(replay)))
        receivers, self._by_tag = self._by_tag, {}
        for tag, receiver in receivers.items():
            receiver.stop(held.get(tag, ()), in_doubt=True)


def _by_tag(deliveries: Iterable[Delivery]) -> dict[str, list[Delivery]]:
    by_tag: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        by_tag.setdefault(delivery.subscription.tag, []).append(delivery)
    return by_tag


def _waiting_to_settle(replay: Iterable[object]) -> Iterator[Delivery]:
    for event in replay:
        if isinstance(event, Settle):
            yield from event.deliveries
