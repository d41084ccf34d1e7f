"""What only a real RabbitMQ has: other programs on it, queues with rules, alarms."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Iterator

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from pamqp import commands
from pamqp.common import FieldTable

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client, encode

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(scope="module")
def served(rabbitmq: RabbitMQ) -> Iterator[Bridge]:
    """A bridge on the shared node."""
    process = Bridge(configs.rabbitmq(rabbitmq.url))
    try:
        process.start()
        process.wait_ready()
        yield process
        assert process.stop() == 0
        process.assert_clean_log()
    finally:
        process.remove()


async def send_all(client: Client, frames: list[bytes]) -> None:
    """Send the frames as fast as the other side reads."""
    for frame in frames:
        await client.ws.send(frame)


@pytest.fixture
async def program(rabbitmq: RabbitMQ) -> AsyncIterator[AbstractChannel]:
    """Another program's AMQP channel."""
    connection = await aiormq.connect(rabbitmq.url)
    yield await connection.channel()
    await connection.close()


async def test_messages_of_other_programs(
    served: Bridge, connect: Connect, program: AbstractChannel, name: str
) -> None:
    client = await connect(served)
    await client.subscribe(f"/exchange/chat.exchange/{name}")
    headers: FieldTable = {
        "text": "a:b",
        "whole": 7,
        "yes": True,
        "half": 0.5,
        "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "list": [1, "two"],
        "table": {"a": 1},
        "nothing": None,
        "destination": "/forged",
        "subscription": "forged",
    }
    properties = commands.Basic.Properties(headers=headers, content_type="text/plain", delivery_mode=2, priority=3)
    await program.basic_publish(b"from elsewhere", exchange="chat.exchange", routing_key=name, properties=properties)
    frame = await client.message("from elsewhere", destination=f"/exchange/chat.exchange/{name}", subscription="s0")
    got = {header: frame.headers.get(header) for header in headers}
    assert got["text"] == "a:b"
    assert got["whole"] == "7"
    assert got["yes"] == "true"
    assert float(got["half"] or 0) == 0.5
    assert got["list"] == '[1,"two"]'
    assert got["table"] == '{"a":1}'
    assert got["nothing"] is None
    assert got["when"] == "1767312000"
    assert frame.headers["content-type"] == "text/plain"
    assert frame.headers["persistent"] == "true"
    assert frame.headers["priority"] == "3"
    assert len(frame.pairs) == len(frame.headers), "a header twice"


async def test_messages_for_other_programs(
    served: Bridge, connect: Connect, program: AbstractChannel, name: str
) -> None:
    await program.queue_declare(name, auto_delete=True, arguments={"x-expires": 60_000})
    await program.queue_bind(name, "chat.exchange", name)
    client = await connect(served)
    await client.send_and_wait(
        f"/exchange/chat.exchange/{name}",
        "to you",
        own="value",
        persistent="true",
        content_type="text/plain",
        correlation_id="c",
    )
    got = await program.basic_get(name, no_ack=True)
    assert got.body == b"to you"
    properties = got.header.properties
    assert properties.delivery_mode == 2
    assert properties.content_type == "text/plain"
    assert properties.correlation_id == "c"
    assert properties.headers is not None
    mine = {key: value for key, value in properties.headers.items() if not str(key).startswith("x-stompbridge-")}
    assert mine == {"own": "value"}
    assert properties.headers["x-stompbridge-sender"]


async def test_rejected_message(served: Bridge, connect: Connect, program: AbstractChannel, name: str) -> None:
    """The broker's negative confirm is an ERROR with the receipt's id, and the session goes on."""
    arguments: FieldTable = {"x-max-length": 1, "x-overflow": "reject-publish", "x-expires": 60_000}
    await program.queue_declare(name, arguments=arguments)
    client = await connect(served)
    await client.send_and_wait(f"/amq/queue/{name}", "fits")
    await client.send_frame("SEND", {"destination": f"/amq/queue/{name}", "receipt": "no"}, "does not")
    frame = await client.error("Message rejected")
    assert frame.headers["receipt-id"] == "no"
    await client.alive()


