"""RabbitMQ runs short of memory, and a client does not read: nothing is lost, and memory is bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from statistics import quantiles

import pytest

from tests.bench.client import Client as BenchClient
from tests.bench.client import Tally, open_all
from tests.faults.conftest import Figure, MakeSite, Report, scaled
from tests.faults.load import Load
from tests.support.bridge import Bridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client, connect

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]
MIB = 1024 * 1024
OUTBOX = 4 * MIB


@pytest.fixture
async def watermark(broken_rabbitmq: RabbitMQ) -> AsyncIterator[RabbitMQ]:
    """The node; its limit is put back."""
    yield broken_rabbitmq
    await asyncio.to_thread(broken_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.6")


async def test_resource_alarm(
    make_site: MakeSite, load: Load, report: Report, figure: Figure, watermark: RabbitMQ, name: str
) -> None:
    """RabbitMQ takes nothing more: senders stall, also those that wait for no answer, and go on when it is over."""
    site = await make_site(broker=f"outbox_max_bytes = {OUTBOX}")
    first, second = site.urls
    await load.receiver("queue", f"/queue/{name}", second, stream="queue", ack="client", lag=10)
    await load.receiver("mailbox", f"/topic/{name}", first, stream="topic")
    load.sender("q", f"/queue/{name}", first, stream="queue")
    load.sender("t", f"/topic/{name}", second, stream="topic")
    count = scaled(600)
    await load.send(count // 3)
    await asyncio.to_thread(watermark.ctl, "set_vm_memory_high_watermark", "0.000001")
    sending = asyncio.create_task(load.send(count - count // 3))
    floods = [Flood(await connect(url), f"/topic/{name}.flood") for url in site.urls]
    before = [bridge.memory() for bridge in site.bridges]
    tasks = [asyncio.create_task(flood.run()) for flood in floods]
    for flood in floods:
        await flood.stalled()
    grown = [bridge.memory() - memory for bridge, memory in zip(site.bridges, before, strict=True)]
    assert not sending.done()
    assert len(load.ledger.confirmed) < count
    await asyncio.to_thread(watermark.ctl, "set_vm_memory_high_watermark", "0.6")
    await sending
    for flood in floods:
        await flood.end()
    await asyncio.gather(*tasks)
    await load.settle()
    figures = report("resource alarm", load.ledger)
    taken = [flood.at_stall // 1024 for flood in floods]
    figure(
        f"resource alarm: senders that wait for nothing stalled after {taken} KiB, "
        f"bridges grew by {[one // 1024 for one in grown]} KiB"
    )
    assert (figures.lost, figures.duplicated, figures.refused) == (0, 0, 0), figures
    assert figures.confirmed == figures.attempted
    assert not site.sessions_lost()
    assert max(grown) < 2 * OUTBOX + 48 * MIB


class Flood:
    """A client that sends as fast as its socket takes it, and waits for no answer."""

    BODY = b"x" * (64 * 1024)
    STALL = 1.5
    MOST = 400 * MIB

    def __init__(self, client: Client, destination: str) -> None:
        self.client = client
        self.destination = destination
        self.sent = 0
        self.at_stall = 0
        self._ended = False

    async def run(self) -> None:
        while not self._ended and self.sent < self.MOST:
            await self.client.send(self.destination, self.BODY)
            self.sent += len(self.BODY)

    async def stalled(self) -> None:
        """Returns when it can not send any more."""
        while self.at_stall != self.sent or not self.sent:
            self.at_stall = self.sent
            await asyncio.sleep(self.STALL)
        assert self.sent < self.MOST, "nothing held it up"

    async def end(self) -> None:
        """What it has sent was taken."""
        self._ended = True
        await self.client.disconnect()


READERS = 1000
ROUNDS, PAUSE = 50, 0.1
ARRIVAL = 30.0
"""Seconds that the last messages of a round may take."""
LIMIT = 4 * MIB


async def test_one_of_a_thousand_stops_reading(make_site: MakeSite, figure: Figure, name: str) -> None:
    """Its messages pile up to its limit, it is closed, and the others get theirs as before."""
    site = await make_site(count=1, more=f"[limits]\nsend_buffer = {LIMIT}")
    bridge = site.bridges[0]
    room, own = f"/topic/{name}.room", f"/topic/{name}.own"
    tally = Tally(sample_every=4)
    readers = [BenchClient(tally, room, room, stagger=index) for index in range(READERS - 1)]
    await open_all(readers, bridge.port, "/ws")
    narrow = socket.create_connection(("127.0.0.1", bridge.port))
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    victim = await connect(bridge.url, sock=narrow, max_queue=1)
    await victim.subscribe(room, id="room")
    await victim.subscribe(own, id="own")
    sender = await connect(bridge.url)
    try:
        await one_round(readers, tally, 10)
        calm = p99(await one_round(readers, tally, ROUNDS))
        memory = bridge.memory()
        victim.ws.transport.pause_reading()
        flooding = asyncio.create_task(flood(sender, own, bridge))
        disturbed = p99(await one_round(readers, tally, ROUNDS))
        grown = await flooding - memory
        closed = await asyncio.to_thread(bridge.wait_log, "session_closed", 20, reason="slow_consumer")
        after = p99(await one_round(readers, tally, ROUNDS))
    finally:
        for reader in readers:
            reader.close()
        victim.abort()
        sender.abort()
    figure(
        f"one of {READERS} stops reading: p99 of the others {calm:.1f} ms before, {disturbed:.1f} ms meanwhile, "
        f"{after:.1f} ms after; it was closed after {closed['seconds']:.1f} s, the bridge grew by {grown / MIB:.1f} MiB"
    )
    assert not tally.errors, tally.first_error
    assert not tally.disconnected
    assert all(not reader.missing and not reader.doubled for reader in readers)
    assert grown < LIMIT + 24 * MIB
    assert [event["reason"] for event in bridge.events("session_closed")].count("slow_consumer") == 1
    # The machine is shared and small: a stall would be a second, not a few milliseconds.
    assert disturbed < 1.5 * calm + 50


async def flood(sender: Client, destination: str, bridge: Bridge) -> int:
    """Sends more than any buffer on the way to a client that does not read; the most memory that the bridge had."""
    most = 0
    for _ in range(ROUNDS * 4):
        await sender.send_and_wait(destination, b"x" * (64 * 1024))
        most = max(most, bridge.memory())
        await asyncio.sleep(PAUSE / 8)
    return most


async def one_round(readers: list[BenchClient], tally: Tally, messages: int) -> list[int]:
    """Sends messages at a steady pace; nanoseconds of the sampled deliveries, once all have arrived."""
    tally.samples.clear()
    arrived = tally.arrived
    for _ in range(messages):
        readers[0].send()
        await asyncio.sleep(PAUSE)
    for _ in range(int(ARRIVAL / PAUSE)):
        if tally.arrived >= arrived + messages * len(readers):
            return tally.samples[:]
        await asyncio.sleep(PAUSE)
    raise AssertionError(f"{tally.arrived - arrived} of {messages * len(readers)} have arrived")


def p99(samples: list[int]) -> float:
    """Milliseconds."""
    return quantiles(samples, n=100)[98] / 1e6
