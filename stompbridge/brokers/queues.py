"""The queues of the embedded broker: messages in order, consumers in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush

from stompbridge.brokers.base import Done, Failure, Message, QueueListener, QueueSpec

QUEUE_SIZE = 1024
"""Bytes that a queue itself is counted with."""

_MESSAGE_SIZE = 512
_VALUE_SIZE = 64


def size_of(message: Message) -> int:
    """About how many bytes a queued message takes."""
    size = _MESSAGE_SIZE + len(message.body)
    for name, value in message.headers.items():
        size += len(name) + (len(value) if isinstance(value, str | bytes) else _VALUE_SIZE)
    return size


class Budget:
    """The memory that all queues share: ``used`` of ``limit`` bytes."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def fits(self, size: int) -> bool:
        return self.used + size <= self.limit


class _Entry:
    """A message in a queue and its place there."""

    __slots__ = ("message", "position", "size")

    def __init__(self, position: int, message: Message, size: int) -> None:
        self.position = position
        self.message = message
        self.size = size


class MemoryQueue:
    """One queue. ``on_ready`` is told when it may have something to hand out, ``on_unused`` when its last consumer
    has gone and it is to go, too."""

    __slots__ = (
        "_budget",
        "_consumers",
        "_fresh",
        "_idle",
        "_on_ready",
        "_on_unused",
        "_position",
        "_returned",
        "bindings",
        "spec",
    )

    def __init__(
        self,
        spec: QueueSpec,
        budget: Budget,
        on_ready: Callable[[MemoryQueue], None],
        on_unused: Callable[[MemoryQueue], None],
    ) -> None:
        self.spec = spec
        self.bindings: set[tuple[str, str]] = set()
        self._budget = budget
        self._on_ready = on_ready
        self._on_unused = on_unused
        self._fresh: deque[_Entry] = deque()
        # What came back stood in front of everything that was never handed out.
        self._returned: list[tuple[int, _Entry]] = []
        self._position = 0
        self._consumers: set[MemoryConsumer] = set()
        self._idle: OrderedDict[MemoryConsumer, None] = OrderedDict()
        budget.used += QUEUE_SIZE

    def push(self, message: Message, size: int) -> None:
        """Adds a message at the end."""
        self._budget.used += size
        self._fresh.append(_Entry(self._position, message, size))
        self._position += 1
        if self._idle:
            self._on_ready(self)

    def deliver(self, limit: int) -> bool:
        """Hands out up to ``limit`` messages. True when there may be more to hand out at once."""
        for _ in range(limit):
            if not self._idle or not (self._returned or self._fresh):
                return False
            consumer, _ = self._idle.popitem(last=False)
            entry = heappop(self._returned)[1] if self._returned else self._fresh.popleft()
            consumer.take(self, entry)
        return True

    def add(self, consumer: MemoryConsumer) -> None:
        self._consumers.add(consumer)
        self.offer(consumer)

    def remove(self, consumer: MemoryConsumer) -> None:
        """Takes a consumer away whose messages have been settled or given back."""
        self._consumers.discard(consumer)
        self._idle.pop(consumer, None)
        if not self._consumers and self.spec.auto_delete:
            self._on_unused(self)

    def offer(self, consumer: MemoryConsumer) -> None:
        """Lines up a consumer that can take a message."""
        if consumer not in self._idle:
            self._idle[consumer] = None
            if self._returned or self._fresh:
                self._on_ready(self)

    def give_back(self, entry: _Entry) -> None:
        """Puts a message back where it was."""
        if not entry.message.redelivered:
            entry.message = replace(entry.message, redelivered=True)
        heappush(self._returned, (entry.position, entry))
        if self._idle:
            self._on_ready(self)

    def forget(self, entry: _Entry) -> None:
        self._budget.used -= entry.size

    def listeners(self) -> list[QueueListener]:
        """Who stands behind its consumers."""
        return [consumer.listener for consumer in self._consumers]

    def drop(self) -> None:
        """Lets go of all messages and consumers, and of their memory."""
        for consumer in self._consumers:
            for entry in consumer.detach():
                self.forget(entry)
        for entry in self._fresh:
            self.forget(entry)
        for _, entry in self._returned:
            self.forget(entry)
        self._consumers.clear()
        self._idle.clear()
        self._fresh.clear()
        self._returned.clear()
        self._budget.used -= QUEUE_SIZE


