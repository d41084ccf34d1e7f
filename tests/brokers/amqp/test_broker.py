"""The broker against a fake one: what RabbitMQ does only in bad moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pamqp import commands

from stompbridge.brokers.amqp import AmqpBroker, backoff, bindings, broker, consumers, mailboxes
from stompbridge.brokers.base import Failure, Message, QueueConsumer, QueueSpec
from stompbridge.config import BrokerSettings, Exchange
from tests.brokers.amqp.fake import OK, Calls, FakeBroker, Inbox, News, Peer, ignore, refuse, until, within

NO_EXCHANGE = "NOT_FOUND - no exchange 'x' in vhost '/'"
Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "TICK", 0.02)
    monkeypatch.setattr(backoff, "BACKOFF", 0.01)
    monkeypatch.setattr(backoff, "MIN_PAUSE", 0.01)
    monkeypatch.setattr(mailboxes, "RETRY", 0.05)
    monkeypatch.setattr(consumers, "RETRY", 0.02)


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    fake = FakeBroker()
    await fake.start()
    yield fake
    await fake.stop()


class Bridge:
    """A broker under test with its listener."""

    def __init__(self, url: str, exchanges: tuple[Exchange, ...] = (Exchange(name="e"),), **settings: Any) -> None:
        fields: dict[str, Any] = {"kind": "rabbitmq", "urls": (url,), "exchange": exchanges, "outage_grace": 30.0}
        self.broker = AmqpBroker(BrokerSettings(**(fields | settings)), "node")
        self.calls = Calls(self.broker)
        self.news = News()

    async def up(self) -> Bridge:
        await self.broker.start(self.news)
        await within(self.news.up.wait())
        return self

    def counter(self, name: str) -> int:
        return (self.broker.counters() | self.broker.gauges())[name]


@pytest.fixture
async def start(fake: FakeBroker) -> AsyncIterator[Start]:
    bridges: list[Bridge] = []

    def make(*args: Any, **settings: Any) -> Bridge:
        bridges.append(Bridge(settings.pop("url", fake.url), *args, **settings))
        return bridges[-1]

    yield make
    for bridge in bridges:
        await within(bridge.broker.stop())


def times(count: int, answer: Callable[[Peer, int, Any], bool]) -> Callable[[Peer, int, Any], bool]:
    """The answer so many times, and the usual one after that."""
    left = count

    def limited(peer: Peer, channel: int, frame: Any) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and answer(peer, channel, frame)

    return limited


# Up and down


async def test_not_there_at_first(start: Start, fake: FakeBroker) -> None:
    fake.answers[commands.Connection.Open] = times(
        2, lambda peer, channel, frame: peer.send(0, commands.Connection.Close(530, "NOT_ALLOWED - no", 10, 40)) or True
    )
    bridge = start()
    assert not bridge.broker.up
    assert bridge.broker.down_reason == "not connected yet"
    await bridge.up()
    assert bridge.broker.up
    assert bridge.broker.down_reason == ""
    assert bridge.news.reasons == [f"127.0.0.1:{fake.port}: 530 NOT_ALLOWED - no"]
    assert bridge.counter("reconnects") == 0


async def test_addresses_are_tried_in_turn(start: Start, fake: FakeBroker) -> None:
    dead = FakeBroker()
    await dead.start()
    await dead.stop()
    bridge = await start(urls=("http://nonsense", dead.url, fake.url)).up()
    assert bridge.news.reasons == []
    await within(bridge.broker.stop())
    bridge = start(urls=("http://nonsense", dead.url))
    await bridge.broker.start(bridge.news)
    await within(bridge.news.down.wait())
    assert "no amqp://" in bridge.broker.down_reason
    assert "connection refused" in bridge.broker.down_reason
    await asyncio.sleep(0.1)
    assert len(bridge.news.reasons) == 1


async def test_either_connection_lost_ends_both(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    for number, kind in enumerate(("publish", "consume"), 1):
        bridge.news.up.clear()
        fake.peer(kind).drop()
        await within(bridge.news.up.wait())
        assert len(fake.peers) == 2 + 2 * number
        assert len(bridge.news.reasons) == bridge.counter("reconnects") == number


async def test_a_stable_link_starts_the_back_off_anew(
    start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "STABLE", 0.0)
    bridge = await start().up()
    for _ in range(8):
        bridge.news.up.clear()
        fake.peer("publish").drop()
        await within(bridge.news.up.wait())


async def test_an_exchange_that_is_another(start: Start, fake: FakeBroker) -> None:
    text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/'"
    fake.answers[commands.Exchange.Declare] = times(1, refuse(406, text))
    bridge = await start().up()
    assert f"exchange 'e': {text}" in bridge.news.reasons[0]


async def test_an_exchange_that_the_login_may_not_declare(start: Start, fake: FakeBroker) -> None:
    fake.answers[commands.Exchange.Declare] = times(1, refuse(403, "ACCESS_REFUSED - access to exchange 'e'"))
    bridge = await start().up()
    assert bridge.news.reasons == []
    assert [frame.passive for frame in fake.of(commands.Exchange.Declare)] == [False, True]


async def test_an_error_of_our_own_is_survived(start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    async def declare(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("oops")

    monkeypatch.setattr("stompbridge.brokers.amqp.topology.declare", declare)
    bridge = await start().up()
    assert bridge.news.reasons == ["internal error: RuntimeError"]


async def test_a_listener_that_fails(start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = start()
    monkeypatch.setattr(bridge.news, "on_broker_up", lambda: 1 / 0)
    await bridge.broker.start(bridge.news)
    await until(lambda: bridge.broker.up)


async def test_lost_while_it_is_restored(start: Start, fake: FakeBroker) -> None:
    fake.answers[commands.Confirm.Select] = times(1, lambda peer, channel, frame: peer.drop() or True)
    bridge = await start().up()
    assert len(bridge.news.reasons) == 1
    assert "lost" in bridge.news.reasons[0]


async def test_silence_is_noticed(start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = await start(heartbeat=1.0).up()
    fake.silent = True
    link = bridge.broker._link
    assert link is not None
    monkeypatch.setattr(broker, "STALL", -1.0)
    await asyncio.sleep(0.1)
    monkeypatch.setattr(broker, "STALL", 2.0)
    link.stalled(-10)
    await within(bridge.news.down.wait())
    assert "silent" in bridge.news.reasons[0]
    fake.silent = False
    await within(bridge.news.up.wait())


async def test_stopped_before_it_was_started(fake: FakeBroker) -> None:
    await Bridge(fake.url).broker.stop()


async def test_stopped_while_down(start: Start, fake: FakeBroker) -> None:
    await fake.stop()
    bridge = start()
    await bridge.broker.start(bridge.news)
    await within(bridge.news.down.wait())
    waiting = [bridge.calls.publish("e", "k"), bridge.calls.bind("e", "k"), bridge.calls.declare(QueueSpec("q"))]
    await within(bridge.broker.stop())
    for answer in [*waiting, bridge.calls.publish("e", "k"), bridge.calls.bind("e", "k")]:
        failure = await within(answer)
        assert failure.code == "broker_unavailable"
        assert "stopping" in failure.text
    assert isinstance(await within(bridge.calls.consume(QueueSpec("q"), Inbox())), Failure)
    await fake.start()


async def test_stop_waits_for_confirms(start: Start, fake: FakeBroker) -> None:
    fake.confirms = False
    bridge = await start().up()
    answer = bridge.calls.publish("e", "k")
    stopping = asyncio.create_task(bridge.broker.stop())
    await until(lambda: fake.of(commands.Basic.Publish))
    assert not stopping.done()
    fake.peer("publish").send(fake.channel_of(commands.Basic.Publish), commands.Basic.Ack(1, False))
    await within(stopping)
    assert await answer is None


async def test_stop_does_not_wait_for_ever(start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "FLUSH_TIMEOUT", 0.05)
    monkeypatch.setattr(broker, "CLOSE_TIMEOUT", 0.05)
    bridge = await start().up()
    assert await within(bridge.calls.bind("e", "k")) is None
    fake.silent = True
    answer = bridge.calls.publish("e", "k")
    await within(bridge.broker.stop())
    assert (await answer).code == "broker_unavailable"


# Publishing


async def test_one_clients_mistakes_cost_nobody_else(start: Start, fake: FakeBroker) -> None:
    def declare(peer: Peer, channel: int, frame: Any) -> bool:
        return frame.exchange == "x" and refuse(404, NO_EXCHANGE)(peer, channel, frame)

    fake.answers[commands.Exchange.Declare] = declare
    bridge = await start().up()
    answers = [bridge.calls.publish("x" if number % 10 == 0 else "e", "k") for number in range(100)]
    results = [await within(answer) for answer in answers]
    assert results[::10] == [Failure("not_found", NO_EXCHANGE)] * 10
    assert [result for result in results if result is None] == [None] * 90
    assert len([frame for frame in fake.of(commands.Exchange.Declare) if frame.exchange == "x"]) == 1


async def test_an_exchange_that_went_away(start: Start, fake: FakeBroker) -> None:
    def publish(peer: Peer, channel: int, frame: Any) -> bool:
        return frame.exchange == "e" and refuse(404, NO_EXCHANGE.replace("x'", "e'"))(peer, channel, frame)

    bridge = await start((Exchange(name="e"), Exchange(name="f"))).up()
    fake.answers[commands.Basic.Publish] = publish
    answers = [bridge.calls.publish(exchange, "k") for exchange in "fef"]
    results = [await within(answer) for answer in answers]
    assert [result and result.code for result in results] == [None, "not_found", None]
    assert bridge.news.reasons == []


async def test_a_name_that_no_exchange_can_have(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    failure = await within(bridge.calls.publish("x" * 300, "k"))
    assert failure.code == "precondition_failed"
    failure = await within(bridge.calls.bind("x" * 300, "k"))
    assert failure.code == "precondition_failed"


async def test_the_confirm_channel_cannot_be_had_again(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    bridge.news.up.clear()
    fake.answers[commands.Confirm.Select] = times(1, refuse(541, "INTERNAL_ERROR"))
    fake.answers[commands.Basic.Publish] = times(1, refuse(406, "PRECONDITION_FAILED - x"))
    answer = bridge.calls.publish("e", "k")
    await within(bridge.news.up.wait())
    assert await within(answer) is None
    assert "INTERNAL_ERROR" in bridge.news.reasons[0]


async def test_blocked_is_congested(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    fake.peer("publish").send(0, commands.Connection.Blocked("low on disk"))
    await until(lambda: bridge.broker.congested)
    clear = asyncio.Event()
    bridge.broker.when_clear(clear.set)
    fake.peer("publish").send(0, commands.Connection.Blocked("low on memory"))
    await asyncio.sleep(0.05)
    assert not clear.is_set()
    fake.peer("publish").send(0, commands.Connection.Unblocked())
    await within(clear.wait())
    assert not bridge.broker.congested


async def test_clear_again_when_confirmed(start: Start, fake: FakeBroker) -> None:
    bridge = await start(outbox_max_messages=2).up()
    clear = asyncio.Event()
    answers = [bridge.calls.publish("e", "k") for _ in range(3)]
    assert bridge.broker.congested
    bridge.broker.when_clear(clear.set)
    await within(clear.wait())
    assert [await within(answer) for answer in answers] == [None] * 3


# Time limits


async def test_everything_that_waits_has_an_end(start: Start, fake: FakeBroker) -> None:
    await fake.stop()
    bridge = start(outage_grace=0.1)
    await bridge.broker.start(bridge.news)
    consumer = bridge.calls.consume(QueueSpec("q"), Inbox())
    answers = [
        bridge.calls.publish("e", "k"),
        bridge.calls.bind("e", "k"),
        bridge.calls.declare(QueueSpec("q")),
        consumer,
    ]
    for answer in answers:
        assert (await within(answer)).code == "broker_unavailable"
    assert bridge.counter("bindings") == 0
    await fake.start()


async def test_without_waiting(start: Start, fake: FakeBroker) -> None:
    bridge = await start(when_down="error").up()
    fake.answers[commands.Queue.Bind] = ignore
    pending = bridge.calls.bind("e", "k")
    await until(lambda: fake.of(commands.Queue.Bind))
    await fake.stop()
    await within(bridge.news.down.wait())
    answers = [bridge.calls.publish("e", "k"), bridge.calls.bind("e", "k"), bridge.calls.declare(QueueSpec("q"))]
    for answer in [pending, *answers, bridge.calls.consume(QueueSpec("q"), Inbox())]:
        assert (await within(answer)).code == "broker_unavailable"
    await fake.start()


# Mailboxes


async def test_a_mailbox_is_made_once(start: Start, fake: FakeBroker) -> None:
    bridge = await start(mailbox_expires=60, mailbox_max_bytes=1000, mailbox_type="quorum").up()
    answers = [bridge.calls.bind("e", key) for key in ("a", "b", "a")]
    assert [await within(answer) for answer in answers] == [None] * 3
    (declare,) = fake.of(commands.Queue.Declare)
    assert declare.queue.startswith("stompbridge.node.")
    assert declare.queue.endswith(".e")
    assert declare.durable
    assert declare.arguments == {"x-queue-type": "quorum", "x-expires": 60_000, "x-max-length-bytes": 1000}
    (consume,) = fake.of(commands.Basic.Consume)
    assert (consume.queue, consume.consumer_tag) == (declare.queue, "e")
    assert sorted(bind.routing_key for bind in fake.of(commands.Queue.Bind)) == ["a", "b"]
    await within(bridge.broker.stop())
    assert [delete.queue for delete in fake.of(commands.Queue.Delete)] == [declare.queue]


async def test_mailboxes_are_consumed_one_after_the_other(start: Start, fake: FakeBroker) -> None:
    """The answers may overtake each other."""
    fake.answers[commands.Basic.Consume] = ignore
    bridge = await start((Exchange(name="e"), Exchange(name="f"))).up()
    assert [await within(bridge.calls.bind(exchange, "k")) for exchange in "ef"] == [None, None]
    await until(lambda: fake.of(commands.Basic.Consume))
    await asyncio.sleep(0.05)
    assert len(fake.of(commands.Basic.Consume)) == 1
    fake.answers.clear()
    fake.peer("consume").send(fake.channel_of(commands.Basic.Consume), commands.Basic.ConsumeOk("e"))
    await until(lambda: len(fake.of(commands.Basic.Consume)) == 2)


async def test_the_broker_has_another_name_for_it(start: Start, fake: FakeBroker) -> None:
    def declare(peer: Peer, channel: int, frame: Any) -> bool:
        peer.send(channel, commands.Queue.DeclareOk(frame.queue.replace("\n", ""), 0, 0))
        return True

    fake.answers[commands.Queue.Declare] = declare
    bridge = await start().up()
    assert await within(bridge.calls.bind("two\nlines", "a")) is None
    await until(lambda: fake.of(commands.Basic.Consume))
    assert fake.of(commands.Basic.Consume)[0].queue.endswith("twolines")


async def test_long_names_are_shortened(start: Start, fake: FakeBroker) -> None:
    bridge = await start(mailbox_max_bytes=0).up()
    assert await within(bridge.calls.bind("x" * 250, "a")) is None
    (declare,) = fake.of(commands.Queue.Declare)
    assert len(declare.queue) < 100
    assert "x-max-length-bytes" not in declare.arguments


async def test_one_acknowledgement_for_a_batch(start: Start, fake: FakeBroker) -> None:
    bridge = await start((Exchange(name="e"), Exchange(name="f"))).up()
    for exchange in "ef":
        assert await within(bridge.calls.bind(exchange, "a")) is None
    peer, channel = fake.peer("consume"), fake.channel_of(commands.Basic.Consume)
    for tag, consumer in enumerate("eefe", 1):
        peer.deliver(channel, consumer, tag, b"%d" % tag)
    assert [(await bridge.news.next())[0] for _ in range(4)] == ["e", "e", "f", "e"]
    await until(lambda: fake.of(commands.Basic.Ack))
    (ack,) = fake.of(commands.Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (4, True)
    assert bridge.news.batches == [2, 1, 1]


async def test_a_listener_that_fails_does_not_block_the_mailbox(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    bridge.news.batches = None  # type: ignore[assignment]
    assert await within(bridge.calls.bind("e", "a")) is None
    fake.peer("consume").deliver(fake.channel_of(commands.Basic.Consume), "e", 1, b"")
    await until(lambda: fake.of(commands.Basic.Ack))


async def test_unbinding_lingers(start: Start, fake: FakeBroker) -> None:
    bridge = await start(bind_linger=0.2).up()
    assert await within(bridge.calls.bind("e", "a")) is None
    bridge.broker.unbind("e", "a")
    assert await within(bridge.calls.bind("e", "a")) is None
    bridge.broker.unbind("e", "never")
    bridge.broker.unbind("never", "a")
    await asyncio.sleep(0.3)
    assert fake.of(commands.Queue.Unbind) == []
    bridge.broker.unbind("e", "a")
    await until(lambda: fake.of(commands.Queue.Unbind))
    assert len(fake.of(commands.Queue.Bind)) == 1
    assert bridge.counter("bindings") == 0
    assert await within(bridge.calls.bind("e", "a")) is None
    assert len(fake.of(commands.Queue.Bind)) == 2


async def test_given_up_while_it_was_bound(start: Start, fake: FakeBroker) -> None:
    bridge = await start(bind_linger=0.05).up()
    fake.answers[commands.Queue.Bind] = ignore
    answer = bridge.calls.bind("e", "a")
    await until(lambda: fake.of(commands.Queue.Bind))
    bridge.broker.unbind("e", "a")
    await asyncio.sleep(0.1)
    fake.peer("consume").send(fake.channel_of(commands.Queue.Bind), commands.Queue.BindOk())
    assert await within(answer) is None
    await until(lambda: fake.of(commands.Queue.Unbind))


async def test_without_linger(start: Start, fake: FakeBroker) -> None:
    bridge = await start(bind_linger=0).up()
    assert await within(bridge.calls.bind("e", "a")) is None
    bridge.broker.unbind("e", "a")
    await until(lambda: fake.of(commands.Queue.Unbind))


async def test_bound_to_everything(start: Start, fake: FakeBroker) -> None:
    exchanges = (
        Exchange(name="all", bind="all"),
        Exchange(name="fan", type="fanout"),
        Exchange(name="d", type="direct", bind="all"),
    )
    bridge = await start(exchanges).up()
    assert [(bind.exchange, bind.routing_key) for bind in fake.of(commands.Queue.Bind)] == [("all", "#")]
    for exchange, key in [("all", "a"), ("all", "b.*"), ("fan", "a"), ("fan", "b"), ("d", "a")]:
        assert await within(bridge.calls.bind(exchange, key)) is None
    bridge.broker.unbind("all", "a")
    assert [(bind.exchange, bind.routing_key) for bind in fake.of(commands.Queue.Bind)] == [
        ("all", "#"),
        ("fan", ""),
        ("d", "a"),
    ]


async def test_restored_after_a_loss(start: Start, fake: FakeBroker) -> None:
    bridge = await start((Exchange(name="e"), Exchange(name="all", bind="all")), bind_linger=0.1).up()
    for key in "abc":
        assert await within(bridge.calls.bind("e", key)) is None
    fake.seen.clear()
    bridge.news.up.clear()
    await fake.stop()
    await within(bridge.news.down.wait())
    bridge.broker.unbind("e", "c")
    waiting = bridge.calls.bind("e", "d")
    await until(lambda: bridge.counter("bindings") == 4)
    await fake.start()
    await within(bridge.news.up.wait())
    assert await within(waiting) is None
    assert {bind.routing_key for bind in fake.of(commands.Queue.Bind)} == {"a", "b", "d", "#"}
    assert {unbind.routing_key for unbind in fake.of(commands.Queue.Unbind)} == {"c"}
    assert {consume.consumer_tag for consume in fake.of(commands.Basic.Consume)} == {"e", "all"}


async def test_up_before_thousands_of_keys_are_bound(start: Start, fake: FakeBroker) -> None:
    bridge = await start((Exchange(name="e"), Exchange(name="d", type="direct"))).up()
    keys = [f"k{number}" for number in range(1000)]
    answers = [bridge.calls.bind("e", key) for key in keys]
    answers += [bridge.calls.bind(exchange, "k") for exchange in ("d", "amq.topic", "unheard-of")]
    assert {await within(answer) for answer in answers} == {None}
    assert bridge.counter("bind_storms") == 1
    await until(lambda: len([bind for bind in fake.of(commands.Queue.Bind) if bind.exchange == "e"]) == 1001)
    fake.seen.clear()
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())
    binds = [(bind.exchange, bind.routing_key) for bind in fake.of(commands.Queue.Bind)]
    assert binds[0] == ("e", "#")
    assert len(binds) < 500
    assert {("d", "k"), ("amq.topic", "k"), ("unheard-of", "k")} < set(binds)
    await until(lambda: {bind.routing_key for bind in fake.of(commands.Queue.Bind)} == {"#", "k", *keys})


@pytest.mark.parametrize("kind", ["direct", "fanout"])
async def test_everything_is_a_key_like_any_other_where_keys_are_no_patterns(
    start: Start, fake: FakeBroker, kind: Any
) -> None:
    bridge = await start((Exchange(name="e", type=kind),)).up()
    fake.answers[commands.Queue.Bind] = ignore
    for number in range(200):
        bridge.calls.bind("e", f"k{number}" if kind == "direct" else "")
    expected = [f"k{number}" for number in range(200)] if kind == "direct" else [""]
    await until(lambda: [bind.routing_key for bind in fake.of(commands.Queue.Bind)] == expected)
    assert bridge.counter("bind_storms") == 0


async def test_a_mailbox_that_cannot_be_had_back(start: Start, fake: FakeBroker) -> None:
    """Its node is down: the next generation lives elsewhere."""
    bridge = await start().up()
    assert await within(bridge.calls.bind("e", "a")) is None
    first = fake.of(commands.Queue.Declare)[0].queue
    text = f"NOT_FOUND - home node 'rabbit@b' of durable queue '{first}' in vhost '/' is down or inaccessible"
    fake.answers[commands.Queue.Declare] = times(1, refuse(404, text))
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())
    assert fake.of(commands.Queue.Declare)[-1].queue == f"{first}.1"
    assert fake.of(commands.Queue.Bind)[-1].queue == f"{first}.1"
    assert bridge.counter("mailboxes_lost") == 1


async def test_a_mailbox_that_is_deleted(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    assert await within(bridge.calls.bind("e", "a")) is None
    channel = fake.channel_of(commands.Basic.Consume)
    fake.peer("consume").send(channel, commands.Basic.Cancel("e", True), commands.Basic.Cancel("other", True))
    await until(lambda: len(fake.of(commands.Basic.Consume)) == 2)
    assert len(fake.of(commands.Queue.Bind)) == 2
    assert bridge.counter("mailboxes_lost") == 1


async def test_the_exchange_of_a_mailbox_goes_away_and_comes_back(start: Start, fake: FakeBroker) -> None:
    bridge = await start(()).up()
    assert await within(bridge.calls.bind("x", "a")) is None
    fake.answers[commands.Exchange.Declare] = refuse(404, NO_EXCHANGE)
    fake.answers[commands.Queue.Bind] = refuse(404, NO_EXCHANGE)
    answers = [bridge.calls.bind("x", key) for key in ("b", "c", "d")]
    assert [await within(answer) for answer in answers] == [Failure("not_found", NO_EXCHANGE)] * 3
    assert bridge.counter("bindings") == 1
    assert await within(bridge.calls.bind("y", "a")) == Failure("not_found", NO_EXCHANGE)
    fake.answers.clear()
    seen = len(fake.of(commands.Queue.Bind))
    await until(lambda: len(fake.of(commands.Queue.Bind)) > seen)
    assert fake.of(commands.Queue.Bind)[-1].routing_key == "a"
    assert len(fake.of(commands.Basic.Consume)) == 1
    assert await within(bridge.calls.bind("x", "e")) is None
    assert bridge.news.reasons == []


async def test_a_key_that_is_refused_costs_the_others_nothing(start: Start, fake: FakeBroker) -> None:
    text = "ACCESS_REFUSED - access to topic 'secret' in exchange 'e' in vhost '/' refused for user 'u'"

    def bind(peer: Peer, channel: int, frame: Any) -> bool:
        return frame.routing_key == "secret" and refuse(403, text)(peer, channel, frame)

    fake.answers[commands.Queue.Bind] = bind
    bridge = await start().up()
    answers = [bridge.calls.bind("e", key) for key in ("a", "secret", "b", "k" * 300, "c")]
    results = [await within(answer) for answer in answers]
    assert [result and result.code for result in results] == [None, "access_refused", None, "precondition_failed", None]
    assert bridge.counter("bindings") == 3
    assert bridge.news.reasons == []
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())


async def test_refused_when_it_is_restored(start: Start, fake: FakeBroker) -> None:
    """Permissions changed during the outage: the broker comes up all the same."""
    text = "ACCESS_REFUSED - access to topic 'a' in exchange 'e' in vhost '/' refused for user 'u'"
    bridge = await start().up()
    for key in "ab":
        assert await within(bridge.calls.bind("e", key)) is None

    def bind(peer: Peer, channel: int, frame: Any) -> bool:
        return frame.routing_key == "a" and refuse(403, text)(peer, channel, frame)

    fake.answers[commands.Queue.Bind] = bind
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())
    await until(lambda: fake.of(commands.Queue.Bind)[-1].routing_key == "b")
    assert bridge.news.reasons == [bridge.news.reasons[0]]


async def test_an_unbind_that_is_refused(start: Start, fake: FakeBroker) -> None:
    fake.answers[commands.Queue.Unbind] = refuse(403, "ACCESS_REFUSED - x")
    bridge = await start(bind_linger=0).up()
    assert await within(bridge.calls.bind("e", "a")) is None
    bridge.broker.unbind("e", "a")
    await until(lambda: fake.of(commands.Queue.Unbind))
    assert await within(bridge.calls.bind("e", "b")) is None
    assert len(fake.of(commands.Queue.Unbind)) == 1


async def test_an_unbind_that_was_lost_is_repeated(start: Start, fake: FakeBroker) -> None:
    bridge = await start(bind_linger=0).up()
    assert await within(bridge.calls.bind("e", "a")) is None
    fake.answers[commands.Queue.Unbind] = times(1, ignore)
    bridge.broker.unbind("e", "a")
    await until(lambda: fake.of(commands.Queue.Unbind))
    fake.peer("consume").send(fake.channel_of(commands.Queue.Unbind), commands.Channel.Close(541, "x", 0, 0))
    await until(lambda: len(fake.of(commands.Queue.Unbind)) == 2)
    assert await within(bridge.calls.bind("e", "a")) is None


async def test_the_mailbox_channel_closes(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    assert await within(bridge.calls.bind("e", "a")) is None
    fake.peer("consume").send(fake.channel_of(commands.Basic.Consume), commands.Channel.Close(541, "x", 0, 0))
    await until(lambda: len(fake.of(commands.Basic.Consume)) == 2)
    assert len(fake.of(commands.Queue.Bind)) == 1
    fake.peer("consume").deliver(fake.channel_of(commands.Basic.Consume), "e", 1, b"still here")
    assert (await bridge.news.next())[1].body == b"still here"


async def test_a_mailbox_that_cannot_be_consumed(start: Start, fake: FakeBroker) -> None:
    fake.answers[commands.Basic.Consume] = times(1, refuse(403, "ACCESS_REFUSED - x"))
    bridge = await start().up()
    failure = await within(bridge.calls.bind("e", "a"))
    assert failure in (None, Failure("access_refused", "ACCESS_REFUSED - x"))
    assert await within(bridge.calls.bind("e", "b")) is None
    await until(lambda: len(fake.of(commands.Basic.Consume)) == 2)


async def test_a_bind_that_is_never_answered(start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "REPLY_TIMEOUT", 0.1)
    fake.answers[commands.Queue.Bind] = ignore
    bridge = await start(outage_grace=0.0).up()
    failure = await within(bridge.calls.bind("e", "a"))
    assert (failure.code, failure.text) == (
        "broker_unavailable",
        "the broker is not available: it did not answer in time",
    )
    await until(lambda: fake.of(commands.Queue.Unbind))


async def test_errors_in_callbacks(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    bridge.broker.bind("e", "a", lambda failure: 1 / 0)
    bridge.broker.declare_queue(QueueSpec("q"), lambda failure: 1 / 0)
    assert await within(bridge.calls.bind("e", "a")) is None


# Queue consumers

SPEC = QueueSpec("q")


async def test_a_consumer(start: Start, fake: FakeBroker) -> None:
    bridge, inbox = await start().up(), Inbox()
    consumer = await bridge.calls.consumer(QueueSpec("q", bindings=(("e", "k"),)), inbox, prefetch=7)
    assert consumer.queue == "q"
    assert fake.of(commands.Basic.Qos)[-1].prefetch_count == 7
    peer, channel = fake.peer("consume"), fake.channel_of(commands.Basic.Consume)
    for tag in range(1, 8):
        peer.deliver(channel, "ctag", tag, b"%d" % tag)
    tags = [(await inbox.next())[1] for _ in range(7)]
    consumer.ack(tags[1:2])
    consumer.ack((tags[2], tags[0], tags[0], 999))
    consumer.nack((tags[4], tags[6]), requeue=True)
    consumer.nack(tags[3:4], requeue=False)
    consumer.ack(())
    consumer.ack(tags)
    consumer.ack(tags)
    await until(lambda: len(fake.of(commands.Basic.Ack)) == 3)
    assert [(ack.delivery_tag, ack.multiple) for ack in fake.of(commands.Basic.Ack)] == [
        (2, False),
        (3, True),
        (6, True),
    ]
    assert [(nack.delivery_tag, nack.multiple, nack.requeue) for nack in fake.of(commands.Basic.Nack)] == [
        (5, False, True),
        (7, False, True),
        (4, False, False),
    ]


async def test_tags_are_void_after_a_loss(start: Start, fake: FakeBroker) -> None:
    bridge, inbox = await start().up(), Inbox()
    consumer = await bridge.calls.consumer(SPEC, inbox, prefetch=0)
    fake.peer("consume").deliver(fake.channel_of(commands.Basic.Consume), "ctag", 1, b"1")
    _, old = await inbox.next()
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.down.wait())
    consumer.ack((old,))
    consumer.nack((old,), requeue=True)
    await within(bridge.news.up.wait())
    assert await inbox.next() == "restored"
    fake.peer("consume").deliver(fake.channel_of(commands.Basic.Consume), "ctag", 1, b"1")
    _, new = await inbox.next()
    assert new > old
    consumer.ack((old,))
    consumer.ack((new,))
    await until(lambda: fake.of(commands.Basic.Ack))
    assert [ack.delivery_tag for ack in fake.of(commands.Basic.Ack)] == [1]
    assert bridge.counter("consumers_restored") == 1


async def test_the_queue_is_deleted(start: Start, fake: FakeBroker) -> None:
    bridge, inbox = await start().up(), Inbox()
    consumer = await bridge.calls.consumer(SPEC, inbox)
    channel = fake.channel_of(commands.Basic.Consume)
    fake.peer("consume").send(channel, commands.Basic.Cancel("ctag", True))
    assert await inbox.next() == ("cancelled", None)
    await until(lambda: fake.of(commands.Basic.CancelOk))
    consumer.ack((1,))
    consumer.cancel()
    assert bridge.counter("consumers") == 0


async def test_the_channel_is_closed(start: Start, fake: FakeBroker) -> None:
    bridge, inbox = await start().up(), Inbox()
    await bridge.calls.consumer(SPEC, inbox)
    text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out"
    fake.peer("consume").send(fake.channel_of(commands.Basic.Consume), commands.Channel.Close(406, text, 0, 0))
    assert await inbox.next() == ("cancelled", Failure("precondition_failed", text))
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())
    assert inbox.events.empty()


@pytest.mark.parametrize("queue", ["", "q"])
async def test_refused_at_its_consumer(start: Start, fake: FakeBroker, queue: str) -> None:
    bridge = await start().up()
    fake.answers[commands.Basic.Consume] = refuse(403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")
    failure = await within(bridge.calls.consume(QueueSpec(queue, delete_on_failure=True), Inbox()))
    assert failure.code == "access_refused"
    await until(lambda: fake.of(commands.Queue.Delete))
    (delete,) = fake.of(commands.Queue.Delete)
    assert delete.queue == (queue or "amq.gen-1")


@pytest.mark.parametrize("method", [commands.Queue.Declare, commands.Basic.Consume])
@pytest.mark.parametrize("often", [1, 3, 9])
async def test_a_queue_that_is_being_deleted(start: Start, fake: FakeBroker, method: Any, often: int) -> None:
    """RabbitMQ may take it for one that is there when it is declared, and not find it then."""
    bridge = await start().up()
    text = "NOT_FOUND - no queue 'q' in vhost '/'"
    fake.answers[method] = times(often, refuse(404, text))
    result = await within(bridge.calls.consume(QueueSpec("q"), Inbox()))
    if often < 9:
        assert not isinstance(result, Failure)
        assert len(fake.of(method)) == often + 1
    else:
        assert result == Failure("not_found", text)
        assert len(fake.of(method)) == 5


async def test_refused_at_its_binding(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    fake.answers[commands.Queue.Bind] = refuse(404, NO_EXCHANGE)
    fake.answers[commands.Queue.Delete] = refuse(406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use")
    spec = QueueSpec("q", auto_delete=True, bindings=(("x", "k"),))
    assert await within(bridge.calls.consume(spec, Inbox())) == Failure("not_found", NO_EXCHANGE)
    assert await within(bridge.calls.declare(spec)) == Failure("not_found", NO_EXCHANGE)
    assert len(fake.of(commands.Queue.Delete)) == 2


@pytest.mark.parametrize(("messages", "users", "auto_delete"), [(1, 0, False), (0, 1, False), (0, 1, True)])
async def test_a_queue_that_is_of_use_stays(
    start: Start, fake: FakeBroker, messages: int, users: int, auto_delete: bool
) -> None:
    """A durable subscription's queue may hold messages when its consumer is refused for once."""
    bridge = await start().up()
    fake.answers[commands.Basic.Consume] = refuse(403, "ACCESS_REFUSED - x")

    def declare(peer: Peer, channel: int, frame: Any) -> bool:
        peer.send(channel, commands.Queue.DeclareOk(frame.queue, messages, users))
        return True

    fake.answers[commands.Queue.Declare] = declare
    spec = QueueSpec("q", auto_delete=auto_delete, delete_on_failure=True)
    assert isinstance(await within(bridge.calls.consume(spec, Inbox())), Failure)
    assert fake.of(commands.Queue.Delete) == []


