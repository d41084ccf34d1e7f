"""The publisher without a broker: confirms, losses, quarantine, limits."""

from __future__ import annotations

from collections.abc import Callable

import pamqp.frame
import pytest
from pamqp import commands
from pamqp.body import ContentBody

from stompbridge.brokers.amqp.exchanges import Exchanges
from stompbridge.brokers.amqp.held import OVERHEAD
from stompbridge.brokers.amqp.publisher import CONFIRM_TIMEOUT, Publisher
from stompbridge.brokers.amqp.splitter import Confirm, Returned
from stompbridge.brokers.base import Done, Failure, Message
from stompbridge.histogram import Histogram

VHOST = "in vhost '/'"
REJECTED = Failure("rejected", "the broker rejected the message", fatal=False)
BAD_PROPERTY = Failure("precondition_failed", "PRECONDITION_FAILED - invalid something")


class Channel:
    number = 1
    frame_max = 4096

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.mandatory: list[bool] = []

    def send(self, data: bytes) -> None:
        while data:
            size, _, frame = pamqp.frame.unmarshal(data)
            if isinstance(frame, ContentBody):
                self.bodies.append(frame.value)
            elif isinstance(frame, commands.Basic.Publish):
                self.mandatory.append(frame.mandatory)
            data = data[size:]


class World:
    """A publisher and everything around it."""

    def __init__(self, **settings: object) -> None:
        self.now = 1000.0
        self.checks: list[tuple[str, Done]] = []
        self.reopened = 0
        self.changes = 0
        self.results: list[tuple[bytes, Failure | None]] = []
        self.exchanges = Exchanges(lambda: self.now)
        self.exchanges.declared(["e", "f"])
        defaults: dict[str, object] = {
            "max_messages": 1000,
            "max_bytes": 1_000_000,
            "grace": 60.0,
            "wait_when_down": True,
        }
        self.latency = Histogram()
        self.publisher = Publisher(
            exchanges=self.exchanges,
            check=lambda name, done: self.checks.append((name, done)),
            reopen=self.reopen,
            on_change=self.change,
            clock=lambda: self.now,
            latency=self.latency,
            **(defaults | settings),  # type: ignore[arg-type]
        )
        self.publisher.user = "guest"
        self.channel = Channel()

    def reopen(self) -> None:
        self.reopened += 1

    def change(self) -> None:
        self.changes += 1

    def attach(self) -> Channel:
        self.channel = Channel()
        self.publisher.attach(self.channel)
        return self.channel

    def publish(self, body: str, exchange: str = "e", key: str = "k", then: Callable[[], None] | None = None) -> None:
        data = body.encode()

        def done(failure: Failure | None) -> None:
            self.results.append((data, failure))
            if then is not None:
                then()

        self.publisher.publish(Message(exchange, key, data, sender="s", seq=len(data)), done)

    def confirm(self, tag: int, multiple: bool = False, ack: bool = True) -> None:
        self.publisher.on_confirm(Confirm(1, tag, multiple, ack))

    def closed(self, problem: Failure) -> None:
        self.publisher.channel_closed(problem)

    @property
    def ok(self) -> list[bytes]:
        return [body for body, failure in self.results if failure is None]

    @property
    def failed(self) -> dict[bytes, Failure]:
        return {body: failure for body, failure in self.results if failure is not None}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def up(world: World) -> World:
    world.attach()
    return world


def not_found(exchange: str) -> Failure:
    return Failure("not_found", f"NOT_FOUND - no exchange '{exchange}' {VHOST}")


# Confirms


def test_how_long_a_confirm_takes(world: World) -> None:
    """From the call on: the time without a broker counts, a rejection does not."""
    world.publish("a")
    world.publish("b")
    world.now += 7.0
    world.attach()
    world.publish("c")
    world.now += 1.0
    assert world.publisher.unconfirmed == 3
    world.confirm(2, multiple=True)
    world.confirm(3, ack=False)
    assert world.publisher.unconfirmed == 0
    assert (world.latency.count, world.latency.sum) == (2, 16.0)


def test_confirms_one_by_one_and_many_at_once(up: World) -> None:
    for body in "abcdef":
        up.publish(body)
    assert up.channel.bodies == [b"a", b"b", b"c", b"d", b"e", b"f"]
    up.confirm(2)
    assert up.ok == [b"b"]
    up.confirm(4, multiple=True)
    assert up.ok == [b"b", b"a", b"c", b"d"]
    up.confirm(4, multiple=True)
    up.confirm(99)
    up.publish("g")
    up.confirm(0, multiple=True)
    assert up.ok == [b"b", b"a", b"c", b"d", b"e", b"f", b"g"]
    assert up.publisher.held == up.publisher.held_bytes == 0
    assert up.publisher.confirmed == up.publisher.published == 7