class MemoryConsumer:
    """One consumer: a :class:`~stompbridge.brokers.base.QueueConsumer`. Without a ``queue`` it never came to stand.

    It is lined up at its queue while it can take a message: never with a full ``prefetch``, unless that is 0.
    """

    __slots__ = ("_cancelled", "_prefetch", "_queue", "_tag", "_unacked", "listener", "queue")

    def __init__(self, name: str, queue: MemoryQueue | None, prefetch: int, listener: QueueListener) -> None:
        self.queue = name
        self._queue = queue
        self._prefetch = prefetch
        self.listener = listener
        self._unacked: dict[int, _Entry] = {}
        self._tag = 0

    def take(self, queue: MemoryQueue, entry: _Entry) -> None:
        """Passes a message on. Called by the queue for a consumer that was lined up."""
        self._tag += 1
        tag = self._tag
        self._unacked[tag] = entry
        self._line_up(queue)
        self.listener.on_queue_message(entry.message, tag)

    def ack(self, tags: Sequence[int]) -> None:
        self._settle(tags, requeue=False)

    def nack(self, tags: Sequence[int], requeue: bool) -> None:
        self._settle(tags, requeue)

    def cancel(self, done: Done | None = None) -> None:
        queue = self._queue
        if queue is not None:
            for entry in self.detach():
                queue.give_back(entry)
            queue.remove(self)
        if done is not None:
            asyncio.get_running_loop().call_soon(done, None)

    def detach(self) -> list[_Entry]:
        """Ends it without a word to the queue. Returns what was not acknowledged."""
        self._queue = None
        entries = list(self._unacked.values())
        self._unacked.clear()
        return entries

    def _settle(self, tags: Sequence[int], requeue: bool) -> None:
        queue = self._queue
        if queue is None:
            return
        for tag in tags:
            entry = self._unacked.pop(tag, None)
            if entry is None:
                continue
            if requeue:
                queue.give_back(entry)
            else:
                queue.forget(entry)
        self._line_up(queue)

    def _line_up(self, queue: MemoryQueue) -> None:
        if not self._prefetch or len(self._unacked) < self._prefetch:
            queue.offer(self)


def failure_of_declare(queue: MemoryQueue, spec: QueueSpec) -> Failure | None:
    """Why a queue that exists is not the one that ``spec`` declares, in RabbitMQ's words."""
    where = f"queue '{spec.name}' in vhost '/'"
    has = queue.spec
    if has.exclusive != spec.exclusive:
        return Failure(
            "resource_locked",
            f"RESOURCE_LOCKED - cannot obtain exclusive access to locked {where}. It could be originally declared on "
            "another connection or the exclusive property value does not match that of the original declaration.",
        )
    pairs: list[tuple[str, str, str]] = [
        ("durable", _flag(spec.durable), _flag(has.durable)),
        ("auto_delete", _flag(spec.auto_delete), _flag(has.auto_delete)),
    ]
    for name in sorted({*spec.arguments, *has.arguments}):
        pairs.append((name, _argument(spec.arguments.get(name)), _argument(has.arguments.get(name))))
    for name, received, current in pairs:
        if received != current:
            return Failure(
                "precondition_failed",
                f"PRECONDITION_FAILED - inequivalent arg '{name}' for {where}: "
                f"received {received} but current is {current}",
            )
    return None


def _flag(value: bool) -> str:
    return "'true'" if value else "'false'"


def _argument(value: object) -> str:
    if value is None:
        return "none"
    return f"the value '{value}' of type '{'longstr' if isinstance(value, str) else 'long'}'"
