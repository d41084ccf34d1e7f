"""Many clients at once, coming and going, while others must miss nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client, encode


async def test_burst_of_large_messages_to_a_reader(bridge: Bridge, connect: Connect, name: str) -> None:
    """Much at once is not slowness: a client that reads gets all of it."""
    sender, reader = await connect(), await connect()
    await reader.subscribe(f"/topic/{name}")
    body = "x" * 1_000_000
    sending = asyncio.create_task(send_numbered(sender, f"/topic/{name}", 8, body))
    for number in range(8):
        assert (await reader.message(within=20)).text == f"{number} {body}"
    await sending


async def send_numbered(client: Client, destination: str, count: int, rest: str) -> None:
    for number in range(count):
        await client.send(destination, f"{number} {rest}")


async def test_others_come_and_go(bridge: Bridge, connect: Connect, name: str) -> None:
    """Steady receivers get every message of every sender once and in order, whatever the others do."""
    rng = random.Random(5)
    senders = [await connect() for _ in range(3)]
    steady = [await connect() for _ in range(3)]
    await steady[0].subscribe(f"/topic/{name}")
    await steady[1].subscribe(f"/topic/{name[:3]}*", ack="client")
    await steady[1].unsubscribe()
    await steady[1].subscribe("/topic/*", ack="client")
    await steady[2].subscribe(f"/topic/{name}", ack="client-individual", prefetch_count="1000")
    done = asyncio.Event()

    async def churn() -> None:
        while not done.is_set():
            client = await connect(connected=rng.random() < 0.9)
            action = rng.random()
            if client.connected is None:
                await client.write_bytes(rng.randbytes(50))
            elif action < 0.3:
                await client.subscribe(f"/topic/{name}")
            elif action < 0.5:
                await client.send_frame("SUBSCRIBE", {"destination": f"/topic/{name}", "id": "a", "ack": "client"})
                await client.send_frame("UNSUBSCRIBE", {"id": "a"})
            elif action < 0.7:
                await client.send_frame("SUBSCRIBE", {"destination": f"/exchange/{name}.none", "id": "a"})
            else:
                await client.send_raw(encode("SEND", {"destination": f"/topic/{name}"}, "cut")[:-1])
            client.abort()

    async def talk(sender: Client, who: int) -> None:
        for number in range(300):
            await sender.send_and_wait(f"/topic/{name}", f"{who} {number}")

    churning = [asyncio.create_task(churn()) for _ in range(3)]
    await asyncio.gather(*(talk(sender, who) for who, sender in enumerate(senders)))
    done.set()
    await asyncio.gather(*churning)
    for client in steady:
        seen: Counter[str] = Counter()
        while seen.total() < 900:
            frame = await client.message()
            if frame.headers["destination"] == f"/topic/{name}":
                who, number = frame.text.split()
                assert int(number) == seen[who]
                seen[who] += 1
            if client is steady[2]:
                await client.send_frame("ACK", {"id": frame.ack})
        await client.alive()


@pytest.mark.rabbitmq
@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_crash_of_rabbitmq_in_mid_stream(
    own_rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    """What has a RECEIPT is not lost when RabbitMQ dies, and comes once to a client that stays."""
    bridge = start_bridge(configs.rabbitmq(own_rabbitmq.url))
    await asyncio.to_thread(bridge.wait_ready)
    sender, worker = await connect(bridge), await connect(bridge)
    await worker.subscribe(f"/queue/{name}", ack="client-individual")
    total = 3000
    got: Counter[int] = Counter()
    halfway = asyncio.Event()

    async def work() -> None:
        while len(got) < total:
            frame = await worker.message(within=60)
            got[int(frame.text)] += 1
            await worker.send_frame("ACK", {"id": frame.ack})
            if len(got) == total // 3:
                halfway.set()

    async def talk() -> None:
        for number in range(total):
            headers = {"destination": f"/queue/{name}", "persistent": "true", "receipt": str(number)}
            await sender.send_frame("SEND", headers, str(number))
            await asyncio.sleep(0.0005)

    working, talking = asyncio.create_task(work()), asyncio.create_task(talk())
    await asyncio.wait_for(halfway.wait(), 30)
    await asyncio.to_thread(own_rabbitmq.kill)
    await asyncio.to_thread(own_rabbitmq.start)
    await talking
    for number in range(total):
        await sender.receipt(str(number), 30)
    await asyncio.wait_for(working, 60)
    assert sorted(got) == list(range(total))
    assert set(got.values()) == {1}