def test_a_nack(up: World) -> None:
    for body in "abc":
        up.publish(body)
    up.confirm(2, multiple=True, ack=False)
    up.confirm(3)
    assert up.results == [(b"a", REJECTED), (b"b", REJECTED), (b"c", None)]
    assert up.publisher.nacked == 2


def test_published_inside_a_confirm(up: World) -> None:
    up.publish("a", then=lambda: up.publish("c"))
    up.publish("b")
    up.confirm(2, multiple=True)
    up.confirm(3)
    assert up.ok == [b"a", b"b", b"c"]


def test_an_error_in_a_callback_costs_nobody_else(up: World) -> None:
    up.publisher.publish(Message("e", "k", b"bad"), lambda failure: 1 / 0)  # type: ignore[arg-type,return-value]
    up.publish("good")
    up.confirm(2, multiple=True)
    assert up.ok == [b"good"]


def test_told_when_nothing_is_held(up: World) -> None:
    told: list[int] = []
    up.publisher.on_empty = lambda: told.append(up.publisher.held)
    up.publish("a")
    up.publish("b")
    up.confirm(1)
    assert told == []
    up.confirm(2)
    assert told == [0]


# Returns


def test_a_returned_message(up: World) -> None:
    for body, key in [("a", "q1"), ("b", "q2"), ("c", "q1")]:
        up.publish(body, exchange="", key=key)
    up.publish("d")
    assert up.channel.mandatory == [True, True, True, False]
    up.publisher.on_returned(Returned(1, 312, "NO_ROUTE", Message("", "q1", b"a", sender="s", seq=1)))
    up.publisher.on_returned(Returned(1, 312, "NO_ROUTE", Message("", "other", b"x")))
    up.confirm(4, multiple=True)
    assert up.results == [
        (b"a", Failure("no_route", "NO_ROUTE - no queue 'q1'", fatal=False)),
        (b"b", None),
        (b"c", None),
        (b"d", None),
    ]
    assert up.publisher.returned == 1
    assert up.publisher._mandatory == {}


def test_returned_and_then_published_again(up: World) -> None:
    up.publish("a", exchange="", key="q1")
    up.publisher.on_returned(Returned(1, 312, "NO_ROUTE", Message("", "q1", b"a", sender="s", seq=1)))
    up.publisher.detach("lost")
    up.attach()
    up.confirm(1)
    assert up.results == [(b"a", None)]


# Losses


def test_what_is_unconfirmed_is_published_again_in_order(world: World) -> None:
    world.publish("a")
    first = world.attach()
    for body in "bcd":
        world.publish(body)
    assert first.bodies == [b"a", b"b", b"c", b"d"]
    world.confirm(2)
    world.publisher.detach("lost")
    world.publish("e")
    second = world.attach()
    assert second.bodies == [b"a", b"c", b"d", b"e"]
    assert world.publisher.republished == 3
    world.confirm(4, multiple=True)
    assert world.ok == [b"b", b"a", b"c", b"d", b"e"]


def test_without_waiting() -> None:
    world = World(wait_when_down=False)
    world.publish("a")
    world.attach()
    world.publish("b")
    world.publisher.detach("it rains")
    world.publish("c")
    failure = Failure("broker_unavailable", "the broker is not available: it rains", fatal=False)
    assert world.failed.pop(b"a").text == "the broker is not available: not connected yet"
    assert world.failed[b"b"] == world.failed[b"c"] == failure
    assert world.attach().bodies == []


def test_the_end(up: World) -> None:
    up.publish("a")
    up.publisher.stop("stopping")
    up.publish("b")
    assert [failure.code for failure in up.failed.values()] == ["broker_unavailable"] * 2


# Time


def test_the_grace_counts_from_the_loss_or_the_publish(world: World) -> None:
    world.attach()
    world.publish("a")
    world.now += 50
    world.publisher.detach("lost")
    world.now += 30
    world.publish("b")
    world.now += 29
    world.publisher.sweep(world.now)
    assert world.results == []
    world.now += 1
    world.publisher.sweep(world.now)
    assert list(world.failed) == [b"a"]
    assert world.failed[b"a"] == Failure("broker_unavailable", "the broker is not available: lost", fatal=False)
    world.now += 30
    world.publisher.sweep(world.now)
    assert list(world.failed) == [b"a", b"b"]
    assert world.publisher.expired == 2
    assert world.publisher.held == 0


def test_a_confirm_that_never_comes(up: World) -> None:
    up.publish("a", exchange="", key="q")
    up.now += 59
    up.publish("b")
    up.publisher.sweep(up.now)
    up.now += 1
    up.publisher.sweep(up.now)
    assert up.failed == {
        b"a": Failure("broker_unavailable", "the broker is not available: no confirm within 60 s", fatal=False)
    }
    up.confirm(2, multiple=True)
    assert up.ok == [b"b"]


