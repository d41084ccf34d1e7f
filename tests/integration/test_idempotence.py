"""Nothing twice, over real parts: two bridges, one RabbitMQ, one Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from pamqp import commands

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ, scripts
from tests.support.redis import Redis, binary
from tests.support.requirements import require
from tests.support.stomp import TIMEOUT, Client, Frame, decode, encode

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis]

DURABLE = {"durable": "true", "auto_delete": "false"}


def config(rabbitmq: str, redis: Redis, *more: str) -> str:
    lines = ["[dedup]", 'store = "redis"', f'redis_url = "{redis.url}"', 'lock_ttl = "1s"', 'history_ttl = "60s"']
    return configs.rabbitmq(rabbitmq, "\n".join([*lines, *more]))


def named(name: str) -> dict[str, str]:
    return {"accept-version": "1.2", "heart-beat": "0,0", "client-id": name}


@pytest.fixture(scope="module")
def pair(rabbitmq: RabbitMQ, redis_server: Redis) -> Iterator[tuple[Bridge, Bridge]]:
    """Two running bridges that share a store."""
    bridges = tuple(Bridge(config(rabbitmq.url, redis_server)) for _ in range(2))
    try:
        for bridge in bridges:
            bridge.start()
        for bridge in bridges:
            bridge.wait_ready()
        yield bridges[0], bridges[1]
        for bridge in bridges:
            assert bridge.stop() == 0
            bridge.assert_clean_log()
    finally:
        for bridge in bridges:
            bridge.remove()


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server of the test's own, running, to stop at will."""
    require(binary(), "redis-server")
    server = Redis()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
async def program(rabbitmq: RabbitMQ) -> AsyncIterator[AbstractChannel]:
    """Another program's AMQP channel."""
    connection = await aiormq.connect(rabbitmq.url)
    yield await connection.channel()
    await connection.close()


async def queued(program: AbstractChannel, queue: str, count: int) -> None:
    """Waits until so many messages of a queue wait for a consumer. RabbitMQ does not tell: it has to be asked."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            if (await program.queue_declare(queue, passive=True)).message_count == count:
                return
            await asyncio.sleep(0.02)


async def left(bridge: Bridge, client: Client) -> None:
    """Breaks a client's connection, and waits until the bridge knows."""
    client.abort()
    await asyncio.to_thread(bridge.wait_log, "session_closed", session=client.session)


async def back(bridge: Bridge, redis: Redis) -> None:
    """Starts the store again, and waits until the bridge has it."""
    ups = len(bridge.events("store_up"))
    await asyncio.to_thread(redis.start)
    async with asyncio.timeout(TIMEOUT):
        while True:
            if len(bridge.events("store_up")) > ups:
                return
            await asyncio.sleep(0.02)


