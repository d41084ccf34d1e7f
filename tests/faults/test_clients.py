"""A client's connection breaks where it hurts most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from tests.faults.checker import Id
from tests.faults.conftest import MakeSite, Report, scaled
from tests.faults.load import Load
from tests.faults.proxy import Proxy, Way
from tests.faults.sessions import Receiver
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

MakeProxy = Callable[[int], Awaitable[Proxy]]


@pytest.fixture
async def make_proxy() -> AsyncIterator[MakeProxy]:
    """``await make_proxy(port)`` stands in front of that port."""
    proxies: list[Proxy] = []

    async def make(port: int) -> Proxy:
        proxy = Proxy(port)
        proxies.append(proxy)
        await proxy.start()
        return proxy

    yield make
    for proxy in proxies:
        await proxy.stop()


@pytest.mark.parametrize("destination", ["/queue/", "/topic/"])
async def test_ack_is_lost(
    make_site: MakeSite, make_proxy: MakeProxy, load: Load, report: Report, name: str, destination: str
) -> None:
    """Each time the connection breaks on the client's ACK; it returns to the other bridge, and gets the message once
    more, marked."""
    site = await make_site()
    proxies = [await make_proxy(bridge.port) for bridge in site.bridges]
    urls = [f"ws://127.0.0.1:{proxy.port}/ws" for proxy in proxies]
    receiver = await load.receiver(
        "queue",
        destination + name,
        *urls,
        stream="queue",
        ack="client-individual",
        client_id=f"c-{name}",
        headers={"durable": "true", "auto-delete": "false"},
    )
    sender = load.sender("q", destination + name, site.urls[0], stream="queue")
    count, turns = scaled(600), 10
    copies = load.ledger.receivers["queue"]
    for turn in range(turns):
        receiver.lag = 1
        await load.send(count // turns, sender)
        await load.until(lambda: load.ledger.owed == 0 and len(receiver.held) == 1)
        await receiver.idle()
        held, _ = receiver.held[0]
        trap = proxies[turn % 2].trap(Way.TO_SERVER)
        receiver.release()
        await asyncio.wait_for(trap.sprung, 30)
        await load.until(partial(came_twice, receiver, held))
        await receiver.acknowledge_all()
        assert copies.marked[-1] == held
    await load.settle()
    figures = report(f"ACK lost ({destination.strip('/')})", load.ledger)
    assert (figures.lost, figures.duplicated, figures.marked) == (0, 0, turns)


def came_twice(receiver: Receiver, message: Id) -> bool:
    """Whether the message has come to the receiver's next session."""
    return receiver.standing and receiver.ledger.receivers[receiver.name].seen[message] == 2


@pytest.mark.parametrize("way", [Way.FROM_SERVER, Way.TO_SERVER])
async def test_receipt_is_lost(
    make_site: MakeSite,
    make_proxy: MakeProxy,
    load: Load,
    report: Report,
    broken_rabbitmq: RabbitMQ,
    name: str,
    way: Way,
) -> None:
    """Each time the connection breaks on a RECEIPT, or right after a SEND; the sender goes to the other bridge and
    sends again, and each message lies once in the queue, which nobody reads yet."""
    site = await make_site()
    proxies = [await make_proxy(bridge.port) for bridge in site.bridges]
    sender = load.sender(
        "q", f"/queue/{name}", *(f"ws://127.0.0.1:{proxy.port}/ws" for proxy in proxies), stream="queue", keyed=True
    )
    count, turns = scaled(600), 10
    await load.send(1, sender)
    for turn in range(turns):
        trap = proxies[turn % 2].trap(way, count=5, forward=way is Way.TO_SERVER)
        sending = asyncio.create_task(load.send(count // turns, sender))
        await asyncio.wait_for(trap.sprung, 30)
        await sending
    assert sender.repeated >= turns
    queues = await asyncio.to_thread(broken_rabbitmq.queues, "messages")
    assert {queue["name"]: queue["messages"] for queue in queues}[name] == str(len(load.ledger.confirmed))
    receiver = await load.receiver("queue", f"/queue/{name}", site.urls[0], stream="queue", ack="client")
    assert receiver.standing
    await load.settle()
    figures = report("RECEIPT lost" if way is Way.FROM_SERVER else "connection lost right after a SEND", load.ledger)
    assert (figures.lost, figures.duplicated, figures.recovered) == (0, 0, 0)
    assert figures.confirmed == figures.attempted
