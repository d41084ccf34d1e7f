"""Very many subscriptions at once: answered soon, and nothing lost or doubled while their keys are being bound."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict

import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client, encode

pytestmark = pytest.mark.rabbitmq

EXCHANGE = "chat.exchange"
CLIENTS, ROOMS_EACH = 200, 2
SETTLED = 60.0


class Crowd:
    """Clients with rooms of their own, and one that goes on sending to all of them over another bridge."""

    def __init__(self, sender: Client) -> None:
        self.sender = sender
        self.rooms = [f"room.{number}" for number in range(CLIENTS * ROOMS_EACH)]
        self.sent: dict[str, int] = dict.fromkeys(self.rooms, 0)
        """By room: the number that its next message will have."""
        self.promised: dict[str, int] = {}
        """By room: the first number that must arrive, as it was sent after the RECEIPT came."""
        self.received: dict[str, list[int]] = defaultdict(list)
        self.answered = asyncio.Event()
        self.over = asyncio.Event()

    @property
    def missing(self) -> dict[str, set[int]]:
        return {
            room: left
            for room, first in self.promised.items()
            if (left := set(range(first, self.sent[room])) - set(self.received[room]))
        }

    async def receive(self, client: Client, rooms: list[str]) -> None:
        for room in rooms:
            await client.send_raw(
                encode("SUBSCRIBE", {"id": room, "destination": f"/exchange/{EXCHANGE}/{room}", "receipt": room})
            )
        while True:
            frame = await client.receive(within=SETTLED)
            if frame.command == "RECEIPT":
                room = frame.headers["receipt-id"]
                self.promised[room] = self.sent[room]
                if len(self.promised) == len(self.rooms):
                    self.answered.set()
            else:
                assert frame.command == "MESSAGE", frame
                self.received[frame.headers["subscription"]].append(int(frame.text))

    async def send(self) -> None:
        while not self.over.is_set():
            for room in self.rooms:
                number, self.sent[room] = self.sent[room], self.sent[room] + 1
                await self.sender.send(f"/exchange/{EXCHANGE}/{room}", str(number))
                if self.over.is_set():
                    break
                await asyncio.sleep(0.002)
        await self.sender.send_and_wait(f"/exchange/{EXCHANGE}/nobody", "last")


def keys_of(node: RabbitMQ, bridge: Bridge) -> Counter[str]:
    """What the bridge's mailbox is bound to."""
    lines = node.ctl("list_bindings", "--no-table-headers", "source_name", "destination_name", "routing_key")
    found: Counter[str] = Counter()
    for line in lines.splitlines():
        source, queue, key = line.split("\t")
        if source == EXCHANGE and queue.startswith(f"stompbridge.{bridge.node}."):
            found[key] += 1
    return found


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_nothing_is_lost_in_a_storm(
    own_rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    bridge, other = [start_bridge(configs.rabbitmq(own_rabbitmq.url)) for _ in range(2)]
    for process in (bridge, other):
        process.wait_ready()
    crowd = Crowd(await connect(other))
    clients = [await connect(bridge) for _ in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(crowd.send())
        receiving = [
            group.create_task(crowd.receive(client, crowd.rooms[number::CLIENTS]))
            for number, client in enumerate(clients)
        ]
        async with asyncio.timeout(20):
            await crowd.answered.wait()
        assert keys_of(own_rabbitmq, bridge)["#"] == 1
        # The link breaks amid the storm, and comes back.
        own_rabbitmq.ctl("close_all_connections", "a test")
        deadline = time.monotonic() + SETTLED
        for process in (bridge, other):
            while len(process.events("broker_up")) < 2:
                assert time.monotonic() < deadline, process.log[-3000:]
                await asyncio.sleep(0.05)
        while (bound := await asyncio.to_thread(keys_of, own_rabbitmq, bridge)) != Counter(crowd.rooms):
            assert time.monotonic() < deadline, bound
            assert "#" in bound or len(bound) == len(crowd.rooms)
        # A round without "#".
        rounds = min(crowd.sent.values())
        while min(crowd.sent.values()) < rounds + 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        crowd.over.set()
        await sending
        while crowd.missing and time.monotonic() < deadline + 20:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for task in receiving:
            task.cancel()
    assert crowd.missing == {}
    for room, numbers in crowd.received.items():
        assert numbers == sorted(set(numbers)), room
