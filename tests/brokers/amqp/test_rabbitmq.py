"""The broker against RabbitMQ itself."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stompbridge.brokers.amqp import AmqpBroker, bindings
from stompbridge.brokers.base import Failure, QueueSpec
from stompbridge.config import BrokerSettings, Exchange
from tests.brokers.amqp.fake import Calls, Inbox, News, until, within
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq


class Bridge:
    """A broker under test with its listener."""

    def __init__(self, url: str, exchange: str, **settings: Any) -> None:
        fields: dict[str, Any] = {
            "kind": "rabbitmq",
            "urls": (url,),
            "exchange": (Exchange(name=exchange),),
            "reconnect_max": 0.5,
        }
        self.broker = AmqpBroker(BrokerSettings(**(fields | settings)), "test")
        self.calls = Calls(self.broker)
        self.news = News()

    async def up(self) -> Bridge:
        await self.broker.start(self.news)
        await within(self.news.up.wait())
        return self

    def counter(self, name: str) -> int:
        return (self.broker.counters() | self.broker.gauges())[name]


Start = Callable[..., Bridge]


@pytest.fixture
def exchange() -> str:
    return f"e.{secrets.token_hex(4)}"


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    bridges: list[Bridge] = []

    def make(*args: Any, **settings: Any) -> Bridge:
        bridges.append(Bridge(*args, **settings))
        return bridges[-1]

    yield make
    for bridge in bridges:
        await within(bridge.broker.stop())


async def test_bad_credentials(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = start(rabbitmq.url_for("guest", "not-the-password"), exchange)
    await bridge.broker.start(bridge.news)
    await within(bridge.news.down.wait())
    assert not bridge.broker.up
    reason = bridge.broker.down_reason
    assert reason.startswith(f"127.0.0.1:{rabbitmq.port}: login refused for user 'guest' (ACCESS_REFUSED")
    assert "not-the-password" not in reason


async def test_a_missing_virtual_host(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = start(rabbitmq.url_for("guest", "guest", "missing"), exchange)
    await bridge.broker.start(bridge.news)
    await within(bridge.news.down.wait())
    assert "530 NOT_ALLOWED" in bridge.broker.down_reason


async def test_an_exchange_of_another_type(rabbitmq: RabbitMQ, start: Start) -> None:
    bridge = start(rabbitmq.url, "amq.direct")
    await bridge.broker.start(bridge.news)
    await within(bridge.news.down.wait())
    assert "inequivalent arg 'type' for exchange 'amq.direct'" in bridge.broker.down_reason


async def test_bodies_over_many_frames(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(rabbitmq.url, exchange).up()
    assert await within(bridge.calls.bind(exchange, "k")) is None
    body = secrets.token_bytes(1_000_000)
    assert await within(bridge.calls.publish(exchange, "k", body)) is None
    assert await bridge.news.bodies(1) == [body]


async def test_unknown_exchanges_while_others_publish(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(rabbitmq.url, exchange).up()
    assert await within(bridge.calls.bind(exchange, "k")) is None
    good, bad = [], []
    for number in range(300):
        good.append(bridge.calls.publish(exchange, "k", b"%d" % number))
        bad.append(bridge.calls.publish(f"missing.{number % 20}", "k"))
        if number % 50 == 0:
            bad.append(bridge.calls.bind(f"missing.{number}", "k"))
            await asyncio.sleep(0)
    assert [await within(answer) for answer in good] == [None] * 300
    assert {(await within(answer)).code for answer in bad} == {"not_found"}
    assert await bridge.news.bodies(300) == [b"%d" % number for number in range(300)]
    assert bridge.counter("republished") == 0


async def test_an_exchange_that_is_deleted(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    """The publish channel closes under everybody: only who meant that exchange learns of it."""
    bridge = await start(rabbitmq.url, exchange).up()
    other = await start(rabbitmq.url, f"{exchange}.gone").up()
    assert await within(bridge.calls.bind(exchange, "k")) is None
    assert await within(bridge.calls.publish(f"{exchange}.gone", "k")) is None
    await asyncio.to_thread(
        rabbitmq.evaluate,
        f'rabbit_exchange:delete({{resource, <<"/">>, exchange, <<"{exchange}.gone">>}}, false, <<"t">>).',
    )
    answers = []
    for number in range(100):
        answers.append(bridge.calls.publish(exchange, "k", b"%d" % number))
        if number == 50:
            lost = bridge.calls.publish(f"{exchange}.gone", "k")
    text = f"NOT_FOUND - no exchange '{exchange}.gone' in vhost '/'"
    assert await within(lost) == Failure("not_found", text)
    assert [await within(answer) for answer in answers] == [None] * 100
    received: dict[bytes, None] = {}
    while len(received) < 100:
        received[(await bridge.news.next())[1].body] = None
    assert list(received) == [b"%d" % number for number in range(100)]
    assert bridge.news.reasons == other.news.reasons == []


async def test_a_message_that_closes_the_channel(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    """The broker's reason names no exchange: whoever it was is found."""
    bridge = await start(rabbitmq.url, exchange).up()
    answers = [
        bridge.calls.publish(exchange, "k", b"%d" % number, expiration="soon" if number == 20 else None)
        for number in range(40)
    ]
    results = [await within(answer) for answer in answers]
    assert [number for number, result in enumerate(results) if result is not None] == [20]
    assert results[20].code == "precondition_failed"
    assert "invalid expiration" in results[20].text


