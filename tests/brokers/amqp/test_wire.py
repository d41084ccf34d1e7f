"""Connections, against fake servers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pamqp import commands
from pamqp.heartbeat import Heartbeat

from stompbridge.brokers.amqp import methods
from stompbridge.brokers.amqp.channel import Channel, ChannelClosed, LinkLost
from stompbridge.brokers.amqp.link import Link
from stompbridge.brokers.amqp.splitter import Delivery
from stompbridge.brokers.amqp.wire import Wire, WireError
from stompbridge.histogram import Histogram
from tests.brokers.amqp.fake import FakeBroker, until, within

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    broker = FakeBroker()
    await broker.start()
    yield broker
    await broker.stop()


class Owner:
    """A wire's owner."""

    def __init__(self, url: str, heartbeat: float = 60) -> None:
        self.lost: list[str] = []
        self.flows = 0
        self.latency = Histogram()
        self.wire = Wire(url, "stompbridge test consume", heartbeat, self.lost.append, self.flow, latency=self.latency)

    def flow(self) -> None:
        self.flows += 1


@pytest.fixture
async def owner(fake: FakeBroker) -> AsyncIterator[Owner]:
    owner = Owner(fake.url)
    await owner.wire.open(5)
    yield owner
    await owner.wire.close(2)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host/", "no amqp:// or amqps:// URL"),
        ("amqp://", "no amqp:// or amqps:// URL"),
        ("amqp://user:secret@host:99999/", "no amqp:// or amqps:// URL"),
        ("amqp://user:secret@[::1", "no amqp:// or amqps:// URL"),
    ],
)
async def test_addresses_that_are_none(url: str, words: str) -> None:
    with pytest.raises(WireError, match=words) as refusal:
        Owner(url)
    assert "secret" not in str(refusal.value)


async def test_connection_refused(fake: FakeBroker) -> None:
    await fake.stop()
    with pytest.raises(WireError, match=r"127\.0\.0\.1:\d+: connection refused"):
        await Owner(fake.url).wire.open(5)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Serve], Awaitable[str]]]:
    servers: list[asyncio.Server] = []

    async def start(handler: Serve) -> str:
        servers.append(await asyncio.start_server(handler, "127.0.0.1", 0))
        return f"amqp://guest:secret@127.0.0.1:{servers[0].sockets[0].getsockname()[1]}/"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed|lost|unexpectedly"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not AMQP"),
        (b"AMQP\x00\x01\x00\x00", "protocol header|AMQP"),
        (b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x1f\xce", "."),
    ],
)
async def test_a_server_that_is_no_broker(serve: Callable[[Serve], Awaitable[str]], answer: bytes, words: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(answer)
        writer.close()

    url = await serve(handler)
    with pytest.raises(WireError, match=words) as refusal:
        await Owner(url).wire.open(5)
    assert "secret" not in str(refusal.value)


async def test_a_server_that_does_not_answer(serve: Callable[[Serve], Awaitable[str]]) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    url = await serve(handler)
    with pytest.raises(WireError, match=r"no answer within 0\.1 s"):
        await Owner(url).wire.open(0.1)


async def test_tls_to_a_server_without(fake: FakeBroker) -> None:
    with pytest.raises(WireError, match=r"127\.0\.0\.1:\d+: "):
        await Owner(fake.url.replace("amqp://", "amqps://") + "?no_verify_ssl=1").wire.open(5)


async def test_a_heartbeat_of_the_urls_own(fake: FakeBroker) -> None:
    owner = Owner(fake.url + "?heartbeat=33", heartbeat=5)
    await owner.wire.open(5)
    assert owner.wire.heartbeat == 33
    await owner.wire.close(2)
    owner = Owner(fake.url, heartbeat=0)
    await owner.wire.open(5)
    assert owner.wire.heartbeat == 0
    owner.wire.check(time.monotonic() + 1000)
    assert owner.lost == []
    await owner.wire.close(2)


async def test_what_the_broker_learns(fake: FakeBroker, owner: Owner) -> None:
    start = fake.of(commands.Connection.StartOk)[0]
    properties = start.client_properties
    assert properties["connection_name"] == "stompbridge test consume"
    assert properties["product"] == "stompbridge"
    assert properties["capabilities"]["connection.blocked"]
    assert properties["capabilities"]["consumer_cancel_notify"]
    assert owner.wire.frame_max == 4096
    assert owner.wire.channel_max == 100
    assert owner.wire.answers_cancel
    assert (owner.wire.user, owner.wire.vhost) == ("guest", "/")


async def test_blocked_and_unblocked(fake: FakeBroker, owner: Owner) -> None:
    fake.peer("consume").send(0, commands.Connection.Blocked("low on memory"))
    await until(lambda: owner.wire.blocked == "low on memory")
    fake.peer("consume").send(0, commands.Connection.Unblocked())
    await until(lambda: owner.wire.blocked is None)
    assert owner.flows == 2


async def test_the_broker_closes(fake: FakeBroker, owner: Owner) -> None:
    channel = await owner.wire.open_channel()
    fake.peer("consume").send(0, commands.Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0))
    await until(lambda: owner.lost)
    assert owner.lost == [f"{owner.wire.where}: 320 CONNECTION_FORCED - shutdown"]
    assert channel.closed
    channel.ack(1)
    owner.wire.send(b"nothing")
    with pytest.raises(LinkLost):
        await owner.wire.open_channel()