async def test_a_queue_that_was_not_made_for_it_stays(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    fake.answers[commands.Basic.Consume] = refuse(403, "ACCESS_REFUSED - x")
    assert isinstance(await within(bridge.calls.consume(SPEC, Inbox())), Failure)
    assert isinstance(await within(bridge.calls.consume(QueueSpec("q", declare=False), Inbox())), Failure)
    assert fake.of(commands.Queue.Delete) == []


@pytest.mark.parametrize(
    "spec",
    [
        QueueSpec("q" * 300),
        QueueSpec("q", arguments={"x": object()}),
        QueueSpec("q", bindings=(("e", "k" * 300),), delete_on_failure=True),
        QueueSpec("q", consumer_arguments={"x": "y" * 5000}, delete_on_failure=True),
        QueueSpec("q", consumer_arguments={"x": object()}),
    ],
)
async def test_what_cannot_be_asked_for(start: Start, fake: FakeBroker, spec: QueueSpec) -> None:
    bridge = await start().up()
    failure = await within(bridge.calls.consume(spec, Inbox()))
    assert failure.code == "precondition_failed"
    assert not failure.fatal
    assert len(fake.of(commands.Queue.Delete)) == spec.delete_on_failure
    assert bridge.news.reasons == []


async def test_channels_run_out(start: Start, fake: FakeBroker) -> None:
    fake.channel_max = 20
    bridge = await start().up()
    results = [await within(bridge.calls.consume(QueueSpec(str(number)), Inbox())) for number in range(4)]
    failures = [result for result in results if isinstance(result, Failure)]
    assert failures
    assert all(failure.code == "resource_error" for failure in failures)
    assert await within(bridge.calls.bind("e", "k")) is None


@pytest.mark.parametrize(
    "where", [commands.Queue.Declare, commands.Channel.Open, commands.Basic.Qos, commands.Basic.Consume]
)
async def test_cancelled_while_it_is_set_up(start: Start, fake: FakeBroker, where: Any) -> None:
    bridge = await start().up()
    held: list[tuple[Peer, int, Any]] = []
    before = len(fake.of(where))

    def hold(peer: Peer, channel: int, frame: Any) -> bool:
        held.append((peer, channel, frame))
        return True

    if where is commands.Channel.Open:
        # The scratch channel is there already; the next one is the consumer's.
        assert await within(bridge.calls.declare(QueueSpec("other"))) is None
        before = len(fake.of(where))
    fake.answers[where] = hold
    answers: list[object] = []
    consumer = bridge.broker.consume(QueueSpec("q", auto_delete=True), 5, Inbox(), answers.append)
    await until(lambda: len(fake.of(where)) > before)
    fake.answers.clear()
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    consumer.cancel(done.set_result)
    assert await within(done) is None
    for peer, channel, frame in held:
        peer.send(channel, OK[type(frame)](frame))
    await until(lambda: fake.of(commands.Queue.Delete))
    assert answers == []
    assert bridge.counter("consumers") == 0
    assert bridge.news.reasons == []


async def test_cancelled_as_soon_as_it_stands(start: Start, fake: FakeBroker) -> None:
    """Its queue is left alone from then on: another subscription may have it by now."""
    bridge = await start().up()
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def cancel(consumer: QueueConsumer | Failure) -> None:
        assert not isinstance(consumer, Failure)
        consumer.cancel(done.set_result)

    spec = QueueSpec("q", auto_delete=True, delete_on_failure=True)
    bridge.broker.consume(spec, 5, Inbox(), cancel)
    assert await within(done) is None
    assert await within(bridge.calls.declare(QueueSpec("other"))) is None
    assert [frame.queue for frame in fake.of(commands.Queue.Declare)] == ["q", "other"]
    assert fake.of(commands.Queue.Delete) == []
    assert len(fake.of(commands.Basic.Cancel)) == len(fake.of(commands.Channel.Close)) == 1


async def test_cancelled_before_it_began(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    answers: list[object] = []
    bridge.broker.consume(SPEC, 5, Inbox(), answers.append).cancel()
    assert await within(bridge.calls.declare(SPEC)) is None
    assert answers == []
    assert fake.of(commands.Basic.Consume) == []


async def test_cancelled_in_the_middle_of_a_batch(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    received: list[bytes] = []

    class Once(Inbox):
        def on_queue_message(self, message: Message, tag: int) -> None:
            received.append(message.body)
            consumer.cancel()

    consumer = await bridge.calls.consumer(SPEC, Once())
    channel = fake.channel_of(commands.Basic.Consume)
    for tag in (1, 2, 3):
        fake.peer("consume").deliver(channel, "ctag", tag, b"%d" % tag)
    await until(lambda: fake.of(commands.Channel.Close))
    assert received == [b"1"]


async def test_messages_behind_the_answer_come_after_it(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    order: list[object] = []

    class Ordered(Inbox):
        def on_queue_message(self, message: Message, tag: int) -> None:
            order.append(message.body)

    def consume(peer: Peer, channel: int, frame: Any) -> bool:
        peer.send(channel, commands.Basic.ConsumeOk("ctag"))
        peer.deliver(channel, "ctag", 1, b"first")
        return True

    fake.answers[commands.Basic.Consume] = consume
    bridge.broker.consume(SPEC, 5, Ordered(), order.append)
    await until(lambda: len(order) == 2)
    assert order[1] == b"first"


async def test_a_cancel_that_the_loss_of_the_link_answers(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    consumer = await bridge.calls.consumer(SPEC, Inbox())
    fake.answers[commands.Channel.Close] = ignore
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    consumer.cancel(done.set_result)
    await until(lambda: fake.of(commands.Channel.Close))
    fake.peer("consume").drop()
    assert await within(done) is None


async def test_the_link_is_lost_while_it_is_set_up(start: Start, fake: FakeBroker) -> None:
    bridge = await start().up()
    for method in (commands.Queue.Declare, commands.Basic.Consume):
        fake.answers[method] = times(1, lambda peer, channel, frame: peer.drop() or True)
    inbox = Inbox()
    await bridge.calls.consumer(SPEC, inbox)
    assert inbox.events.empty()
    fake.answers[commands.Queue.Declare] = times(1, lambda peer, channel, frame: peer.drop() or True)
    assert await within(bridge.calls.declare(SPEC)) is None


async def test_lost_again_while_consumers_are_restored(start: Start, fake: FakeBroker) -> None:
    bridge, inbox = await start().up(), Inbox()
    await bridge.calls.consumer(SPEC, inbox)
    fake.answers[commands.Queue.Declare] = times(1, lambda peer, channel, frame: peer.drop() or True)
    fake.peer("consume").drop()
    assert await inbox.next() == "restored"
    assert inbox.events.empty()


async def test_an_exclusive_queue_that_the_dead_connection_still_holds(start: Start, fake: FakeBroker) -> None:
    bridge, inbox, gone = await start().up(), Inbox(), Inbox()
    await bridge.calls.consumer(QueueSpec("q", exclusive=True), inbox)
    cancelled = await bridge.calls.consumer(QueueSpec("q2", exclusive=True), gone)
    text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'"
    fake.answers[commands.Queue.Declare] = times(5, refuse(405, text))
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())
    cancelled.cancel()
    assert await inbox.next() == "restored"
    assert gone.events.empty()


async def test_a_queue_that_cannot_be_had_back(start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "RETRIES", 1)
    bridge, inbox = await start().up(), Inbox()
    await bridge.calls.consumer(SPEC, inbox)
    fake.answers[commands.Queue.Declare] = refuse(405, "RESOURCE_LOCKED - x")
    fake.peer("consume").drop()
    assert await inbox.next() == ("cancelled", Failure("resource_locked", "RESOURCE_LOCKED - x"))


async def test_a_consume_that_is_never_answered(
    start: Start, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "REPLY_TIMEOUT", 0.05)
    fake.answers[commands.Basic.Consume] = ignore
    bridge = await start().up()
    failure = await within(bridge.calls.consume(SPEC, Inbox()))
    assert failure.code == "broker_unavailable"


# Streams


def offset(number: int) -> commands.Basic.Properties:
    return commands.Basic.Properties(headers={"x-stream-offset": number})


@pytest.mark.parametrize(("settled", "resumed"), [(2, 7), (3, 8)])
async def test_a_stream_goes_on_where_it_was(start: Start, fake: FakeBroker, settled: int, resumed: int) -> None:
    bridge, inbox = await start().up(), Inbox()
    spec = QueueSpec("s", consumer_arguments={"x-stream-offset": "first", "x-priority": 1})
    consumer = await bridge.calls.consumer(spec, inbox)
    channel = fake.channel_of(commands.Basic.Consume)
    for tag, number in enumerate((5, 6, 7), 1):
        fake.peer("consume").deliver(channel, "ctag", tag, b"x", offset(number))
    tags = [(await inbox.next())[1] for _ in range(3)]
    consumer.nack(tags[:settled], requeue=True)
    await until(lambda: fake.of(commands.Basic.Ack))
    assert fake.of(commands.Basic.Nack) == []
    fake.peer("consume").drop()
    assert await inbox.next() == "restored"
    await until(lambda: len(fake.of(commands.Basic.Consume)) == 2)
    first, second = fake.of(commands.Basic.Consume)
    assert first.arguments == {"x-stream-offset": "first", "x-priority": 1}
    assert second.arguments == {"x-stream-offset": resumed, "x-priority": 1}


# Requests that cost the connection


def disconnect(code: int, text: str) -> Callable[[Peer, int, Any], bool]:
    def answer(peer: Peer, channel: int, frame: Any) -> bool:
        peer.send(0, commands.Connection.Close(code, text, 0, 0))
        return True

    return answer


async def test_a_subscription_that_costs_the_connection(start: Start, fake: FakeBroker) -> None:
    """It is found out and refused; those that were set up beside it succeed."""
    crash = disconnect(541, "INTERNAL_ERROR")
    fake.answers[commands.Basic.Consume] = lambda peer, channel, frame: (
        frame.queue == "bad" and crash(peer, channel, frame)
    )
    bridge = await start().up()
    answers = [bridge.calls.consume(QueueSpec(name), Inbox()) for name in ("a", "bad", "b")]
    results = [await within(answer) for answer in answers]
    assert results[1] == Failure("internal_error", "INTERNAL_ERROR")
    assert not isinstance(results[0], Failure)
    assert not isinstance(results[2], Failure)
    assert len(bridge.news.reasons) == 2
    assert bridge.counter("consumers") == 2


async def test_a_declaration_that_costs_the_connection(start: Start, fake: FakeBroker) -> None:
    crash = disconnect(540, "NOT_IMPLEMENTED - x")
    fake.answers[commands.Queue.Declare] = lambda peer, channel, frame: (
        frame.queue == "bad" and crash(peer, channel, frame)
    )
    bridge = await start().up()
    answers = [bridge.calls.declare(QueueSpec(name)) for name in ("a", "bad", "b")]
    assert [await within(answer) for answer in answers] == [
        None,
        Failure("not_implemented", "NOT_IMPLEMENTED - x"),
        None,
    ]
    assert len(bridge.news.reasons) == 2


async def test_a_consumer_that_costs_the_connection_when_it_is_restored(start: Start, fake: FakeBroker) -> None:
    bridge, good, bad = await start().up(), Inbox(), Inbox()
    await bridge.calls.consumer(QueueSpec("good"), good)
    await bridge.calls.consumer(QueueSpec("bad"), bad)
    crash = disconnect(541, "INTERNAL_ERROR")
    fake.answers[commands.Basic.Consume] = lambda peer, channel, frame: (
        frame.queue == "bad" and crash(peer, channel, frame)
    )
    fake.peer("consume").drop()
    event = await bad.next()
    while event == "restored":
        event = await bad.next()
    assert event == ("cancelled", Failure("internal_error", "INTERNAL_ERROR"))
    await within(bridge.news.up.wait())
    await until(lambda: bridge.broker.up)
    assert bridge.counter("consumers") == 1
    assert (await good.next()) == "restored"


async def test_a_message_that_costs_the_connection(start: Start, fake: FakeBroker) -> None:
    crash = disconnect(541, "INTERNAL_ERROR")
    fake.answers[commands.Basic.Publish] = lambda peer, channel, frame: (
        frame.routing_key == "bad" and crash(peer, channel, frame)
    )
    bridge = await start().up()
    answers = [bridge.calls.publish("e", key) for key in ("a", "bad", "b")]
    assert [await within(answer) for answer in answers] == [None, Failure("internal_error", "INTERNAL_ERROR"), None]


async def test_an_orderly_end_accuses_nobody(start: Start, fake: FakeBroker) -> None:
    fake.answers[commands.Basic.Consume] = times(3, disconnect(320, "CONNECTION_FORCED - x"))
    fake.answers[commands.Basic.Publish] = times(3, disconnect(320, "CONNECTION_FORCED - x"))
    bridge = await start().up()
    answer = bridge.calls.publish("e", "k")
    await bridge.calls.consumer(SPEC, Inbox())
    assert await within(answer) is None
