"""RabbitMQ is not there, refuses us, goes away and comes back."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(150)]
HEALTH = "/internal/healthcheck"


async def health(client: Client, status: str, within: float = 15.0) -> dict[str, str]:
    """Read health events until one has this status."""
    async with asyncio.timeout(within):
        while True:
            frame = await client.expect("MESSAGE", within)
            assert frame.headers["destination"] == HEALTH
            event: dict[str, str] = json.loads(frame.body)
            assert set(event) == {"status", "message"}
            if event["status"] == status:
                return event


async def not_ready(bridge: Bridge, why: str, within: float = 20.0) -> str:
    """Poll ``/readyz`` until it says why it is not ready; returns what it says."""
    deadline = time.monotonic() + within
    while True:
        status, body = bridge.get("/readyz?verbose")
        assert status == 503, body
        if why in body.lower():
            return body
        assert time.monotonic() < deadline, body
        await asyncio.sleep(0.1)


async def test_not_there_at_start(
    absent_rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    """The daemon starts, says why it is not ready, clients wait, and are served once the broker is there."""
    bridge = start_bridge(configs.rabbitmq(absent_rabbitmq.url))
    assert bridge.get("/livez")[0] == 200
    body = await not_ready(bridge, "refused")
    assert "[-]broker" in body
    watcher, client = await connect(bridge), await connect(bridge)
    await watcher.send_frame("SUBSCRIBE", {"destination": HEALTH, "id": "health"})
    await client.send_frame("SUBSCRIBE", {"destination": f"/topic/{name}", "id": "t", "receipt": "subscribed"})
    await client.send_frame("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "q"})
    await client.send_frame("SEND", {"destination": f"/topic/{name}", "receipt": "sent"}, "waited")
    await client.silent(0.5)
    starting = asyncio.create_task(asyncio.to_thread(absent_rabbitmq.start))
    await client.receipt("subscribed", 60)
    frames = {(frame := await client.receive()).command: frame for _ in range(2)}
    assert frames["RECEIPT"].headers["receipt-id"] == "sent"
    assert frames["MESSAGE"].text == "waited"
    await starting
    await asyncio.to_thread(bridge.wait_ready)
    event = await health(watcher, "SUCCESS")
    assert event["message"] == "HEALTH CHECK TO healthcheck.exchange.1"
    await client.send(f"/queue/{name}", "queue too")
    await client.message("queue too")


async def test_not_there_and_told_to_say_so(start_bridge: StartBridge, connect: Connect, name: str) -> None:
    bridge = start_bridge(
        configs.rabbitmq(f"amqp://guest:guest@127.0.0.1:{free_port()}/%2F", broker='when_down = "error"')
    )
    client = await connect(bridge)
    for command in ("SEND", "SUBSCRIBE"):
        await client.send_frame(command, {"destination": f"/topic/{name}", "id": "x", "receipt": command})
        frame = await client.error("Broker unavailable")
        assert frame.headers["receipt-id"] == command
    await client.alive()


async def test_waiting_has_an_end(start_bridge: StartBridge, connect: Connect, name: str) -> None:
    bridge = start_bridge(
        configs.rabbitmq(f"amqp://guest:guest@127.0.0.1:{free_port()}/%2F", broker='outage_grace = "1s"')
    )
    client = await connect(bridge)
    await client.send_frame("SEND", {"destination": f"/topic/{name}", "receipt": "r"}, "x")
    start = time.monotonic()
    frame = await client.error("Broker unavailable")
    assert frame.headers["receipt-id"] == "r"
    assert 0.3 < time.monotonic() - start < 5


async def test_bad_credentials(rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str) -> None:
    bridge = start_bridge(configs.rabbitmq(rabbitmq.url_for("guest", "a-wrong-secret"), broker='when_down = "error"'))
    body = await not_ready(bridge, "refused")
    client = await connect(bridge)
    await client.send_frame("SUBSCRIBE", {"destination": f"/topic/{name}", "id": "x"})
    await client.error("Broker unavailable")
    assert "a-wrong-secret" not in bridge.log + body


async def test_second_address_is_tried(
    rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    bridge = start_bridge(configs.rabbitmq([f"amqp://guest:guest@127.0.0.1:{free_port()}/%2F", rabbitmq.url]))
    await asyncio.to_thread(bridge.wait_ready)
    client = await connect(bridge)
    await client.subscribe(f"/topic/{name}")
    await client.send(f"/topic/{name}", "x")
    await client.message("x")


class Room:
    """Clients that stay connected while RabbitMQ is away."""

    def __init__(self, bridge: Bridge, name: str) -> None:
        self.bridge = bridge
        self.name = name

    async def enter(self, connect: Connect) -> None:
        self.watcher, self.reader, self.worker, self.sender = [await connect(self.bridge) for _ in range(4)]
        await self.watcher.subscribe(HEALTH)
        await health(self.watcher, "SUCCESS")
        await self.reader.subscribe(f"/topic/{self.name}.*", id="topic")
        await self.reader.subscribe(f"/exchange/chat.exchange/{self.name}", id="chat")
        await self.worker.subscribe(f"/queue/{self.name}", ack="client-individual")
        await self.works("before")

    async def works(self, word: str) -> None:
        """All subscriptions are served."""
        await self.sender.send_and_wait(f"/topic/{self.name}.x", word)
        await self.reader.message(word, subscription="topic")
        await self.sender.send_and_wait(f"/exchange/chat.exchange/{self.name}", word)
        await self.reader.message(word, subscription="chat")
        await self.sender.send_and_wait(f"/queue/{self.name}", word, persistent="true")
        await self.worker.acknowledge(await self.worker.message(word))


@pytest.mark.slow
async def test_restart_with_clients_staying(
    own_rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    """An orderly restart, then a crash: clients stay, senders wait, subscriptions go on, each message comes once."""
    bridge = start_bridge(configs.rabbitmq(own_rabbitmq.url))
    room = Room(bridge, name)
    await room.enter(connect)
    await room.sender.send_and_wait(f"/queue/{name}", "unacknowledged", persistent="true")
    held = await room.worker.message("unacknowledged", redelivered="false")
    for end in (own_rabbitmq.stop, own_rabbitmq.kill):
        await asyncio.to_thread(end)
        event = await health(room.watcher, "FAIL")
        assert event["message"]
        assert bridge.get("/readyz")[0] == 503
        assert bridge.get("/livez")[0] == 200
        for number in range(20):
            await room.sender.send_frame(
                "SEND", {"destination": f"/queue/{name}", "persistent": "true", "receipt": f"w{number}"}, f"w{number}"
            )
        await room.sender.silent(0.3)
        await asyncio.to_thread(own_rabbitmq.start)
        for number in range(20):
            await room.sender.receipt(f"w{number}", 30)
        await health(room.watcher, "SUCCESS", 30)
        await asyncio.to_thread(bridge.wait_ready)
        for number in range(20):
            await room.worker.acknowledge(await room.worker.message(f"w{number}"))
        await room.works("again")
    # What a live session held is not sent to it again: its ACK settles the delivery that took the first one's place.
    await room.worker.acknowledge(held)
    await room.worker.unsubscribe()
    successor = await connect(bridge)
    await successor.subscribe(f"/queue/{name}")
    await successor.send(f"/queue/{name}", "nothing is left")
    await successor.message("nothing is left")
    for client in (room.watcher, room.reader, room.worker, room.sender):
        await client.alive()
    assert not bridge.events("session_closed")


@pytest.mark.slow
async def test_broker_that_hangs_is_noticed(
    own_rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    """A broker that is there and answers nothing: the probe fails, and heart-beats end the connection."""
    bridge = start_bridge(configs.rabbitmq(own_rabbitmq.url, broker='heartbeat = "2s"\nconnect_timeout = "2s"'))
    client = await connect(bridge)
    await client.subscribe(HEALTH)
    await health(client, "SUCCESS")
    own_rabbitmq.suspend()
    try:
        await health(client, "FAIL")
        await asyncio.to_thread(bridge.wait_log, "broker_down", 20)
    finally:
        own_rabbitmq.resume()
    await health(client, "SUCCESS", 30)


async def test_deleted_queue_cancels_its_subscription(
    rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    bridge = start_bridge(configs.rabbitmq(rabbitmq.url))
    client, other = await connect(bridge), await connect(bridge)
    await client.subscribe(f"/queue/{name}", id="doomed")
    await client.subscribe(f"/topic/{name}", id="fine")
    await asyncio.to_thread(rabbitmq.ctl, "delete_queue", name)
    frame = await client.error("Server cancelled subscription")
    assert frame.headers["subscription"] == "doomed"
    await other.send(f"/topic/{name}", "still here")
    await client.message("still here", subscription="fine")
    await other.send_and_wait(f"/queue/{name}", "declared again")
    await client.subscribe(f"/queue/{name}", id="new")
    await client.message("declared again", subscription="new")


async def test_connections_closed_by_an_administrator(
    rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    bridge = start_bridge(configs.rabbitmq(rabbitmq.url))
    room = Room(bridge, name)
    await room.enter(connect)
    await asyncio.to_thread(rabbitmq.ctl, "close_all_connections", "maintenance")
    await asyncio.to_thread(bridge.wait_log, "broker_down")
    await health(room.watcher, "SUCCESS", 20)
    await room.works("after")
