"""What a process knows of the messages of a queue: held by a live session, or done with.

RabbitMQ delivers a message again when the link that it was delivered over is lost before its acknowledgement got
through. What a session here still holds must not be sent a second time, nor what a client has acknowledged.
"""

from __future__ import annotations

from time import monotonic

from stompbridge.brokers.base import Message, QueueConsumer
from stompbridge.dedup.store import Lock
from stompbridge.dedup.window import Verdict
from stompbridge.routing.identity import Identity, identity_of
from stompbridge.routing.seen import Seen


class Copy:
    """One unsettled message of a queue and the newest place to settle it: a consumer and its delivery tag.

    ``lock`` is the claim of a named receiver on it.
    """

    __slots__ = ("consumer", "identity", "lock", "message", "tag")

    def __init__(self, consumer: QueueConsumer, tag: int, message: Message) -> None:
        self.consumer = consumer
        self.tag = tag
        self.message = message
        self.identity = identity_of(message)
        self.lock: Lock | None = None


class QueueHistory:
    """The messages of one queue that went through this process. Shared by all of its consumers here."""

    __slots__ = ("_held", "_seen", "in_doubt", "suppressed")

    def __init__(self, window: int, history_ttl: float) -> None:
        self._seen = Seen(window, history_ttl)
        self._held: dict[Identity, Copy] = {}
        self.suppressed = 0
        self.in_doubt = 0

    def admit(self, copy: Copy) -> bool:
        """Whether a delivery is to be passed on. A copy of a held message only takes over its place to be settled;
        one of a finished message is settled at once."""
        identity = copy.identity
        if identity is None:
            return True
        held = self._held.get(identity)
        if held is not None:
            held.consumer, held.tag = copy.consumer, copy.tag
            self.suppressed += 1
            return False
        verdict = self._seen.check(identity)
        if verdict is Verdict.DUPLICATE:
            self.suppressed += 1
            copy.consumer.ack((copy.tag,))
            return False
        if verdict is Verdict.TOO_OLD and copy.message.redelivered:
            self.in_doubt += 1
        self._held[identity] = copy
        return True

    def commit(self, copy: Copy) -> None:
        """The receiver is done with the message; later copies are suppressed."""
        if copy.identity is not None:
            self._held.pop(copy.identity, None)
            self._seen.record(copy.identity, monotonic())

    def release(self, copy: Copy) -> None:
        """The receiver gave the message back; the next copy is passed on."""
        if copy.identity is not None:
            self._held.pop(copy.identity, None)

    def sweep(self, now: float) -> bool:
        """Forgets what is over its time; True when nothing is left to remember."""
        self._seen.sweep(now)
        return not self._held and not len(self._seen)
