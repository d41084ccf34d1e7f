"""What a process knows of the messages of a queue: held by a live session, or done with.

RabbitMQ delivers a message again when the link that it was delivered over is lost before its acknowledgement got
through. What a session here still holds must not be sent a second time, nor what a client has acknowledged.
"""

from __future__ import annotations

from time import monotonic

from stompbridge.brokers.base import Message, QueueConsumer
from stompbridge.dedup.window import SenderWindows, Verdict


class Copy:
    """One unsettled message of a queue and the newest place to settle it: a consumer and its delivery tag."""

    __slots__ = ("consumer", "message", "tag")

    def __init__(self, consumer: QueueConsumer, tag: int, message: Message) -> None:
        self.consumer = consumer
        self.tag = tag
        self.message = message


class QueueHistory:
    """The messages of one queue that went through this process. Shared by all of its consumers here."""

    __slots__ = ("_held", "_windows", "in_doubt", "suppressed")

    def __init__(self, window: int, history_ttl: float) -> None:
        self._windows = SenderWindows(window, history_ttl)
        self._held: dict[tuple[str, int], Copy] = {}
        self.suppressed = 0
        self.in_doubt = 0

    def admit(self, copy: Copy) -> bool:
        """Whether a delivery is to be passed on. A copy of a held message only takes over its place to be settled;
        one of a finished message is settled at once."""
        message = copy.message
        if message.sender is None or "x-death" in message.headers:
            return True
        identity = (message.sender, message.seq)
        held = self._held.get(identity)
        if held is not None:
            held.consumer, held.tag = copy.consumer, copy.tag
            self.suppressed += 1
            return False
        verdict = self._windows.check(message.sender, message.seq)
        if verdict is Verdict.DUPLICATE:
            self.suppressed += 1
            copy.consumer.ack((copy.tag,))
            return False
        if verdict is Verdict.TOO_OLD and message.redelivered:
            self.in_doubt += 1
        self._held[identity] = copy
        return True

    def commit(self, copy: Copy) -> None:
        """The receiver is done with the message; later copies are suppressed."""
        message = copy.message
        if message.sender is not None:
            self._held.pop((message.sender, message.seq), None)
            self._windows.record(message.sender, message.seq, monotonic())

    def release(self, copy: Copy) -> None:
        """The receiver gave the message back; the next copy is passed on."""
        message = copy.message
        if message.sender is not None:
            self._held.pop((message.sender, message.seq), None)

    def sweep(self, now: float) -> bool:
        """Forgets senders that have been silent; True when nothing is left to remember."""
        self._windows.sweep(now)
        return not self._held and not len(self._windows)