def test_without_grace_a_confirm_may_still_take_its_time() -> None:
    world = World(grace=0.0)
    world.attach()
    world.publish("a")
    world.now += CONFIRM_TIMEOUT - 1
    world.publisher.sweep(world.now)
    assert world.results == []
    world.publisher.detach("lost")
    world.now += 0.25
    world.publisher.sweep(world.now)
    assert list(world.failed) == [b"a"]


def test_time_stands_still_while_the_broker_is_blocked(up: World) -> None:
    up.publish("a")
    up.publisher.blocked(True)
    up.now += 1000
    up.publisher.sweep(up.now)
    up.publisher.blocked(False)
    up.now += 59
    up.publisher.sweep(up.now)
    assert up.results == []
    up.now += 1
    up.publisher.sweep(up.now)
    assert list(up.failed) == [b"a"]


def test_late_behind_a_check(up: World) -> None:
    up.publish("a", exchange="new")
    up.now += 30
    up.publish("b", exchange="new")
    up.now += 30
    up.publisher.sweep(up.now)
    assert list(up.failed) == [b"a"]
    up.checks[0][1](None)
    assert up.channel.bodies == [b"b"]


# Limits


def test_congestion_has_hysteresis() -> None:
    world = World(max_messages=8)
    world.attach()
    for number in range(8):
        world.publish(str(number))
    assert not world.publisher.congested
    world.publish("8")
    assert world.publisher.congested
    world.confirm(2, multiple=True)
    assert world.publisher.congested
    assert world.changes == 0
    world.confirm(3)
    assert not world.publisher.congested
    assert world.changes == 1


def test_congestion_by_bytes() -> None:
    world = World(max_bytes=4 * (OVERHEAD + 100))
    for _ in range(5):
        world.publish("x" * 100)
    assert world.publisher.congested


def test_beyond_twice_the_limit_nothing_is_taken() -> None:
    world = World(max_messages=2)
    for number in range(6):
        world.publish(str(number))
    assert list(world.failed) == [b"4", b"5"]
    assert world.failed[b"5"].code == "broker_unavailable"
    assert world.publisher.overflowed == 2
    assert world.attach().bodies == [b"0", b"1", b"2", b"3"]


# Bad messages


def test_a_foreign_user_id(up: World) -> None:
    results: list[Failure | None] = []
    up.publisher.publish(Message("e", "k", b"", user_id="eve"), results.append)
    up.publisher.publish(Message("e", "k", b"", user_id="guest"), results.append)
    up.confirm(1)
    text = "PRECONDITION_FAILED - user_id property set to 'eve' but authenticated user was 'guest'"
    assert results == [Failure("precondition_failed", text), None]


def test_direct_reply_to(up: World) -> None:
    results: list[Failure | None] = []
    up.publisher.publish(Message("e", "k", b"", reply_to="amq.rabbitmq.reply-to"), results.append)
    assert results == [Failure("precondition_failed", "PRECONDITION_FAILED - fast reply consumer does not exist")]
    assert up.channel.mandatory == []


def test_a_message_that_cannot_be_encoded(up: World) -> None:
    up.publish("a", key="k" * 300)
    up.publish("b")
    assert up.channel.bodies == [b"b"]
    assert up.failed[b"a"].code == "precondition_failed"
    assert not up.failed[b"a"].fatal


# Exchanges that are not known


def test_an_unknown_exchange_is_checked_once(up: World) -> None:
    up.publish("a", exchange="new")
    up.publish("b", exchange="new")
    up.publish("c")
    assert up.channel.bodies == [b"c"]
    ((name, answer),) = up.checks
    assert name == "new"
    answer(None)
    up.publish("d", exchange="new")
    assert up.channel.bodies == [b"c", b"a", b"b", b"d"]
    assert len(up.checks) == 1


def test_a_missing_exchange(up: World) -> None:
    up.publish("a", exchange="new")
    up.publish("b", exchange="new")
    up.checks[0][1](not_found("new"))
    up.publish("c", exchange="new")
    assert up.failed == dict.fromkeys((b"a", b"b", b"c"), not_found("new"))
    assert len(up.checks) == 1
    up.now += 2
    up.publish("d", exchange="new")
    assert len(up.checks) == 2
    assert up.publisher.refused == 3


def test_the_link_is_lost_during_a_check(up: World) -> None:
    up.publish("a", exchange="new")
    up.publish("b")
    up.publish("c", exchange="new")
    up.publisher.detach("lost")
    up.attach()
    up.checks[0][1](None)
    assert up.channel.bodies == [b"b"]
    up.checks[1][1](None)
    assert up.channel.bodies == [b"b", b"a", b"c"]


# A channel that the broker closes