async def test_the_connection_breaks(fake: FakeBroker, owner: Owner) -> None:
    channel = await owner.wire.open_channel()
    fake.answers[commands.Basic.Qos] = lambda peer, channel, frame: peer.drop() or True  # type: ignore[func-returns-value]
    with pytest.raises(LinkLost):
        await within(channel.call(methods.basic_qos(1)))
    assert len(owner.lost) == 1
    assert "lost" in owner.lost[0]


async def test_garbage(fake: FakeBroker, owner: Owner) -> None:
    fake.peer("consume").write(b"garbage garbage")
    await until(lambda: owner.lost)
    assert "not AMQP" in owner.lost[0]


async def test_an_answer_to_nothing(fake: FakeBroker, owner: Owner) -> None:
    channel = await owner.wire.open_channel()
    fake.peer("consume").send(channel.number, commands.Queue.BindOk())
    await until(lambda: owner.lost)
    assert "not AMQP" in owner.lost[0]


async def test_silence(fake: FakeBroker) -> None:
    owner = Owner(fake.url, heartbeat=1)
    await owner.wire.open(5)
    now = time.monotonic()
    owner.wire.check(now + 2)
    assert owner.lost == []
    owner.wire.stalled(10)
    owner.wire.check(now + 12)
    assert owner.lost == []
    owner.wire.check(now + 13)
    owner.wire.check(now + 14)
    assert owner.lost == [f"{owner.wire.where}: the broker was silent for 3 s"]
    await owner.wire.close(0)


async def test_the_library_does_not_starve_for_heartbeats(fake: FakeBroker, owner: Owner) -> None:
    """A broker that delivers sends no heart-beats: the library is given some."""
    batches: list[list[Delivery]] = []
    channel = await owner.wire.open_channel()
    channel.on_deliveries = batches.append
    fake.peer("consume").deliver(channel.number, "c", 1, b"x")
    await until(lambda: batches)
    assert owner.wire.received(b"") == (b"", [])
    owner.wire._last_passed -= 2
    passed, _ = owner.wire.received(b"")
    assert passed == b"\x08\x00\x00\x00\x00\x00\x00\xce"
    assert owner.wire.received(b"") == (b"", [])
    fake.peer("consume").send(0, Heartbeat())
    fake.peer("consume").deliver(channel.number, "c", 2, b"x")
    await until(lambda: len(batches) == 2)


async def test_deliveries_come_in_batches(fake: FakeBroker, owner: Owner) -> None:
    batches: list[tuple[int, list[bytes]]] = []

    def take(batch: list[Delivery]) -> None:
        batches.append((batch[0].channel, [delivery.message.body for delivery in batch]))

    first, second = await owner.wire.open_channel(), await owner.wire.open_channel()
    first.on_deliveries = second.on_deliveries = take
    peer = fake.peer("consume")
    for number, body in [(1, b"a"), (1, b"b"), (2, b"c"), (1, b"d")]:
        peer.deliver(number, "c", 1, body)
    peer.send(1, commands.Basic.Ack(1, False))
    peer.deliver(1, "c", 1, b"e")
    await until(lambda: len(batches) >= 4)
    assert batches == [(1, [b"a", b"b"]), (2, [b"c"]), (1, [b"d"]), (1, [b"e"])]
    # Each message is measured, those of a batch as one.
    assert owner.latency.count == 5
    assert 0 < owner.latency.sum < 60


async def test_errors_in_callbacks_cost_nobody_else(fake: FakeBroker, owner: Owner) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    seen: list[object] = []
    channel = await owner.wire.open_channel()
    channel.on_deliveries = channel.on_confirm = fail
    channel.on_cancelled = seen.append
    peer = fake.peer("consume")
    peer.deliver(1, "c", 1, b"x")
    peer.send(1, commands.Basic.Ack(1, False), commands.Basic.Cancel("tag", True))
    await until(lambda: seen)
    assert owner.lost == []


async def test_nothing_comes_on_a_closed_channel(fake: FakeBroker, owner: Owner) -> None:
    seen: list[object] = []
    fake.answers[commands.Channel.Close] = lambda peer, channel, frame: True
    closed, other = await owner.wire.open_channel(), await owner.wire.open_channel()
    for channel in (closed, other):
        channel.on_deliveries = channel.on_confirm = channel.on_returned = channel.on_cancelled = seen.append
    closed.close()
    peer = fake.peer("consume")
    peer.deliver(closed.number, "c", 1, b"x")
    peer.send(closed.number, commands.Basic.Ack(1, False), commands.Basic.Cancel("c", True))
    peer.send(other.number, commands.Basic.Cancel("last", True))
    await until(lambda: seen)
    assert seen == ["last"]