class Wire:
    """Between a bridge and RabbitMQ. Once ``lossy``, what the bridge says gets lost."""

    def __init__(self, port: int) -> None:
        self.lossy = False
        self.port = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """All connections break, and none can be had any more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, broker_writer]
        self._pumps.append(asyncio.create_task(self._pump(reader, broker_writer, lambda: self.lossy)))
        self._pumps.append(asyncio.create_task(self._pump(broker_reader, writer, lambda: False)))

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: Callable[[], bool]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not lost():
                    writer.write(data)
                    await writer.drain()


@pytest.fixture
async def wire(rabbitmq: RabbitMQ) -> AsyncIterator[Wire]:
    wire = Wire(rabbitmq.port)
    await wire.start()
    yield wire
    await wire.cut()


# Receivers


@pytest.mark.parametrize("ack", ["auto", "client-individual"])
@pytest.mark.parametrize(
    ("kind", "options"), [("/topic/", DURABLE), ("/exchange/chat.exchange/", DURABLE), ("/queue/", {})]
)
async def test_what_came_while_a_client_was_away_arrives_once_on_any_node(
    pair: tuple[Bridge, Bridge], connect: Connect, name: str, kind: str, options: dict[str, str], ack: str
) -> None:
    destination = kind + name
    sender = await connect(pair[0])
    number = 0
    for bridge in (*pair, *pair):
        client = await connect(bridge, named(name))
        await client.subscribe(destination, id="mine", ack=ack, **options)
        for while_away in range(number):
            frame = await client.message(f"{number} {while_away}")
            if ack != "auto":
                await client.acknowledge(frame)
        await client.alive()
        assert not client.pending
        await left(bridge, client)
        number += 1
        for while_away in range(number):
            await sender.send_and_wait(destination, f"{number} {while_away}", persistent="true")
    client = await connect(pair[0], named(name))
    await client.subscribe(destination, id="mine", **options)
    assert [frame.text for frame in await client.messages(number)] == [f"{number} {each}" for each in range(number)]
    await client.unsubscribe("mine")


async def test_a_message_whose_acknowledgement_did_not_reach_the_broker_is_not_delivered_elsewhere(
    pair: tuple[Bridge, Bridge],
    start_bridge: StartBridge,
    connect: Connect,
    rabbitmq: RabbitMQ,
    redis_server: Redis,
    program: AbstractChannel,
    wire: Wire,
    name: str,
) -> None:
    doomed = await asyncio.to_thread(
        start_bridge, config(f"amqp://guest:guest@127.0.0.1:{wire.port}/%2F", redis_server)
    )
    await asyncio.to_thread(doomed.wait_ready)
    client = await connect(doomed, named(name))
    await client.subscribe(f"/queue/{name}", ack="client-individual")
    sender = await connect(pair[0])
    await sender.send_and_wait(f"/queue/{name}", "acknowledged", persistent="true")
    await sender.send_and_wait(f"/queue/{name}", "held", persistent="true")
    frame = await client.message("acknowledged")
    await client.message("held")
    wire.lossy = True
    await client.acknowledge(frame)
    client.abort()
    await wire.cut()
    await queued(program, name, 2)
    client = await connect(pair[1], named(name))
    await client.subscribe(f"/queue/{name}", ack="client-individual")
    await client.acknowledge(await client.message("held", redelivered="true"))
    await sender.send_and_wait(f"/queue/{name}", "next", persistent="true")
    await client.acknowledge(await client.message("next", redelivered="false"))
    await client.disconnect()
    await queued(program, name, 0)


async def test_the_newer_of_two_sessions_takes_over_from_node_to_node(
    pair: tuple[Bridge, Bridge], connect: Connect, name: str
) -> None:
    older = await connect(pair[0], named(name))
    await older.subscribe(f"/queue/{name}", ack="client")
    sender = await connect(pair[0])
    await sender.send_and_wait(f"/queue/{name}", "in doubt")
    await older.message("in doubt", redelivered="false")
    for bridge in (pair[1], pair[0], pair[0]):
        newer = await connect(bridge, named(name))
        frame = await older.error("Session taken over", f"A newer session connected as '{name}'.", within=2)
        assert "receipt-id" not in frame.headers
        assert await older.wait_closed() == 1008
        await newer.subscribe(f"/queue/{name}", ack="client")
        frame = await newer.message("in doubt", redelivered="true")
        older = newer
    await older.acknowledge(frame)
    await older.alive()
    other = await connect(pair[1], named(f"{name}-other"))
    await older.alive()
    await other.alive()


async def test_an_unnamed_client_gets_what_a_named_one_has(
    pair: tuple[Bridge, Bridge], connect: Connect, name: str
) -> None:
    clients = [await connect(pair[0], named(name)), await connect(pair[1], named(f"{name}-2")), await connect(pair[0])]
    for client in clients:
        await client.subscribe(f"/topic/{name}")
    for number in range(20):
        await clients[2].send(f"/topic/{name}", str(number))
    for client in clients:
        assert [frame.text for frame in await client.messages(20)] == [str(number) for number in range(20)]


async def test_another_programs_repeated_message_id_is_delivered_once(
    pair: tuple[Bridge, Bridge], connect: Connect, program: AbstractChannel, name: str
) -> None:
    clients = [await connect(bridge) for bridge in pair]
    for client in clients:
        await client.subscribe(f"/exchange/chat.exchange/{name}")
    for id in ("one", "one", "two", "one", "two", "three"):
        properties = commands.Basic.Properties(message_id=f"{name}.{id}")
        await program.basic_publish(id.encode(), exchange="chat.exchange", routing_key=name, properties=properties)
    for client in clients:
        assert [frame.text for frame in await client.messages(3)] == ["one", "two", "three"]


async def test_another_programs_repeated_message_id_is_delivered_once_across_nodes(
    pair: tuple[Bridge, Bridge], connect: Connect, program: AbstractChannel, name: str
) -> None:
    await program.queue_declare(name, durable=True)
    for bridge, fresh in zip(pair, ("first", "second"), strict=True):
        for body, id in (("again", "again"), (fresh, fresh)):
            properties = commands.Basic.Properties(message_id=f"{name}.{id}")
            await program.basic_publish(body.encode(), exchange="", routing_key=name, properties=properties)
        client = await connect(bridge, named(name))
        await client.subscribe(f"/queue/{name}", ack="client-individual")
        for body in ("again", fresh) if fresh == "first" else (fresh,):
            await client.acknowledge(await client.message(body))
        await client.disconnect()
    await queued(program, name, 0)


async def test_every_consumer_of_a_stream_reads_all_of_it(
    pair: tuple[Bridge, Bridge], connect: Connect, name: str
) -> None:
    options = {"durable": "true", "auto_delete": "false", "x_queue_type": "stream", "x_stream_offset": "first"}
    sender = await connect(pair[0])
    clients = [await connect(pair[0]), await connect(pair[0], named(name)), await connect(pair[1], named(f"{name}-2"))]
    for client in clients:
        await client.subscribe(f"/queue/{name}", ack="client", prefetch_count="10", **options)
    for number in range(3):
        await sender.send_and_wait(f"/amq/queue/{name}", str(number))
    for client in clients:
        assert [frame.text for frame in await client.messages(3)] == ["0", "1", "2"]
    await clients[1].subscribe(f"/queue/{name}", id="again", ack="client", prefetch_count="10", **options)
    assert [frame.text for frame in await clients[1].messages(3)] == ["0", "1", "2"]


# Senders


async def test_a_send_repeated_on_the_other_bridge_is_published_once(
    pair: tuple[Bridge, Bridge], connect: Connect, program: AbstractChannel, name: str
) -> None:
    senders = [await connect(bridge) for bridge in pair]
    reader = await connect(pair[1])
    await reader.subscribe(f"/topic/{name}")
    for destination in (f"/queue/{name}", f"/topic/{name}"):
        for sender in senders:
            await sender.send_and_wait(destination, "once", idempotency_key="k1")
        await senders[1].send_and_wait(destination, "another", idempotency_key="k2")
    await queued(program, name, 2)
    assert [frame.text for frame in await reader.messages(2)] == ["once", "another"]
    await senders[1].send_frame(
        "SEND", {"destination": f"/queue/{name}", "idempotency-key": "k1", "receipt": "no"}, "not the same"
    )
    frame = await senders[1].error("Idempotency key reused")
    assert frame.headers["receipt-id"] == "no"
    await senders[1].alive()
    await queued(program, name, 2)


async def test_sends_of_one_key_at_the_same_time_are_published_once(
    pair: tuple[Bridge, Bridge], connect: Connect, program: AbstractChannel, name: str
) -> None:
    senders = [await connect(bridge) for bridge in (*pair, *pair)]
    for key in range(20):
        await asyncio.gather(
            *(sender.send_and_wait(f"/queue/{name}", str(key), idempotency_key=str(key)) for sender in senders)
        )
    await queued(program, name, 20)


# The store goes away


async def test_without_the_store_messages_go_on_and_it_comes_back(
    start_bridge: StartBridge, connect: Connect, rabbitmq: RabbitMQ, own_redis: Redis, name: str
) -> None:
    bridge = await asyncio.to_thread(start_bridge, config(rabbitmq.url, own_redis))
    await asyncio.to_thread(bridge.wait_ready)
    client = await connect(bridge, named(name))
    await client.subscribe(f"/topic/{name}", ack="client-individual")
    sender = await connect(bridge)
    await sender.send_and_wait(f"/topic/{name}", "before", idempotency_key="k")
    held = await client.message("before")
    await asyncio.to_thread(own_redis.stop)
    await asyncio.to_thread(bridge.wait_log, "store_down")
    await sender.send_and_wait(f"/topic/{name}", "without", idempotency_key="k")
    await client.acknowledge(await client.message("without"))
    await client.acknowledge(held)
    unknown = await connect(bridge, named(f"{name}-2"))
    await unknown.alive()
    await back(bridge, own_redis)
    for _ in range(2):
        await sender.send_and_wait(f"/topic/{name}", "after", idempotency_key="k2")
    await sender.send_and_wait(f"/topic/{name}", "last")
    for body in ("after", "last"):
        await client.acknowledge(await client.message(body))
    newer = await connect(bridge, named(name))
    await client.error("Session taken over")
    await newer.alive()


async def test_without_the_store_messages_wait_for_it_where_the_settings_say_so(
    start_bridge: StartBridge, connect: Connect, rabbitmq: RabbitMQ, own_redis: Redis, name: str
) -> None:
    bridge = await asyncio.to_thread(start_bridge, config(rabbitmq.url, own_redis, 'on_store_failure = "hold"'))
    await asyncio.to_thread(bridge.wait_ready)
    client = await connect(bridge, named(name))
    await client.subscribe(f"/topic/{name}", id="t")
    await client.subscribe(f"/queue/{name}", id="q", ack="client-individual")
    sender = await connect(bridge)
    await asyncio.to_thread(own_redis.stop)
    await asyncio.to_thread(bridge.wait_log, "store_down")
    for destination in (f"/topic/{name}", f"/queue/{name}"):
        for number in range(3):
            await sender.send_and_wait(destination, str(number))
    await sender.send_frame("SEND", {"destination": f"/topic/{name}", "idempotency-key": "k", "receipt": "no"}, "x")
    frame = await sender.error("Store unavailable")
    assert frame.headers["receipt-id"] == "no"
    stranger = await connect(bridge, connected=False)
    await stranger.send_raw(encode("CONNECT", named(f"{name}-2"), escaped=False))
    await stranger.error("Store unavailable")
    await client.alive()
    assert not client.pending
    await back(bridge, own_redis)
    got: dict[str, list[str]] = {"t": [], "q": []}
    for frame in await client.messages(6):
        got[frame.headers["subscription"]].append(frame.text)
        if frame.headers["subscription"] == "q":
            await client.acknowledge(frame)
    assert got == {"t": ["0", "1", "2"], "q": ["0", "1", "2"]}
    await stranger.connect(named(f"{name}-2"))
    await sender.send_and_wait(f"/topic/{name}", "x", idempotency_key="k")
    await client.message("x", subscription="t")


# From RabbitMQ's plugin to the bridge


@pytest.fixture
def plugin() -> Iterator[RabbitMQ]:
    """A node with RabbitMQ's own STOMP."""
    require(str(scripts() or ""), "RabbitMQ")
    node = RabbitMQ(plugins=["rabbitmq_stomp"])
    try:
        node.start()
        yield node
    finally:
        node.remove()