def test_the_reason_names_an_exchange(up: World) -> None:
    for body, exchange in [("a", "e"), ("b", "f"), ("c", "e"), ("d", "f")]:
        up.publish(body, exchange=exchange)
    up.confirm(1)
    up.closed(not_found("f"))
    up.publish("x")
    up.publish("y", exchange="f")
    assert up.failed == dict.fromkeys((b"b", b"d"), not_found("f"))
    assert up.reopened == 1
    assert up.attach().bodies == [b"c", b"x"]
    assert up.failed[b"y"] == not_found("f")
    up.now += 2
    up.publish("z", exchange="f")
    assert [name for name, _ in up.checks] == ["f"]


def test_the_reason_names_a_topic(up: World) -> None:
    problem = Failure(
        "access_refused", f"ACCESS_REFUSED - access to topic 'secret' in exchange 'e' {VHOST} refused for user 'u'"
    )
    up.publish("a", key="open")
    up.publish("b", key="secret")
    up.closed(problem)
    assert up.attach().bodies == [b"a"]
    up.publish("c", key="secret")
    up.publish("d", key="open")
    assert up.failed == dict.fromkeys((b"b", b"c"), problem)
    assert up.channel.bodies == [b"a", b"d"]


def test_the_reason_names_nobody(up: World) -> None:
    for body in "abcd":
        up.publish(body)
    up.closed(BAD_PROPERTY)
    up.publish("e")
    up.attach()
    assert up.channel.bodies == [b"a"]
    up.confirm(1)
    assert up.channel.bodies == [b"a", b"b"]
    up.closed(BAD_PROPERTY)
    assert up.failed == {b"b": BAD_PROPERTY}
    assert up.reopened == 2
    up.attach()
    assert up.channel.bodies == [b"c"]
    up.confirm(1)
    up.publish("f")
    up.confirm(2)
    assert up.channel.bodies == [b"c", b"d", b"e", b"f"]
    up.confirm(4, multiple=True)
    assert up.ok == [b"a", b"c", b"d", b"e", b"f"]
    assert up.publisher.held == 0


def test_an_exchange_is_named_while_one_at_a_time(up: World) -> None:
    for body, exchange in [("a", "f"), ("b", "e"), ("c", "f")]:
        up.publish(body, exchange=exchange)
    up.closed(BAD_PROPERTY)
    up.attach()
    up.closed(not_found("f"))
    assert up.failed == dict.fromkeys((b"a", b"c"), not_found("f"))
    assert up.attach().bodies == [b"b"]


def test_nothing_was_in_flight(up: World) -> None:
    up.closed(BAD_PROPERTY)
    up.publish("a")
    assert up.attach().bodies == [b"a"]


def test_the_link_is_lost_while_one_at_a_time(up: World) -> None:
    for body in "abc":
        up.publish(body)
    up.closed(BAD_PROPERTY)
    up.attach()
    up.publisher.detach("lost")
    up.publish("d")
    assert up.attach().bodies == [b"a"]
    for tag in (1, 2, 3, 4):
        up.confirm(tag)
    assert up.ok == [b"a", b"b", b"c", b"d"]


def test_one_at_a_time_and_late(up: World) -> None:
    up.publish("a")
    up.publish("b")
    up.closed(BAD_PROPERTY)
    up.attach()
    up.now += 30
    up.publish("c")
    up.now += 30
    up.publisher.sweep(up.now)
    assert list(up.failed) == [b"a", b"b"]
    assert up.channel.bodies == [b"a", b"c"]


def test_one_at_a_time_at_a_broker_with_smaller_frames(up: World) -> None:
    for body in ("a", "b" * 3000, "c"):
        up.publisher.publish(
            Message("e", "k", b"", headers={"h": body}),
            lambda failure, body=body: up.results.append((body[0], failure)),  # type: ignore[arg-type,misc]
        )
    up.closed(BAD_PROPERTY)
    up.channel = Channel()
    up.channel.frame_max = 1000
    up.publisher.attach(up.channel)
    up.confirm(1)
    up.confirm(2)
    assert [(body, failure is None) for body, failure in up.results] == [("a", True), ("b", False), ("c", True)]


def test_closed_inside_a_confirm_while_one_at_a_time(up: World) -> None:
    up.publish("a", then=lambda: up.publisher.detach("lost"))
    up.publish("b")
    up.closed(BAD_PROPERTY)
    up.attach()
    up.confirm(1)
    assert up.channel.bodies == [b"a"]
    assert up.attach().bodies == [b"b"]


def test_all_end_at_once(up: World) -> None:
    up.publish("a")
    up.publish("b")
    up.closed(BAD_PROPERTY)
    up.attach()
    up.publish("c")
    up.publisher.fail_all(BAD_PROPERTY)
    assert list(up.failed) == [b"a", b"b", b"c"]
    assert up.publisher.held == 0
    up.confirm(1)
    up.publish("d")
    assert up.channel.bodies == [b"a", b"d"]
