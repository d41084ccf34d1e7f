"""What every broker must do, asked through the Broker protocol alone.

A test module for a broker derives a class from ``BrokerConformance`` and gives it a ``make_broker`` fixture: a
function of the exchanges to declare that returns a broker which was not started. Names are unique for each test, so
that all may share one server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from secrets import token_hex
from typing import TypeVar

import pytest

from stompbridge.brokers.base import Broker, Failure, Message, QueueConsumer, QueueSpec
from stompbridge.config import Exchange

T = TypeVar("T")

LIMIT = 10
"""Seconds after which something that should happen has not happened."""

MakeBroker = Callable[[tuple[Exchange, ...]], Broker]


async def within(awaitable: asyncio.Future[T]) -> T:
    return await asyncio.wait_for(awaitable, LIMIT)


class News:
    """Listens to a broker."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.messages: asyncio.Queue[tuple[str, Message]] = asyncio.Queue()

    def on_mailbox_messages(self, exchange: str, messages: Sequence[Message]) -> None:
        for message in messages:
            self.messages.put_nowait((exchange, message))

    def on_broker_up(self) -> None:
        self.up.set()

    def on_broker_down(self, reason: str) -> None:
        self.up.clear()

    async def next(self, exchange: str) -> Message:
        """The next message of the mailbox, which must have come through ``exchange``."""
        came_through, message = await asyncio.wait_for(self.messages.get(), LIMIT)
        assert came_through == exchange
        return message


class Inbox:
    """Listens to a queue consumer."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[Message, int]] = asyncio.Queue()
        self.consumer: QueueConsumer | None = None

    def on_queue_message(self, message: Message, tag: int) -> None:
        self.messages.put_nowait((message, tag))

    def on_queue_restored(self) -> None:
        raise AssertionError("the link was not lost")

    def on_queue_cancelled(self, failure: Failure | None) -> None:
        raise AssertionError("the queue was not deleted")

    async def next(self) -> tuple[Message, int]:
        return await asyncio.wait_for(self.messages.get(), LIMIT)

    async def bodies(self, count: int) -> list[bytes]:
        return [(await self.next())[0].body for _ in range(count)]


class Eager(Inbox):
    """Acknowledges at once, inside the call."""

    def on_queue_message(self, message: Message, tag: int) -> None:
        super().on_queue_message(message, tag)
        assert self.consumer is not None
        self.consumer.ack((tag,))


class Calls:
    """A broker's calls as coroutines."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def publish(self, exchange: str, key: str, body: bytes = b"x") -> Failure | None:
        return await self.send(Message(exchange, key, body))

    async def send(self, message: Message) -> Failure | None:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.broker.publish(message, answer.set_result)
        return await within(answer)

    async def bind(self, exchange: str, key: str) -> Failure | None:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.broker.bind(exchange, key, answer.set_result)
        return await within(answer)

    async def declare(self, spec: QueueSpec) -> Failure | None:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.broker.declare_queue(spec, answer.set_result)
        return await within(answer)

    async def delete(self, spec: QueueSpec) -> Failure | None:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.broker.delete_queue(spec, answer.set_result)
        return await within(answer)

    async def consume(self, spec: QueueSpec, inbox: Inbox, prefetch: int = 10) -> QueueConsumer:
        answer: asyncio.Future[QueueConsumer | Failure] = asyncio.get_running_loop().create_future()
        inbox.consumer = self.broker.consume(spec, prefetch, inbox, answer.set_result)
        consumer = await within(answer)
        assert not isinstance(consumer, Failure), consumer
        assert consumer is inbox.consumer
        return consumer

    async def refused(self, spec: QueueSpec) -> Failure:
        answer: asyncio.Future[QueueConsumer | Failure] = asyncio.get_running_loop().create_future()
        consumer = self.broker.consume(spec, 10, Inbox(), answer.set_result)
        failure = await within(answer)
        assert isinstance(failure, Failure)
        consumer.ack((1,))
        await self.cancel(consumer)
        return failure

    async def cancel(self, consumer: QueueConsumer) -> None:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        consumer.cancel(answer.set_result)
        assert await within(answer) is None


