from __future__ import annotations

import asyncio

import pytest

from stompbridge.brokers.base import Broker, Failure, Message, QueueSpec
from stompbridge.brokers.memory import MemoryBroker
from stompbridge.config import BrokerSettings, Exchange
from tests.brokers.conformance import BrokerConformance, Calls, Inbox, MakeBroker, News


class TestMemoryBroker(BrokerConformance):
    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        return lambda exchanges: MemoryBroker(BrokerSettings(), exchanges)


def broker_of(memory: int) -> MemoryBroker:
    return MemoryBroker(BrokerSettings(memory_max_bytes=memory, exchange=(Exchange(name="e"),)))


async def test_up_from_start_on() -> None:
    broker: Broker = broker_of(0)
    assert not broker.up
    await broker.start(News())
    assert (broker.up, broker.down_reason) == (True, "")


def test_exchanges() -> None:
    extra = [Exchange(name="amq.topic", type="fanout"), Exchange(name="e", type="fanout"), Exchange(name="f")]
    broker = MemoryBroker(BrokerSettings(exchange=(Exchange(name="e", type="direct"),)), extra)
    names = ("", "e", "f", "amq.topic", "amq.match", "x")
    assert [broker.exchange_type(name) for name in names] == ["direct", "direct", "topic", "topic", "headers", None]


async def test_memory_is_bounded() -> None:
    broker = broker_of(20_000)
    calls = Calls(broker)
    assert await calls.declare(QueueSpec("a", bindings=(("e", "#"),))) is None
    assert await calls.declare(QueueSpec("b", bindings=(("e", "#"),))) is None
    full = Failure("rejected", "the embedded broker's memory is full", fatal=False)
    assert await calls.publish("e", "k", bytes(10_000)) == full
    assert broker.rejected == 1
    assert broker.held_bytes == 2048
    assert await calls.publish("", "a", bytes(10_000)) is None
    assert await calls.publish("", "a", bytes(10_000)) == full
    assert await calls.send(Message("", "a", b"", {"h": "v" * 10_000})) == full
    assert broker.rejected == 3
    assert broker.counters() == {"published": 4, "confirmed": 1, "nacked": 3, "unroutable": 0}
    assert broker.gauges() == {"stored_bytes": broker.held_bytes}
    inbox = Inbox()
    consumer = await calls.consume(QueueSpec("a", declare=False), inbox)
    _, tag = await inbox.next()
    consumer.ack((tag,))
    assert broker.held_bytes == 2048
    assert await calls.publish("", "a", bytes(10_000)) is None


async def test_queues_cost_memory() -> None:
    broker = broker_of(2048)
    calls = Calls(broker)
    assert await calls.declare(QueueSpec("a")) is None
    assert await calls.declare(QueueSpec("b")) is None
    full = Failure("resource_error", "RESOURCE_ERROR - the embedded broker's memory is full", fatal=False)
    assert await calls.declare(QueueSpec("c")) == full
    assert await calls.refused(QueueSpec("c")) == full


async def test_a_deleted_queue_frees_its_memory() -> None:
    broker = broker_of(100_000)
    calls = Calls(broker)
    inbox = Inbox()
    spec = QueueSpec("a", auto_delete=True, bindings=(("e", "k"), ("e", "#")))
    consumer = await calls.consume(spec, inbox, prefetch=2)
    for _ in range(5):
        assert await calls.send(Message("e", "k", b"x", {"number": 5, "text": "abc"})) is None
    tags = [(await inbox.next())[1] for _ in range(2)]
    consumer.nack(tags[:1], requeue=True)
    consumer.cancel()
    assert broker.held_bytes == 0
    assert await calls.publish("e", "k") is None
    assert broker.unroutable == 1


async def test_an_exclusive_queue_goes_when_it_is_deleted() -> None:
    broker = broker_of(100_000)
    calls = Calls(broker)
    consumer = await calls.consume(QueueSpec("a", durable=False, exclusive=True), Inbox())
    failure = await calls.refused(QueueSpec("a", durable=False, exclusive=False))
    assert failure.code == "resource_locked"
    assert failure.text.startswith("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'a' in vhost '/'.")
    await calls.cancel(consumer)
    assert broker.held_bytes > 0
    assert await calls.delete(QueueSpec("a", durable=False, exclusive=True)) is None
    assert broker.held_bytes == 0


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (QueueSpec("q", durable=False), "'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'"),
        (
            QueueSpec("q", auto_delete=True),
            "'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            QueueSpec("q"),
            "'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5' of type 'long'",
        ),
        (
            QueueSpec("q", arguments={"x-max-length": 5, "x-queue-type": "quorum"}),
            "'x-queue-type' for queue 'q' in vhost '/': received the value 'quorum' of type 'longstr' "
            "but current is none",
        ),
    ],
)
async def test_another_declaration_in_words(spec: QueueSpec, text: str) -> None:
    calls = Calls(broker_of(100_000))
    assert await calls.declare(QueueSpec("q", arguments={"x-max-length": 5})) is None
    assert await calls.declare(spec) == Failure(
        "precondition_failed", f"PRECONDITION_FAILED - inequivalent arg {text}", fatal=True
    )


async def test_the_mailbox_is_not_bound_to_the_default_exchange() -> None:
    assert await Calls(broker_of(0)).bind("", "k") == Failure(
        "access_refused", "ACCESS_REFUSED - operation not permitted on the default exchange", fatal=True
    )


async def test_mailbox_messages_come_inside_publish() -> None:
    broker, news = broker_of(0), News()
    await broker.start(news)
    broker.bind("e", "k", lambda failure: None)
    broker.publish(Message("e", "k", bytes(10_000)), lambda failure: None)
    assert news.messages.qsize() == 1
    assert broker.unroutable == 0


async def test_a_long_queue_leaves_the_loop_to_others() -> None:
    broker = broker_of(10_000_000)
    calls = Calls(broker)
    inbox = Inbox()
    await calls.consume(QueueSpec("q"), inbox, prefetch=0)
    for _ in range(1000):
        broker.publish(Message("", "q", b""), lambda failure: None)
    assert inbox.messages.empty()
    turns = []
    while inbox.messages.qsize() < 1000:
        before = inbox.messages.qsize()
        await asyncio.sleep(0)
        turns.append(inbox.messages.qsize() - before)
    assert max(turns) == 100


async def test_stop_forgets_everything() -> None:
    broker, news = broker_of(100_000), News()
    await broker.start(news)
    calls = Calls(broker)
    inbox = Inbox()
    assert await calls.bind("e", "k") is None
    consumer = await calls.consume(QueueSpec("q", auto_delete=True), inbox, prefetch=1)
    for _ in range(3):
        assert await calls.publish("", "q") is None
    _, tag = await inbox.next()
    await broker.stop()
    assert not broker.up
    assert broker.down_reason == "the embedded broker is stopped"
    assert broker.held_bytes == 0
    assert await calls.publish("e", "k") is None
    assert news.messages.empty()
    consumer.ack((tag,))
    await calls.cancel(consumer)
    assert broker.held_bytes == 0
