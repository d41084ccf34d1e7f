"""The embedded broker: exchanges, queues and bindings of one process, gone when it ends.

It behaves as RabbitMQ does towards the rest of the program, but for what needs time or other nodes: nothing expires,
nothing is dead-lettered, and a queue's ``x-`` arguments are remembered without effect.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from stompbridge.brokers.base import (
    BrokerListener,
    Done,
    Failure,
    Message,
    QueueConsumer,
    QueueListener,
    QueueSpec,
)
from stompbridge.brokers.queues import QUEUE_SIZE, Budget, MemoryConsumer, MemoryQueue, failure_of_declare, size_of
from stompbridge.brokers.topics import TopicTrie
from stompbridge.config import BrokerSettings, Exchange
from stompbridge.histogram import Latency

_BATCH = 100
"""Messages that a queue hands out in one turn of the loop."""

_STANDARD = {
    "amq.topic": "topic",
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
}


class _Binding:
    """Who gets the messages of one key: queues, and the process's own mailbox."""

    __slots__ = ("mailbox", "queues")

    def __init__(self) -> None:
        self.queues: dict[MemoryQueue, None] = {}
        self.mailbox = False


class _Exchange:
    """The bindings of one exchange. A binding to a headers exchange asks for no header, so every message matches."""

    __slots__ = ("_bindings", "_topics", "type")

    def __init__(self, type_: str) -> None:
        self.type = type_
        self._bindings: dict[str, _Binding] = {}
        self._topics = TopicTrie(_Binding) if type_ == "topic" else None

    def match(self, key: str) -> Iterable[_Binding]:
        if self._topics is not None:
            return self._topics.match(key)
        if self.type == "direct":
            binding = self._bindings.get(key)
            return () if binding is None else (binding,)
        return self._bindings.values()

    def binding(self, key: str) -> _Binding:
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._topics.node(key) if self._topics is not None else _Binding()
            self._bindings[key] = binding
        return binding

    def unbind(self, key: str, queue: MemoryQueue | None = None) -> None:
        """Takes back the binding of a queue, or the mailbox's."""
        binding = self._bindings.get(key)
        if binding is None:
            return
        if queue is None:
            binding.mailbox = False
        else:
            binding.queues.pop(queue, None)
        if not binding.mailbox and not binding.queues:
            del self._bindings[key]
            if self._topics is not None:
                self._topics.remove(key)


