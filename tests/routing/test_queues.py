from __future__ import annotations

from collections.abc import Callable

import pytest

from stompbridge.brokers.base import Done, Failure, Message, QueueConsumer, QueueListener, QueueSpec
from stompbridge.routing.destinations import parse
from stompbridge.routing.queues import Queues
from stompbridge.stomp.session import Send

MINE = QueueSpec("q", durable=False, exclusive=True)
GOING = QueueSpec("q", durable=False, auto_delete=True, exclusive=True)


class Consumer:
    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.cancelled: list[Done | None] = []

    def cancel(self, done: Done | None = None) -> None:
        self.cancelled.append(done)

    def end(self) -> None:
        """The broker has ended it."""
        done = self.cancelled.pop()
        if done is not None:
            done(None)


class Broker:
    """Keeps what it is asked, and answers as the test says."""

    virtual_host = "v"

    def __init__(self) -> None:
        self.published: list[tuple[Message, Done]] = []
        self.declared: list[tuple[QueueSpec, Done]] = []
        self.deleted: list[tuple[QueueSpec, Done]] = []
        self.consumed: list[tuple[Consumer, Callable[[QueueConsumer | Failure], None]]] = []

    def publish(self, message: Message, done: Done) -> None:
        self.published.append((message, done))

    def declare_queue(self, spec: QueueSpec, done: Done) -> None:
        self.declared.append((spec, done))

    def delete_queue(self, spec: QueueSpec, done: Done) -> None:
        self.deleted.append((spec, done))

    def consume(
        self, spec: QueueSpec, prefetch: int, listener: QueueListener, done: Callable[[QueueConsumer | Failure], None]
    ) -> Consumer:
        consumer = Consumer(spec.name)
        self.consumed.append((consumer, done))
        return consumer