async def test_queue_deleted_between_two_sends(
    served: Bridge, connect: Connect, program: AbstractChannel, name: str
) -> None:
    client = await connect(served)
    await client.send_and_wait(f"/queue/{name}", "gone")
    await program.queue_delete(name)
    await client.send_and_wait(f"/queue/{name}", "kept")
    await client.subscribe(f"/queue/{name}")
    await client.message("kept")


async def test_queue_arguments(served: Bridge, connect: Connect, rabbitmq: RabbitMQ, name: str) -> None:
    client = await connect(served)
    await client.subscribe(
        f"/queue/{name}",
        x_message_ttl="60000",
        x_max_length="10",
        x_expires="60000",
        x_dead_letter_exchange="amq.topic",
    )
    (queue,) = [queue for queue in await asyncio.to_thread(rabbitmq.queues, "arguments") if queue["name"] == name]
    for part in ('"x-message-ttl",60000', '"x-max-length",10', '"x-dead-letter-exchange","amq.topic"'):
        assert part in queue["arguments"].replace(" ", "")


async def test_precondition_failed(served: Bridge, connect: Connect, program: AbstractChannel, name: str) -> None:
    await program.queue_declare(name, durable=True, arguments={"x-max-length": 5, "x-expires": 60_000})
    other = await connect(served)
    await other.subscribe(f"/topic/{name}")
    client = await connect(served)
    await client.send_frame("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "x", "x-max-length": "6"})
    await client.error("precondition_failed", "PRECONDITION_FAILED - inequivalent arg")
    await client.wait_closed()
    await other.send(f"/topic/{name}", "undisturbed")
    await other.message("undisturbed")


async def test_nothing_is_left_behind(
    start_bridge: StartBridge, connect: Connect, rabbitmq: RabbitMQ, name: str
) -> None:
    before = {queue["name"] for queue in await asyncio.to_thread(rabbitmq.queues)}
    bridge = start_bridge(configs.rabbitmq(rabbitmq.url))
    client = await connect(bridge)
    await client.subscribe(f"/topic/{name}", id="a")
    await client.subscribe("/exchange/tags.headers/x", id="b")
    await client.subscribe(f"/topic/{name}", id="c", exclusive="true")
    await client.send_frame("SUBSCRIBE", {"destination": f"/exchange/{name}/k", "id": "d"})
    await client.error("not_found")
    await client.wait_closed()
    assert await asyncio.to_thread(bridge.stop) == 0
    after = {queue["name"] for queue in await asyncio.to_thread(rabbitmq.queues)} - before
    assert not [queue for queue in after if not queue.startswith("stompbridge.")]


async def test_alarm_is_back_pressure(
    start_bridge: StartBridge, connect: Connect, rabbitmq: RabbitMQ, name: str
) -> None:
    """While RabbitMQ takes nothing more, senders wait and are not read; nothing is lost, nothing refused."""
    bridge = start_bridge(configs.rabbitmq(rabbitmq.url, broker="outbox_max_messages = 50"))
    await asyncio.to_thread(bridge.wait_ready)
    sender, reader = await connect(bridge), await connect(bridge)
    await reader.subscribe(f"/topic/{name}")
    await sender.send_and_wait(f"/topic/{name}", "before")
    await reader.message("before")
    await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        frames = [
            encode("SEND", {"destination": f"/topic/{name}", "receipt": str(number)}, f"{number} " + "x" * 10_000)
            for number in range(400)
        ]
        before = bridge.memory()
        sending = asyncio.create_task(send_all(sender, frames))
        await sender.silent(0.5)
        assert bridge.memory() - before < 64 * 1024 * 1024
        await reader.alive()
    finally:
        await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
    for number in range(400):
        await sender.receipt(str(number), 20)
    await sending
    for number in range(400):
        assert (await reader.message(within=20)).text.startswith(f"{number} ")