async def plugin_talk(port: int, *frames: bytes) -> list[Frame]:
    """Sends frames to the plugin, one after the other's answer, and returns the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    async with asyncio.timeout(TIMEOUT):
        for each in frames:
            writer.write(each)
            answer = decode((await reader.readuntil(b"\0")).lstrip(b"\n"))
            assert answer.command in ("CONNECTED", "RECEIPT"), answer
            answers.append(answer)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answers


@pytest.mark.slow
async def test_durable_subscriptions_of_rabbitmqs_plugin_go_on_here(
    plugin: RabbitMQ, start_bridge: StartBridge, connect: Connect, redis_server: Redis, name: str
) -> None:
    destinations = {
        "mine": f"/topic/{name}.*",
        "mine too": f"/topic/{name}.*",
        "ünïcode": "/exchange/amq.topic/ключ.#",
        "": "/exchange/amq.direct/k",
        "no key": "/exchange/amq.fanout",
    }
    options = {"durable": "true", "auto-delete": "false"}
    login = encode("CONNECT", {"accept-version": "1.2", "login": "guest", "passcode": "guest", "host": "/"})
    subscribe = [
        encode("SUBSCRIBE", {"id": id, "destination": destination, "receipt": "r", **options})
        for id, destination in destinations.items()
    ]
    await plugin_talk(plugin.stomp_port, login, *subscribe, encode("DISCONNECT", {"receipt": "bye"}))
    bridge = await asyncio.to_thread(start_bridge, config(plugin.url, redis_server))
    await asyncio.to_thread(bridge.wait_ready)
    sender = await connect(bridge)
    topic = f"/topic/{name}.x"
    for destination in (topic, "/exchange/amq.topic/ключ.a.b", "/exchange/amq.direct/k"):
        await sender.send_and_wait(destination, destination)
    await sender.send_and_wait("/exchange/amq.fanout", "to all")
    client = await connect(bridge, named(name))
    wanted = [topic, topic, "/exchange/amq.topic/ключ.a.b", "/exchange/amq.direct/k", "to all"]
    for (id, destination), body in zip(destinations.items(), wanted, strict=True):
        await client.subscribe(destination, id=id, durable="true", auto_delete="false")
        await client.message(body, subscription=id)
    queues = [queue["name"] for queue in await asyncio.to_thread(plugin.queues)]
    assert len([queue for queue in queues if queue.startswith("stomp-subscription-")]) == len(destinations)
