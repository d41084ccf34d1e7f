"""The checker finds what is wrong: the same fault with the bridge as it is, and with one that is broken on purpose."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.faults.conftest import MakeSite, Report
from tests.faults.load import Load
from tests.faults.proxy import Method, Way
from tests.faults.site import Site

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]


async def confirms_are_lost(site: Site, load: Load, name: str) -> None:
    """RabbitMQ has messages whose confirms do not arrive, so that they are published again."""
    await load.receiver("mailbox", f"/topic/{name}", site.urls[0], stream="topic")
    await load.receiver("queue", f"/queue/{name}", site.urls[1], stream="queue", ack="client-individual")
    load.sender("t", f"/topic/{name}", site.urls[0], stream="topic")
    load.sender("q", f"/queue/{name}", site.urls[0], stream="queue")
    sending = asyncio.create_task(load.send(400))
    for turn in range(1, 4):
        await load.confirmed(turn * 100)
        trap = site.amqp[0].trap(Way.FROM_SERVER, Method.ACK)
        await asyncio.wait_for(trap.sprung, 30)
    await sending
    await load.settle(2)


@pytest.mark.parametrize("fault", ["", "forgets"])
async def test_duplicates_are_found(make_site: MakeSite, load: Load, report: Report, name: str, fault: str) -> None:
    site = await make_site(fault=fault)
    await confirms_are_lost(site, load, name)
    figures = report("without deduplication, broken on purpose" if fault else "confirms lost", load.ledger)
    assert figures.lost == 0
    assert bool(figures.duplicated) == bool(fault)


async def killed_with_full_hands(site: Site, load: Load, name: str) -> None:
    """A bridge dies that has taken more from RabbitMQ than its client has read."""
    narrow = socket.create_connection(("127.0.0.1", site.bridges[0].port))
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    receiver = await load.receiver(
        "queue",
        f"/queue/{name}",
        *site.urls,
        stream="queue",
        ack="client-individual",
        options={"max_queue": 1, "sock": narrow},
        once=("sock",),
    )
    receiver.pause()
    sender = load.sender("q", f"/queue/{name}", site.urls[1], stream="queue", size=16 * 1024)
    await load.send(900, sender)
    await asyncio.to_thread(site.bridges[0].kill)
    receiver.resume()
    await load.settle(2)


@pytest.mark.parametrize("fault", ["", "hurries"])
async def test_losses_are_found(make_site: MakeSite, load: Load, report: Report, name: str, fault: str) -> None:
    site = await make_site(fault=fault)
    await killed_with_full_hands(site, load, name)
    figures = report("acknowledged early, broken on purpose" if fault else "killed with full hands", load.ledger)
    assert bool(figures.lost) == bool(fault)
    assert figures.duplicated == 0