async def test_channel_numbers(fake: FakeBroker) -> None:
    fake.channel_max = 3
    owner = Owner(fake.url)
    await owner.wire.open(5)
    channels = [await owner.wire.open_channel() for _ in range(3)]
    assert [channel.number for channel in channels] == [1, 2, 3]
    with pytest.raises(ChannelClosed) as refusal:
        await owner.wire.open_channel()
    assert refusal.value.failure.code == "resource_error"
    assert not refusal.value.failure.fatal
    closed = asyncio.Event()
    channels[1].close(closed.set)
    await within(closed.wait())
    with pytest.raises(ChannelClosed):
        await owner.wire.open_channel(spare=1)
    assert (await owner.wire.open_channel()).number == 2
    await owner.wire.close(2)


async def test_back_pressure(fake: FakeBroker, owner: Owner) -> None:
    peer = fake.peer("consume")
    peer.pause()
    while not owner.wire.paused:
        owner.wire.send(b"\x08\x00\x00\x00\x00\x00\x00\xce" * 50_000)
        await asyncio.sleep(0)
    peer.resume()
    await until(lambda: not owner.wire.paused)
    assert owner.flows >= 2


async def test_closing_flushes_and_is_quiet(fake: FakeBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    owner = Owner(fake.url)
    await owner.wire.open(5)
    channel = await owner.wire.open_channel()
    channel.ack(7)
    await owner.wire.close(2)
    await until(lambda: fake.of(commands.Connection.Close))
    assert [frame.delivery_tag for frame in fake.of(commands.Basic.Ack)] == [7]
    await owner.wire.close(2)
    assert owner.lost == []
    assert caplog.records == []


async def test_both_connections_of_a_link(fake: FakeBroker) -> None:
    link = Link(fake.url, "n", 60, lambda: None)
    await link.open(5)
    assert {peer.name for peer in fake.peers} == {"stompbridge n publish", "stompbridge n consume"}
    assert not link.congested
    fake.peer("consume").send(0, commands.Connection.Blocked("x"))
    await until(lambda: link.consume.blocked)
    assert not link.congested
    fake.peer("publish").send(0, commands.Connection.Blocked("x"))
    await until(lambda: link.congested)
    link.check(time.monotonic())
    link.stalled(1)
    fake.peer("publish").drop()
    assert "lost" in await within(link.lost)
    fake.peer("consume").drop()
    await until(lambda: link.consume.closed)
    await link.close(0)


async def test_only_one_connection_can_be_made(fake: FakeBroker) -> None:
    def only_one(peer: object, channel: int, frame: object) -> bool:
        if len(fake.peers) > 1:
            fake.peers[-1].send(0, commands.Connection.Close(530, "NOT_ALLOWED - too many connections", 10, 40))
            return True
        return False

    fake.answers[commands.Connection.Open] = only_one
    link = Link(fake.url, "n", 60, lambda: None)
    with pytest.raises(WireError, match="530 NOT_ALLOWED - too many connections"):
        await link.open(5)
    assert link.consume.closed


async def test_scratch_channels_are_used_again(fake: FakeBroker) -> None:
    link = Link(fake.url, "n", 60, lambda: None)
    await link.open(5)
    numbers: list[int] = []

    async def use(request: methods.Request) -> None:
        async with link.scratch() as channel:
            numbers.append(channel.number)
            await channel.call(request)

    await use(methods.basic_qos(1))
    await use(methods.basic_qos(1))
    assert numbers == [1, 1]
    fake.peer("consume").send(1, commands.Channel.Close(541, "INTERNAL_ERROR", 0, 0))
    await until(lambda: fake.of(commands.Channel.CloseOk))
    await use(methods.basic_qos(1))
    assert numbers[-1] == 2
    # Whoever is cancelled in the middle leaves nothing behind.
    fake.answers[commands.Queue.Bind] = lambda peer, channel, frame: True
    task = asyncio.create_task(use(methods.queue_bind("q", "e", "k")))
    await until(lambda: fake.of(commands.Queue.Bind))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: fake.of(commands.Channel.Close))
    await use(methods.basic_qos(1))
    assert numbers[-2:] == [2, 3]
    await link.close(2)


async def test_an_open_that_is_cancelled(fake: FakeBroker, owner: Owner) -> None:
    fake.answers[commands.Channel.Open] = lambda peer, channel, frame: channel == 1
    opening = asyncio.create_task(owner.wire.open_channel())
    await until(lambda: fake.of(commands.Channel.Open))
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await until(lambda: fake.of(commands.Channel.Close))
    channel: Channel = await owner.wire.open_channel()
    assert channel.number == 2
