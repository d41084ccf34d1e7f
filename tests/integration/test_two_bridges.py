"""Two processes on one RabbitMQ are one server to their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain

import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(scope="module")
def pair(rabbitmq: RabbitMQ) -> Iterator[tuple[Bridge, Bridge]]:
    """Two running bridges."""
    bridges = Bridge(configs.rabbitmq(rabbitmq.url)), Bridge(configs.rabbitmq(rabbitmq.url))
    try:
        for bridge in bridges:
            bridge.start()
        for bridge in bridges:
            bridge.wait_ready()
        yield bridges
        for bridge in bridges:
            assert bridge.stop() == 0
            bridge.assert_clean_log()
    finally:
        for bridge in bridges:
            bridge.remove()


@pytest.mark.parametrize("kind", ["/topic/", "/exchange/chat.exchange/", "/exchange/all.exchange/"])
async def test_both_hear_both(pair: tuple[Bridge, Bridge], connect: Connect, name: str, kind: str) -> None:
    clients = [await connect(bridge) for bridge in pair]
    for client in clients:
        await client.subscribe(f"{kind}{name}.*", ack="client-individual")
    for number in range(50):
        await clients[number % 2].send_and_wait(f"{kind}{name}.x", str(number))
    for client in clients:
        for number in range(50):
            await client.acknowledge(await client.message(str(number)))


async def test_queue_across_bridges(pair: tuple[Bridge, Bridge], connect: Connect, name: str) -> None:
    first, second = [await connect(bridge) for bridge in pair]
    for client in (first, second):
        await client.subscribe(f"/queue/{name}", ack="client-individual", prefetch_count="1")
    for number in range(6):
        await first.send_and_wait(f"/queue/{name}", str(number))
    got: dict[Client, list[str]] = {first: [], second: []}

    async def work(client: Client) -> None:
        while True:
            frame = await client.message(within=60)
            got[client].append(frame.text)
            await client.acknowledge(frame)
            if sum(map(len, got.values())) == 6:
                return

    # Which of them gets the last ones depends on whose acknowledgement RabbitMQ sees first.
    workers = [asyncio.create_task(work(client)) for client in (first, second)]
    _, waiting = await asyncio.wait(workers, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    for worker in waiting:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(chain(*got.values())) == [str(number) for number in range(6)]
    assert all(got.values())


async def test_unacknowledged_moves_to_the_other_bridge(
    pair: tuple[Bridge, Bridge], connect: Connect, name: str
) -> None:
    first, second = [await connect(bridge) for bridge in pair]
    await first.subscribe(f"/queue/{name}", ack="client")
    await first.send(f"/queue/{name}", "precious")
    await first.message("precious", redelivered="false")
    await second.subscribe(f"/queue/{name}", ack="client")
    first.abort()
    await second.acknowledge(await second.message("precious", redelivered="true"))


async def test_durable_subscription_moves(pair: tuple[Bridge, Bridge], connect: Connect, name: str) -> None:
    options = {"durable": "true", "auto_delete": "false"}
    first = await connect(pair[0])
    await first.subscribe(f"/topic/{name}", id="mine", ack="client-individual", **options)
    first.abort()
    sender = await connect(pair[0])
    await sender.send_and_wait(f"/topic/{name}", "while away")
    second = await connect(pair[1])
    await second.subscribe(f"/topic/{name}", id="mine", ack="client-individual", **options)
    await second.acknowledge(await second.message("while away"))
    await second.unsubscribe("mine")


async def test_a_room_costs_rabbitmq_one_copy_a_bridge(
    pair: tuple[Bridge, Bridge], connect: Connect, rabbitmq: RabbitMQ, name: str
) -> None:
    before = len(await asyncio.to_thread(rabbitmq.queues))
    clients = [await connect(bridge) for bridge in pair for _ in range(10)]
    for client in clients:
        await client.subscribe(f"/topic/{name}")
    await clients[0].send(f"/topic/{name}", "to all")
    for client in clients:
        await client.message("to all")
    assert len(await asyncio.to_thread(rabbitmq.queues)) - before <= 2
