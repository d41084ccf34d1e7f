"""RabbitMQ goes away, or a connection to it breaks, while messages are under way: clients notice nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.checker import Figures
from tests.faults.conftest import MakeSite, Report, scaled
from tests.faults.load import Load
from tests.faults.proxy import Method, Way
from tests.faults.site import Site

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]
DURABLE = {"durable": "true", "auto-delete": "false"}


async def everything(load: Load, site: Site, name: str) -> None:
    """Every kind of subscription, and senders to them, on both bridges."""
    first, second = site.urls
    topic, queue = f"/topic/{name}", f"/queue/{name}"
    await load.receiver("mailbox", topic, first, stream="topic")
    await load.receiver("mailbox, acknowledging", topic, second, stream="topic", ack="client-individual", lag=10)
    await load.receiver(
        "durable", topic, second, stream="topic", ack="client", lag=10, client_id=f"d-{name}", headers=DURABLE
    )
    await load.receiver("durable, auto", topic, first, stream="topic", headers=DURABLE | {"id": f"a-{name}"})
    await load.receiver("queue", queue, first, stream="queue", ack="client-individual", lag=10)
    load.sender("t0", topic, first, stream="topic")
    load.sender("t1", topic, second, stream="topic")
    load.sender("q0", queue, first, stream="queue")
    load.sender("q1", queue, second, stream="queue", keyed=True)


def nothing_happened(figures: Figures, site: Site) -> None:
    """Not to the clients."""
    assert (figures.lost, figures.duplicated, figures.marked, figures.refused) == (0, 0, 0, 0), figures
    assert figures.confirmed == figures.attempted
    assert not site.sessions_lost()


@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_rabbitmq_restarts(make_site: MakeSite, load: Load, report: Report, name: str, end: str) -> None:
    site = await make_site()
    await everything(load, site, name)
    count = scaled(800)
    sending = asyncio.create_task(load.send(count))
    await load.confirmed(count // 3)
    await asyncio.to_thread(site.rabbitmq.kill if end == "killed" else site.rabbitmq.stop)
    assert not sending.done()
    await asyncio.to_thread(site.rabbitmq.start)
    await sending
    await load.settle()
    nothing_happened(report(f"RabbitMQ {end} and restarted", load.ledger), site)


async def test_connections_are_cut(make_site: MakeSite, load: Load, report: Report, name: str) -> None:
    site = await make_site()
    await everything(load, site, name)
    count = scaled(800)
    sending = asyncio.create_task(load.send(count))
    for turn in range(1, 7):
        await load.confirmed(turn * count // 8)
        site.amqp[turn % 2].cut()
    await sending
    await load.settle()
    assert sum(proxy.cuts for proxy in site.amqp) == 6
    nothing_happened(report("connections to RabbitMQ cut", load.ledger), site)


@pytest.mark.parametrize(
    ("title", "way", "method", "forward"),
    [
        ("before the publish", Way.TO_SERVER, Method.PUBLISH, False),
        ("within the publish", Way.TO_SERVER, Method.PUBLISH, True),
        ("between publish and confirm", Way.FROM_SERVER, Method.ACK, False),
        ("before the delivery", Way.FROM_SERVER, Method.DELIVER, False),
        ("between delivery and ack", Way.TO_SERVER, Method.ACK, False),
    ],
)
async def test_connection_is_cut_there(
    make_site: MakeSite,
    load: Load,
    report: Report,
    name: str,
    title: str,
    way: Way,
    method: Method,
    forward: bool,
) -> None:
    site = await make_site()
    await everything(load, site, name)
    count = scaled(800)
    sending = asyncio.create_task(load.send(count))
    for turn in range(1, 7):
        await load.confirmed(turn * count // 8)
        trap = site.amqp[turn % 2].trap(way, method, count=3, forward=forward)
        await asyncio.wait_for(trap.sprung, 30)
    await sending
    await load.settle()
    nothing_happened(report(f"connection to RabbitMQ cut {title}", load.ledger), site)