async def test_the_queue_is_full(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(rabbitmq.url, exchange).up()
    spec = QueueSpec(exchange, auto_delete=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    inbox = Inbox()
    consumer = await bridge.calls.consumer(spec, inbox, prefetch=1)
    results = [await within(bridge.calls.publish("", exchange, b"%d" % number)) for number in range(4)]
    assert [result and result.code for result in results] == [None, None, "rejected", "rejected"]
    (message, tag) = await inbox.next()
    assert message.body == b"0"
    consumer.ack((tag,))
    assert (await inbox.next())[0].body == b"1"


async def test_user_id(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(rabbitmq.url, exchange).up()
    assert await within(bridge.calls.publish(exchange, "k", user_id="guest")) is None
    assert (await within(bridge.calls.publish(exchange, "k", user_id="eve"))).code == "precondition_failed"


async def test_the_queue_of_a_consumer_and_of_a_mailbox_is_deleted(
    rabbitmq: RabbitMQ, start: Start, exchange: str
) -> None:
    bridge, inbox = await start(rabbitmq.url, exchange).up(), Inbox()
    await bridge.calls.consumer(QueueSpec(exchange), inbox)
    assert await within(bridge.calls.bind(exchange, "k")) is None
    names = [queue["name"] for queue in await asyncio.to_thread(rabbitmq.queues)]
    (mailbox,) = [name for name in names if name.endswith(f".{exchange}")]
    for name in (exchange, mailbox):
        await asyncio.to_thread(rabbitmq.ctl, "delete_queue", name)
    assert await inbox.next() == ("cancelled", None)
    await until(lambda: bridge.counter("mailboxes_lost"))
    await until(lambda: bridge.counter("binds") == 2)
    assert await within(bridge.calls.bind(exchange, "j")) is None
    assert await within(bridge.calls.publish(exchange, "k", b"again")) is None
    assert await bridge.news.bodies(1) == [b"again"]


async def test_streams(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    """RabbitMQ closes the connection for what it does not do with them."""
    bridge, inbox = await start(rabbitmq.url, exchange).up(), Inbox()
    spec = QueueSpec(exchange, arguments={"x-queue-type": "stream"}, consumer_arguments={"x-stream-offset": "first"})
    assert await within(bridge.calls.declare(spec)) is None
    for number in range(3):
        assert await within(bridge.calls.publish("", exchange, b"%d" % number)) is None
    failure = await within(bridge.calls.consume(spec, Inbox(), prefetch=0))
    assert failure.code == "precondition_failed"
    consumer = await bridge.calls.consumer(spec, inbox)
    for number in range(3):
        message, tag = await inbox.next()
        assert (message.body, message.headers) == (b"%d" % number, {"x-stream-offset": number})
        consumer.nack((tag,), requeue=number == 1)
    bad = QueueSpec(exchange, declare=False, consumer_arguments={"x-stream-offset": "nonsense"})
    failure = await within(bridge.calls.consume(bad, Inbox()))
    assert failure.code == "internal_error"
    assert await inbox.next() == "restored"
    assert await within(bridge.calls.publish("", exchange, b"3")) is None
    event = await inbox.next()
    while event == "restored":
        event = await inbox.next()
    assert event[0].body == b"3"


async def test_a_quorum_queue_whose_binding_is_refused(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(rabbitmq.url, exchange).up()
    spec = QueueSpec(
        f"{exchange}.q",
        arguments={"x-queue-type": "quorum"},
        bindings=((f"{exchange}.missing", "k"),),
        delete_on_failure=True,
    )
    failure = await within(bridge.calls.consume(spec, Inbox()))
    assert failure.code == "not_found"
    assert bridge.news.reasons == []
    assert (await within(bridge.calls.publish("", spec.name))).code == "no_route"


async def test_nothing_is_left_behind(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(rabbitmq.url, exchange).up()
    assert await within(bridge.calls.bind(exchange, "k")) is None
    await within(bridge.broker.stop())
    assert [queue for queue in await asyncio.to_thread(rabbitmq.queues) if exchange in queue["name"]] == []


async def test_many_bindings_at_once(rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(rabbitmq.url, exchange, bind_linger=0).up()
    keys = [f"{exchange}.{number}" for number in range(300)]
    answers = [bridge.calls.bind("amq.direct", key) for key in keys]
    assert [await within(answer) for answer in answers] == [None] * 300
    for key in keys:
        bridge.broker.unbind("amq.direct", key)
    assert await within(bridge.calls.bind("amq.direct", "last")) is None
    assert bridge.counter("bindings") == 1


async def test_a_storm_of_bindings(
    rabbitmq: RabbitMQ, start: Start, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbered messages go on all the while: from its answer on each key gets every one, once."""
    monkeypatch.setattr(bindings, "CALM", 0.5)
    bridge, sender = [await start(rabbitmq.url, exchange).up() for _ in range(2)]
    keys = [f"key.{number}" for number in range(400)]
    answers = {key: bridge.calls.bind(exchange, key) for key in keys}
    promised, sent = set(), 0
    while not bridge.counter("unbinds") or sent % len(keys):
        key = keys[sent % len(keys)]
        if answers[key].done():
            assert answers[key].result() is None
            promised.add(b"%d" % sent)
        assert await within(sender.calls.publish(exchange, key, b"%d" % sent)) is None
        sent += 1
    assert await within(sender.calls.publish(exchange, keys[0], b"last")) is None
    received = []
    while received[-1:] != [b"last"]:
        received += await bridge.news.bodies(1)
    assert len(received) == len(set(received))
    assert promised <= set(received)
    assert bridge.counter("bind_storms") == 1
    listed = await asyncio.to_thread(rabbitmq.ctl, "list_bindings", "--no-table-headers", "source_name", "routing_key")
    bound = [line.split("\t")[1] for line in listed.splitlines() if line.startswith(f"{exchange}\t")]
    assert sorted(bound) == sorted(keys)


async def test_killed_and_started_again(
    own_rabbitmq: RabbitMQ, start: Start, exchange: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Mailbox and consumers come back, what was unconfirmed is published again, nobody hears of the gap."""
    caplog.set_level(logging.INFO)
    bridge, inbox = await start(own_rabbitmq.url, exchange).up(), Inbox()
    for key in ("k", "a.*"):
        assert await within(bridge.calls.bind(exchange, key)) is None
    consumer = await bridge.calls.consumer(QueueSpec(f"{exchange}.q"), inbox)
    assert await within(bridge.calls.publish("", f"{exchange}.q", b"kept", delivery_mode=2)) is None
    message, old = await inbox.next()
    assert (message.body, message.redelivered) == (b"kept", False)

    own_rabbitmq.suspend()
    answers = [bridge.calls.publish(exchange, "k", b"%d" % n, delivery_mode=2, sender="s", seq=n) for n in range(100)]
    await asyncio.sleep(0.05)
    own_rabbitmq.kill()
    await within(bridge.news.down.wait())
    answers += [bridge.calls.publish(exchange, "k", b"%d" % n, sender="s", seq=n) for n in range(100, 110)]
    bound = bridge.calls.bind(exchange, "late")
    consuming = bridge.calls.consume(QueueSpec(f"{exchange}.late"), Inbox())
    consumer.ack((old,))
    await asyncio.to_thread(own_rabbitmq.start)
    await within(bridge.news.up.wait())

    assert [await within(answer) for answer in answers] == [None] * 110
    assert await within(bound) is None
    assert not isinstance(await within(consuming), Failure)
    assert await inbox.next() == "restored"
    message, new = await inbox.next()
    assert (message.body, message.redelivered) == (b"kept", True)
    assert new > old
    consumer.ack((old,))
    consumer.ack((new,))
    received = [(await bridge.news.next())[1] for _ in range(110)]
    assert [(m.body, m.sender, m.seq) for m in received] == [(b"%d" % n, "s", n) for n in range(110)]
    assert await within(bridge.calls.publish(exchange, "a.b", b"still bound")) is None
    assert await bridge.news.bodies(1) == [b"still bound"]
    assert len(bridge.news.reasons) == bridge.counter("reconnects") == 1
    assert bridge.counter("republished") == 100
    await within(bridge.broker.stop())
    queue = f"{exchange}.q"
    (left,) = [q["messages"] for q in await asyncio.to_thread(own_rabbitmq.queues, "messages") if q["name"] == queue]
    assert left == "0"
    assert [record for record in caplog.records if record.name in ("asyncio", "aiormq.connection")] == []


@pytest.mark.slow
async def test_a_resource_alarm_and_an_orderly_restart(own_rabbitmq: RabbitMQ, start: Start, exchange: str) -> None:
    bridge = await start(own_rabbitmq.url, exchange).up()
    await asyncio.to_thread(own_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.0001")
    assert not bridge.broker.congested
    answer = bridge.calls.publish(exchange, "k")
    await until(lambda: bridge.broker.congested)
    assert await within(bridge.calls.bind(exchange, "k")) is None
    clear = asyncio.Event()
    bridge.broker.when_clear(clear.set)
    await asyncio.to_thread(own_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.6")
    await within(clear.wait())
    assert await within(answer) is None
    await asyncio.to_thread(own_rabbitmq.restart)
    await within(bridge.news.up.wait())
    assert "320 CONNECTION_FORCED" in bridge.news.reasons[0]
    assert await within(bridge.calls.publish(exchange, "k")) is None