class World:
    """Sessions ``a`` and ``b``, their queues, and a broker."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.queues = Queues(self.broker)  # type: ignore[arg-type]
        self.answers: list[QueueConsumer | Failure | None] = []
        self.resumed = 0

    def ask(self, session: str, spec: QueueSpec) -> QueueSpec:
        granted = self.queues.to_consume(session, spec)
        assert isinstance(granted, QueueSpec)
        return granted

    def refused(self, session: str, queue: str = "q") -> bool:
        granted = self.queues.to_consume(session, QueueSpec(queue, declare=False))
        if isinstance(granted, Failure):
            assert granted.code == "resource_locked"
            assert granted.text.startswith(
                f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in"
            )
            assert "in vhost 'v'" in granted.text
            assert granted.fatal
        return isinstance(granted, Failure)

    def consume(self, session: str, spec: QueueSpec, answer: bool = True) -> tuple[Consumer, object]:
        """A consumer and the listener behind it."""
        listener = object()
        granted = self.ask(session, spec)
        self.queues.consume(session, granted, 1, listener, self.answers.append)  # type: ignore[arg-type]
        consumer, done = self.broker.consumed[-1]
        if answer:
            done(consumer)  # type: ignore[arg-type]
        return consumer, listener

    def cancel(self, consumer: Consumer, listener: object) -> None:
        self.queues.cancel(consumer, listener)  # type: ignore[arg-type]

    def send(self, session: str, **headers: str) -> bool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        event = Send("/queue/q", {"destination": "/queue/q", **named}, b"x", None)
        known = self.queues.session(session)
        message = Message("", "q", b"x")
        return self.queues.publish(known, message, parse("/queue/q", "SEND"), event, self.answers.append, self.resume)

    def resume(self) -> None:
        self.resumed += 1


@pytest.fixture
def world() -> World:
    return World()


def test_a_session_declares_a_queue_once(world: World) -> None:
    assert world.ask("a", QueueSpec("q")) == QueueSpec("q")
    assert world.ask("a", QueueSpec("q", durable=False)) == QueueSpec("q", durable=False, reuse=True)
    assert world.ask("b", QueueSpec("q")) == QueueSpec("q")
    world.queues.leave("a")
    assert world.ask("a", QueueSpec("q")) == QueueSpec("q")


def test_queues_of_exchanges_and_existing_ones_are_asked_for_as_they_are(world: World) -> None:
    for spec in (QueueSpec("q", bindings=(("e", "k"),)), QueueSpec("q", declare=False)):
        for _ in range(2):
            assert world.ask("a", spec) is spec


def test_a_send_does_not_declare_what_the_session_has_subscribed_to(world: World) -> None:
    world.consume("a", QueueSpec("q", arguments={"x-max-length": 5}))
    assert not world.send("a")
    assert world.broker.declared == []
    assert world.send("b")
    assert len(world.broker.published) == 1


def test_what_the_broker_could_not_route_is_declared_as_the_frame_says(world: World) -> None:
    world.ask("a", QueueSpec("q"))
    world.send("a", durable="false", exclusive="false")
    message, done = world.broker.published.pop()
    done(Failure("no_route", "NO_ROUTE", fatal=False))
    ((spec, declared),) = world.broker.declared
    assert (spec.durable, spec.exclusive) == (False, False)
    declared(None)
    assert world.broker.published.pop()[0] is message
    assert world.resumed == 0


def test_other_failures_of_a_publish_are_passed_on(world: World) -> None:
    world.ask("a", QueueSpec("q"))
    world.send("a")
    failure = Failure("rejected", "full", fatal=False)
    world.broker.published.pop()[1](failure)
    assert world.answers == [failure]


def test_an_exclusive_queue_is_its_sessions(world: World) -> None:
    world.consume("a", MINE)
    assert world.refused("b")
    assert not world.refused("b", "other")
    assert not world.refused("a")
    assert not world.send("b")
    failure = world.answers[-1]
    assert isinstance(failure, Failure)
    assert failure.code == "resource_locked"
    assert world.broker.published == []


def test_it_is_its_sessions_while_it_is_being_declared(world: World) -> None:
    world.consume("a", MINE, answer=False)
    assert world.refused("b")
    failure = Failure("precondition_failed", "PRECONDITION_FAILED")
    world.broker.consumed[0][1](failure)
    assert world.answers == [failure]
    assert not world.refused("b")
    world.queues.leave("a")
    assert world.broker.deleted == []


def test_it_goes_with_its_session_and_is_free_when_it_has_gone(world: World) -> None:
    consumer, listener = world.consume("a", MINE)
    world.cancel(consumer, listener)
    world.queues.leave("a")
    consumer.end()
    assert world.refused("b")
    ((spec, done),) = world.broker.deleted
    assert spec == MINE
    done(None)
    assert not world.refused("b")


def test_one_that_deletes_itself_is_free_when_its_last_consumer_has_gone(world: World) -> None:
    first = world.consume("a", GOING)
    second = world.consume("a", QueueSpec("q"))
    world.cancel(*first)
    first[0].end()
    assert world.refused("b")
    world.cancel(*second)
    world.queues.leave("a")
    assert world.refused("b")
    second[0].end()
    assert not world.refused("b")
    assert world.broker.deleted == []


def test_one_that_stays_outlives_its_consumers(world: World) -> None:
    consumer, listener = world.consume("a", MINE)
    world.cancel(consumer, listener)
    consumer.end()
    assert world.refused("b")


def test_one_given_up_while_it_was_set_up(world: World) -> None:
    consumer, listener = world.consume("a", MINE, answer=False)
    world.cancel(consumer, listener)
    world.queues.leave("a")
    assert world.refused("b")
    consumer.end()
    assert not world.refused("b")


def test_other_consumers_are_cancelled_without_ado(world: World) -> None:
    consumer, listener = world.consume("a", QueueSpec("q"))
    world.cancel(consumer, listener)
    assert consumer.cancelled == [None]


def test_one_that_a_send_declared(world: World) -> None:
    assert world.send("a", durable="false")
    assert world.refused("b")
    world.broker.declared[0][1](None)
    assert world.resumed == 1
    assert not world.send("a")
    assert world.refused("b")
    world.queues.leave("a")
    ((spec, done),) = world.broker.deleted
    assert spec == GOING
    done(None)
    assert not world.refused("b")


def test_one_that_a_send_declared_when_its_session_had_gone(world: World) -> None:
    world.send("a", durable="false")
    world.queues.leave("a")
    assert world.broker.deleted == []
    world.broker.declared[0][1](None)
    assert len(world.broker.published) == 1
    world.broker.deleted[0][1](None)
    assert not world.refused("b")


def test_one_that_a_send_could_not_declare(world: World) -> None:
    world.send("a", durable="false")
    world.broker.declared[0][1](Failure("resource_locked", "RESOURCE_LOCKED"))
    assert not world.refused("b")


def test_leaving_without_having_used_a_queue(world: World) -> None:
    world.queues.leave("a")
    assert world.broker.deleted == []