class MemoryBroker:
    """A :class:`~stompbridge.brokers.base.Broker` in the process.

    It has the ``amq.*`` exchanges, those of ``settings`` and ``exchanges``. ``rejected`` counts publishes that did
    not fit into ``memory_max_bytes``, ``unroutable`` those that no queue or mailbox wanted.
    """

    def __init__(
        self, settings: BrokerSettings, exchanges: Iterable[Exchange] = (), latency: Latency | None = None
    ) -> None:
        self._exchanges = {name: _Exchange(type_) for name, type_ in _STANDARD.items()}
        for exchange in (*settings.exchange, *exchanges):
            self._exchanges.setdefault(exchange.name, _Exchange(exchange.type))
        self._queues: dict[str, MemoryQueue] = {}
        self._budget = Budget(settings.memory_max_bytes)
        self._listener: BrokerListener | None = None
        self._scheduled: set[MemoryQueue] = set()
        self._latency = Latency() if latency is None else latency
        self.published = 0
        self.rejected = 0
        self.unroutable = 0

    @property
    def up(self) -> bool:
        """True from start to stop."""
        return self._listener is not None

    @property
    def down_reason(self) -> str:
        """Empty while it runs."""
        return "" if self.up else "the embedded broker is stopped"

    @property
    def user(self) -> str | None:
        """Nobody: who sent a message is for the router to say."""
        return None

    @property
    def congested(self) -> bool:
        """Never: what does not fit is rejected."""
        return False

    @property
    def virtual_host(self) -> str:
        """There is one."""
        return "/"

    @property
    def held_bytes(self) -> int:
        """About what the queues and their messages take."""
        return self._budget.used

    def counters(self) -> Mapping[str, int]:
        return {
            "published": self.published,
            "confirmed": self._latency.publish.count,
            "nacked": self.rejected,
            "unroutable": self.unroutable,
        }

    def gauges(self) -> Mapping[str, int]:
        return {"stored_bytes": self.held_bytes}

    def when_clear(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    async def start(self, listener: BrokerListener) -> None:
        """Is up at once, and says so in the next turn of the loop."""
        self._listener = listener
        asyncio.get_running_loop().call_soon(listener.on_broker_up)

    async def stop(self) -> None:
        """Forgets all queues and what is in them."""
        self._listener = None
        for queue in list(self._queues.values()):
            self._delete(queue)

    def exchange_type(self, exchange: str) -> str | None:
        """The type of an exchange that exists; the default exchange is a direct one."""
        if not exchange:
            return "direct"
        found = self._exchanges.get(exchange)
        return None if found is None else found.type

    def publish(self, message: Message, done: Done) -> None:
        """Hands the message to mailbox and queues, and calls ``done`` inside."""
        began = time.monotonic()
        self.published += 1
        if not message.exchange:
            queue = self._queues.get(message.routing_key)
            if queue is None:
                done(Failure("no_route", f"NO_ROUTE - no queue '{message.routing_key}' in vhost '/'", fatal=False))
            elif self._push(message, (queue,), done):
                done(None)
                self._latency.publish.observe(time.monotonic() - began)
            return
        exchange = self._exchanges.get(message.exchange)
        if exchange is None:
            done(_no_exchange(message.exchange))
            return
        mailbox = False
        queues: dict[MemoryQueue, None] = {}
        for binding in exchange.match(message.routing_key):
            mailbox = mailbox or binding.mailbox
            queues.update(binding.queues)
        if queues and not self._push(message, queues, done):
            return
        if mailbox and self._listener is not None:
            self._listener.on_mailbox_messages(message.exchange, (message,))
            self._latency.delivery.observe(time.monotonic() - began)
        elif not queues:
            self.unroutable += 1
        done(None)
        self._latency.publish.observe(time.monotonic() - began)

    def bind(self, exchange: str, key: str, done: Done) -> None:
        """Calls ``done`` inside."""
        failure = self._failure_of_bind(exchange)
        if failure is None:
            self._exchanges[exchange].binding(key).mailbox = True
        done(failure)

    def unbind(self, exchange: str, key: str) -> None:
        found = self._exchanges.get(exchange)
        if found is not None:
            found.unbind(key)

    def declare_queue(self, spec: QueueSpec, done: Done) -> None:
        """Makes a queue without consuming from it; ``done`` is called in the next turn of the loop."""
        queue = self._declare(spec)
        asyncio.get_running_loop().call_soon(done, queue if isinstance(queue, Failure) else None)

    def delete_queue(self, spec: QueueSpec, done: Done) -> None:
        """Its consumers are told; ``done`` is called in the next turn of the loop."""
        queue = self._queues.get(spec.name)
        if queue is not None and not (spec.exclusive and failure_of_declare(queue, spec)):
            listeners = queue.listeners()
            self._delete(queue)
            for listener in listeners:
                listener.on_queue_cancelled(None)
        asyncio.get_running_loop().call_soon(done, None)

    def consume(
        self, spec: QueueSpec, prefetch: int, listener: QueueListener, done: Callable[[QueueConsumer | Failure], None]
    ) -> QueueConsumer:
        """Calls ``done`` inside; messages follow in later turns of the loop. ``prefetch`` 0 is without limit."""
        queue = self._declare(spec)
        if isinstance(queue, Failure):
            done(queue)
            return MemoryConsumer(spec.name, None, prefetch, listener)
        consumer = MemoryConsumer(queue.spec.name, queue, prefetch, listener)
        queue.add(consumer)
        done(consumer)
        return consumer

    def _push(self, message: Message, queues: Iterable[MemoryQueue], done: Done) -> bool:
        """Puts the message into all queues, or, with the failure told, into none."""
        targets = tuple(queues)
        size = size_of(message)
        if not self._budget.fits(size * len(targets)):
            self.rejected += 1
            done(Failure("rejected", "the embedded broker's memory is full", fatal=False))
            return False
        for queue in targets:
            queue.push(message, size)
        return True

    def _declare(self, spec: QueueSpec) -> MemoryQueue | Failure:
        queue = self._queues.get(spec.name)
        if not spec.declare:
            return Failure("not_found", f"NOT_FOUND - no queue '{spec.name}' in vhost '/'") if queue is None else queue
        for exchange, _ in spec.bindings:
            failure = self._failure_of_bind(exchange)
            if failure is not None:
                return failure
        if queue is not None and spec.reuse:
            return queue
        if queue is None:
            created = self._create(spec)
            if isinstance(created, Failure):
                return created
            queue = created
        else:
            failure = failure_of_declare(queue, spec)
            if failure is not None:
                return failure
        for exchange, key in spec.bindings:
            self._exchanges[exchange].binding(key).queues[queue] = None
            queue.bindings.add((exchange, key))
        return queue

    def _create(self, spec: QueueSpec) -> MemoryQueue | Failure:
        if spec.name.startswith("amq."):
            return Failure(
                "access_refused",
                f"ACCESS_REFUSED - queue name '{spec.name}' contains reserved prefix 'amq.*'",
            )
        if not self._budget.fits(QUEUE_SIZE):
            return Failure("resource_error", "RESOURCE_ERROR - the embedded broker's memory is full", fatal=False)
        if not spec.name:
            spec = replace(spec, name="amq.gen-" + secrets.token_urlsafe(16))
        queue = self._queues[spec.name] = MemoryQueue(spec, self._budget, self._wake, self._delete)
        return queue

    def _delete(self, queue: MemoryQueue) -> None:
        del self._queues[queue.spec.name]
        for exchange, key in queue.bindings:
            self._exchanges[exchange].unbind(key, queue)
        queue.drop()

    def _failure_of_bind(self, exchange: str) -> Failure | None:
        if not exchange:
            return Failure("access_refused", "ACCESS_REFUSED - operation not permitted on the default exchange")
        return None if exchange in self._exchanges else _no_exchange(exchange)

    def _wake(self, queue: MemoryQueue) -> None:
        if queue not in self._scheduled:
            self._scheduled.add(queue)
            asyncio.get_running_loop().call_soon(self._deliver, queue)

    def _deliver(self, queue: MemoryQueue) -> None:
        """Hands out what a queue has. Always in a turn of its own: a listener that acknowledges or publishes at once
        does not nest, and a long queue does not hold up the loop."""
        self._scheduled.discard(queue)
        if queue.deliver(_BATCH):
            self._wake(queue)


def _no_exchange(exchange: str) -> Failure:
    return Failure("not_found", f"NOT_FOUND - no exchange '{exchange}' in vhost '/'")