class Names:
    """Names of this test's own."""

    def __init__(self) -> None:
        suffix = token_hex(6)
        self.topic = f"topic.{suffix}"
        self.direct = f"direct.{suffix}"
        self.fanout = f"fanout.{suffix}"
        self.headers = f"headers.{suffix}"
        self.missing = f"missing.{suffix}"
        self.queue = f"queue.{suffix}"

    def exchanges(self) -> tuple[Exchange, ...]:
        return (
            Exchange(name=self.topic, type="topic"),
            Exchange(name=self.direct, type="direct"),
            Exchange(name=self.fanout, type="fanout"),
            Exchange(name=self.headers, type="headers"),
        )

    def spec(self, **fields: object) -> QueueSpec:
        """A shared queue that goes with its last consumer."""
        return QueueSpec(**{"name": self.queue, "durable": False, "auto_delete": True, **fields})  # type: ignore[arg-type]


class BrokerConformance:
    """The tests. One failed call must leave the others in peace, so many of them go on after a failure."""

    @pytest.fixture
    def names(self) -> Names:
        return Names()

    @pytest.fixture
    def news(self) -> News:
        return News()

    @pytest.fixture
    async def broker(self, make_broker: MakeBroker, names: Names, news: News) -> AsyncIterator[Broker]:
        broker = make_broker(names.exchanges())
        await broker.start(news)
        await asyncio.wait_for(news.up.wait(), LIMIT)
        yield broker
        await asyncio.wait_for(broker.stop(), LIMIT)

    @pytest.fixture
    def calls(self, broker: Broker) -> Calls:
        return Calls(broker)

    async def test_up(self, broker: Broker, names: Names) -> None:
        assert broker.up
        assert broker.down_reason == ""
        assert not broker.congested
        clear = asyncio.Event()
        broker.when_clear(clear.set)
        assert not clear.is_set()
        await asyncio.wait_for(clear.wait(), LIMIT)

    async def test_exchange_types(self, broker: Broker, names: Names) -> None:
        expected = {
            names.topic: "topic",
            names.direct: "direct",
            names.fanout: "fanout",
            names.headers: "headers",
            "amq.topic": "topic",
            "amq.direct": "direct",
            "amq.fanout": "fanout",
            "amq.headers": "headers",
            names.missing: None,
        }
        assert {name: broker.exchange_type(name) for name in expected} == expected

    async def test_a_message_is_delivered_whole(self, calls: Calls, news: News, names: Names) -> None:
        assert await calls.bind(names.topic, "room.7") is None
        message = Message(
            names.topic,
            "room.7",
            b'{"a":1}\0',
            {"text": "é", "flag": True, "number": -5, "list": ["a", 1], "table": {"x": "y"}},
            content_type="application/json",
            content_encoding="identity",
            delivery_mode=2,
            priority=3,
            correlation_id="c",
            reply_to="r",
            expiration="60000",
            message_id="m",
            timestamp=1_700_000_000,
            type="t",
            app_id="a",
            sender="node.boot.1",
            seq=41,
        )
        assert await calls.send(message) is None
        assert await news.next(names.topic) == message

    async def test_bodies_of_any_size(self, calls: Calls, news: News, names: Names) -> None:
        assert await calls.bind(names.topic, "big") is None
        for body in (b"", b"x", bytes(range(256)) * 2000):
            assert await calls.publish(names.topic, "big", body) is None
            assert (await news.next(names.topic)).body == body

    @pytest.mark.parametrize(
        ("key", "expected"),
        [("a.b", ["a.b"]), ("*.b", ["a.b"]), ("a.#", ["a", "a.b", "a.x", "a.b.c"])],
    )
    async def test_topic_patterns(self, calls: Calls, news: News, names: Names, key: str, expected: list[str]) -> None:
        assert await calls.bind(names.topic, key) is None
        assert await calls.bind(names.topic, "end") is None
        for published in ("a", "a.b", "a.x", "x", "a.b.c", "end"):
            assert await calls.publish(names.topic, published) is None
        for wanted in [*expected, "end"]:
            assert (await news.next(names.topic)).routing_key == wanted

    async def test_one_copy_for_all_keys_that_match(self, calls: Calls, news: News, names: Names) -> None:
        for key in ("a.b", "a.*", "#", "end"):
            assert await calls.bind(names.topic, key) is None
        assert await calls.publish(names.topic, "a.b", b"1") is None
        assert await calls.publish(names.topic, "end", b"2") is None
        assert [(await news.next(names.topic)).body for _ in range(2)] == [b"1", b"2"]

    async def test_direct_keys_have_no_wildcards(self, calls: Calls, news: News, names: Names) -> None:
        for key in ("*", "a", "end"):
            assert await calls.bind(names.direct, key) is None
        for key in ("b", "a", "*", "end"):
            assert await calls.publish(names.direct, key) is None
        assert [(await news.next(names.direct)).routing_key for _ in range(3)] == ["a", "*", "end"]

    async def test_fanout(self, calls: Calls, news: News, names: Names) -> None:
        assert await calls.bind(names.fanout, "a") is None
        assert await calls.publish(names.fanout, "b") is None
        assert (await news.next(names.fanout)).routing_key == "b"

    async def test_order(self, broker: Broker, calls: Calls, news: News, names: Names) -> None:
        assert await calls.bind(names.topic, "k") is None
        failures: list[Failure | None] = []
        for number in range(200):
            broker.publish(Message(names.topic, "k", b"%d" % number), failures.append)
        assert [(await news.next(names.topic)).body for _ in range(200)] == [b"%d" % n for n in range(200)]
        assert await calls.publish(names.topic, "k") is None
        assert failures == [None] * 200

    async def test_unbind(self, broker: Broker, calls: Calls, news: News, names: Names) -> None:
        for key in ("a", "b.*"):
            assert await calls.bind(names.topic, key) is None
        broker.unbind(names.topic, "a")
        broker.unbind(names.topic, "b.*")
        broker.unbind(names.topic, "never.bound")
        broker.unbind(names.missing, "a")
        assert await calls.bind(names.topic, "end") is None
        for key in ("a", "b.c", "end"):
            assert await calls.publish(names.topic, key) is None
        assert (await news.next(names.topic)).routing_key == "end"

    async def test_bound_again(self, broker: Broker, calls: Calls, news: News, names: Names) -> None:
        assert await calls.bind(names.topic, "a") is None
        broker.unbind(names.topic, "a")
        assert await calls.bind(names.topic, "a") is None
        assert await calls.publish(names.topic, "a") is None
        assert (await news.next(names.topic)).routing_key == "a"

    async def test_unroutable_messages_are_taken(self, calls: Calls, names: Names) -> None:
        assert await calls.publish(names.topic, "nobody") is None

    async def test_unknown_exchange(self, calls: Calls, news: News, names: Names) -> None:
        expected = Failure("not_found", f"NOT_FOUND - no exchange '{names.missing}' in vhost '/'", fatal=True)
        assert await calls.publish(names.missing, "k") == expected
        assert await calls.bind(names.missing, "k") == expected
        assert await calls.refused(names.spec(bindings=((names.missing, "k"),), delete_on_failure=True)) == expected
        failure = await calls.publish("", names.queue)
        assert failure is not None
        assert failure.code == "no_route"
        assert await calls.bind(names.topic, "k") is None
        assert await calls.publish(names.topic, "k") is None
        await news.next(names.topic)

    async def test_missing_queue(self, calls: Calls, names: Names) -> None:
        failure = await calls.publish("", names.queue)
        assert failure is not None
        assert failure.code == "no_route"
        assert failure.text.startswith("NO_ROUTE")
        assert not failure.fatal
        assert await calls.refused(QueueSpec(names.queue, declare=False)) == Failure(
            "not_found", f"NOT_FOUND - no queue '{names.queue}' in vhost '/'", fatal=True
        )
        assert await calls.publish(names.topic, "k") is None

    async def test_queue(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        consumer = await calls.consume(names.spec(), inbox)
        assert consumer.queue == names.queue
        message = Message("", names.queue, b"hello", {"a": "b"}, content_type="text/plain", sender="s", seq=3)
        assert await calls.send(message) is None
        received, tag = await inbox.next()
        assert received == message
        consumer.ack((tag,))

    async def test_declared_before_it_is_consumed(self, calls: Calls, names: Names) -> None:
        assert await calls.declare(names.spec()) is None
        assert await calls.declare(names.spec()) is None
        for body in (b"1", b"2", b"3"):
            assert await calls.publish("", names.queue, body) is None
        inbox = Inbox()
        await calls.consume(QueueSpec(names.queue, declare=False), inbox)
        assert await inbox.bodies(3) == [b"1", b"2", b"3"]

    async def test_a_name_of_the_brokers_choice(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        consumer = await calls.consume(names.spec(name="", exclusive=True), inbox)
        assert consumer.queue.startswith("amq.gen-")
        assert await calls.publish("", consumer.queue, b"1") is None
        assert await inbox.bodies(1) == [b"1"]

    async def test_another_declaration(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        await calls.consume(names.spec(arguments={"x-max-length": 10}), inbox)
        for spec in (
            names.spec(durable=True, arguments={"x-max-length": 10}),
            names.spec(auto_delete=False, arguments={"x-max-length": 10}),
            names.spec(),
            names.spec(arguments={"x-max-length": 11}),
        ):
            failure = await calls.declare(spec)
            assert failure is not None
            assert (failure.code, failure.fatal) == ("precondition_failed", True)
            assert failure.text.startswith("PRECONDITION_FAILED - inequivalent arg '")
            assert (await calls.refused(spec)).code == "precondition_failed"
        assert await calls.publish("", names.queue, b"1") is None
        assert await inbox.bodies(1) == [b"1"]

    async def test_reserved_names(self, calls: Calls, names: Names) -> None:
        name = "amq." + names.queue
        failure = await calls.refused(names.spec(name=name))
        assert failure.code == "access_refused"
        assert failure.text == f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'"

    async def test_the_default_exchange_has_no_bindings(self, calls: Calls, names: Names) -> None:
        failure = await calls.refused(names.spec(bindings=(("", "k"),), delete_on_failure=True))
        assert failure.code == "access_refused"
        assert failure.text.startswith("ACCESS_REFUSED - operation not permitted on the default exchange")

    async def test_prefetch(self, calls: Calls, names: Names) -> None:
        assert await calls.declare(names.spec()) is None
        for number in range(6):
            assert await calls.publish("", names.queue, b"%d" % number) is None
        inbox = Inbox()
        consumer = await calls.consume(names.spec(), inbox, prefetch=2)
        (_, first), (_, second) = await inbox.next(), await inbox.next()
        other = Inbox()
        await calls.consume(names.spec(), other, prefetch=1)
        assert await other.bodies(1) == [b"2"]
        consumer.ack((first, second))
        assert await inbox.bodies(2) == [b"3", b"4"]
        assert inbox.messages.empty()

    async def test_without_prefetch(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        await calls.consume(names.spec(), inbox, prefetch=0)
        for number in range(50):
            assert await calls.publish("", names.queue, b"%d" % number) is None
        assert await inbox.bodies(50) == [b"%d" % number for number in range(50)]

    async def test_acknowledged_inside_the_delivery(self, broker: Broker, calls: Calls, names: Names) -> None:
        assert await calls.declare(names.spec()) is None
        for number in range(2000):
            broker.publish(Message("", names.queue, b"%d" % number), lambda failure: None)
        assert await calls.publish("", names.queue, b"end") is None
        inbox = Eager()
        await calls.consume(names.spec(), inbox, prefetch=1)
        assert await inbox.bodies(2001) == [*(b"%d" % number for number in range(2000)), b"end"]

    async def test_returned_messages_take_their_old_place(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        consumer = await calls.consume(names.spec(), inbox, prefetch=3)
        for number in range(5):
            assert await calls.publish("", names.queue, b"%d" % number) is None
        received = [await inbox.next() for _ in range(3)]
        assert not any(message.redelivered for message, _ in received)
        consumer.nack((received[2][1], received[0][1]), requeue=True)
        again = [await inbox.next() for _ in range(2)]
        assert [(message.body, message.redelivered) for message, _ in again] == [(b"0", True), (b"2", True)]
        consumer.nack((again[1][1],), requeue=True)
        again[1] = await inbox.next()
        assert (again[1][0].body, again[1][0].redelivered) == (b"2", True)
        consumer.ack((received[1][1], again[0][1], again[1][1]))
        last = [await inbox.next() for _ in range(2)]
        assert [(message.body, message.redelivered) for message, _ in last] == [(b"3", False), (b"4", False)]
        assert not any(message.redelivered for message, _ in received)

    async def test_refused_for_good(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        consumer = await calls.consume(names.spec(), inbox, prefetch=1)
        for body in (b"bad", b"good"):
            assert await calls.publish("", names.queue, body) is None
        _, tag = await inbox.next()
        consumer.nack((tag,), requeue=False)
        message, _ = await inbox.next()
        assert (message.body, message.redelivered) == (b"good", False)

    async def test_void_tags_do_nothing(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        consumer = await calls.consume(names.spec(), inbox, prefetch=1)
        assert await calls.publish("", names.queue, b"1") is None
        _, tag = await inbox.next()
        consumer.ack((tag + 1, tag + 1000))
        consumer.ack((tag,))
        consumer.ack((tag,))
        consumer.nack((tag,), requeue=True)
        assert await calls.publish("", names.queue, b"2") is None
        assert await inbox.bodies(1) == [b"2"]

    async def test_cancel_gives_back(self, calls: Calls, names: Names) -> None:
        spec = names.spec(auto_delete=False, exclusive=False, arguments={"x-expires": 60_000})
        first, second = Inbox(), Inbox()
        consumer = await calls.consume(spec, first, prefetch=2)
        for number in range(4):
            assert await calls.publish("", names.queue, b"%d" % number) is None
        tags = [(await first.next())[1] for _ in range(2)]
        consumer.ack(tags[:1])
        await calls.cancel(consumer)
        consumer.ack(tags[1:])
        await calls.cancel(consumer)
        await calls.consume(spec, second)
        received = [(await second.next())[0] for _ in range(3)]
        assert [(message.body, message.redelivered) for message in received] == [
            (b"1", True),
            (b"2", False),
            (b"3", False),
        ]
        assert first.messages.empty()

    async def test_nothing_is_passed_on_after_cancel(self, broker: Broker, calls: Calls, names: Names) -> None:
        spec = names.spec(auto_delete=False, arguments={"x-expires": 60_000})
        first, second = Inbox(), Inbox()
        consumer = await calls.consume(spec, first)
        broker.publish(Message("", names.queue, b"1"), lambda failure: None)
        consumer.cancel()
        await calls.consume(spec, second)
        assert await second.bodies(1) == [b"1"]
        assert first.messages.empty()

    async def test_cancelled_while_it_is_set_up(self, broker: Broker, calls: Calls, names: Names) -> None:
        answers: list[QueueConsumer | Failure] = []
        consumer = broker.consume(names.spec(), 10, Inbox(), answers.append)
        before = len(answers)
        await calls.cancel(consumer)
        assert len(answers) == before
        inbox = Inbox()
        await calls.consume(names.spec(), inbox)
        assert await calls.publish("", names.queue, b"1") is None
        assert await inbox.bodies(1) == [b"1"]

    async def test_consumers_take_turns(self, calls: Calls, names: Names) -> None:
        inboxes = [Inbox(), Inbox(), Inbox()]
        for inbox in inboxes:
            await calls.consume(names.spec(), inbox)
        for number in range(9):
            assert await calls.publish("", names.queue, b"%d" % number) is None
        shares = [await inbox.bodies(3) for inbox in inboxes]
        assert sorted(body for share in shares for body in share) == [b"%d" % number for number in range(9)]

    async def test_auto_delete(self, calls: Calls, names: Names) -> None:
        first = await calls.consume(names.spec(), Inbox())
        second = await calls.consume(names.spec(), Inbox())
        await calls.cancel(first)
        assert await calls.publish("", names.queue) is None
        await calls.cancel(second)
        failure = await calls.publish("", names.queue)
        assert failure is not None
        assert failure.code == "no_route"

    async def test_an_exclusive_queue_outlives_its_consumers(self, calls: Calls, names: Names) -> None:
        """It goes with the connection, or when it is deleted."""
        spec, inbox = names.spec(auto_delete=False, exclusive=True), Inbox()
        await calls.cancel(await calls.consume(spec, Inbox()))
        assert await calls.publish("", names.queue, b"1") is None
        await calls.consume(spec, inbox)
        assert (await inbox.next())[0].body == b"1"
        assert (await calls.refused(names.spec(auto_delete=False))).code == "resource_locked"

    async def test_deleting_queues(self, calls: Calls, names: Names) -> None:
        """What is in it goes, too. One that is not there is no failure."""
        for spec in (names.spec(auto_delete=False), names.spec(auto_delete=False, exclusive=True)):
            assert await calls.delete(spec) is None
            assert await calls.declare(spec) is None
            assert await calls.publish("", names.queue) is None
            assert await calls.delete(spec) is None
            gone = await calls.publish("", names.queue)
            assert gone is not None
            assert gone.code == "no_route"

    async def test_deleting_an_exclusive_queue_leaves_another_of_its_name(self, calls: Calls, names: Names) -> None:
        spec = names.spec(auto_delete=False, arguments={"x-expires": 60_000})
        assert await calls.declare(spec) is None
        await calls.delete(names.spec(auto_delete=False, exclusive=True))
        assert await calls.publish("", names.queue) is None

    async def test_a_queue_that_is_taken_as_it_is(self, calls: Calls, names: Names) -> None:
        """Declared where it is not there."""
        wanted = names.spec(durable=True, exclusive=True, reuse=True)
        for spec in (names.spec(), wanted):
            assert await calls.declare(spec) is None
            inbox = Inbox()
            consumer = await calls.consume(wanted, inbox)
            assert await calls.publish("", names.queue, b"1") is None
            _, tag = await inbox.next()
            consumer.ack((tag,))
            await calls.cancel(consumer)

    async def test_bindings(self, calls: Calls, names: Names) -> None:
        inbox = Inbox()
        bindings = (
            (names.topic, "a.*"),
            (names.topic, "#"),
            (names.direct, "d"),
            (names.fanout, ""),
            (names.headers, ""),
        )
        await calls.consume(names.spec(bindings=bindings), inbox)
        for exchange, key in [
            (names.topic, "a.b"),
            (names.direct, "other"),
            (names.direct, "d"),
            (names.fanout, "f"),
            (names.headers, "h"),
        ]:
            assert await calls.publish(exchange, key) is None
        received = [(await inbox.next())[0] for _ in range(4)]
        assert [(message.exchange, message.routing_key) for message in received] == [
            (names.topic, "a.b"),
            (names.direct, "d"),
            (names.fanout, "f"),
            (names.headers, "h"),
        ]

    async def test_mailbox_and_queues_each_get_a_copy(self, calls: Calls, news: News, names: Names) -> None:
        inboxes = [Inbox(), Inbox()]
        for number, inbox in enumerate(inboxes):
            spec = names.spec(name=f"{names.queue}.{number}", bindings=((names.topic, "a.#"),))
            await calls.consume(spec, inbox)
        assert await calls.bind(names.topic, "a.*") is None
        assert await calls.publish(names.topic, "a.b", b"1") is None
        assert (await news.next(names.topic)).body == b"1"
        for inbox in inboxes:
            message, tag = await inbox.next()
            assert (message.body, message.exchange, message.routing_key) == (b"1", names.topic, "a.b")
            assert inbox.consumer is not None
            inbox.consumer.nack((tag,), requeue=True)
            assert (await inbox.next())[0].redelivered
            assert not message.redelivered
