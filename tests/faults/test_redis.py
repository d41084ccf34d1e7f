"""The deduplication store goes away and comes back while messages are under way."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from tests.faults.checker import Id
from tests.faults.conftest import MakeSite, Report, scaled
from tests.faults.load import Load
from tests.faults.proxy import Way
from tests.faults.sessions import Receiver
from tests.faults.site import Site
from tests.support.bridge import Bridge

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]


async def go_away(site: Site, how: str) -> None:
    """Redis is killed, or there, but out of reach, or it takes commands and does not answer."""
    if how == "killed":
        await asyncio.to_thread(site.redis.kill)
    for store in site.stores:
        if how == "cut off":
            store.cut_off()
        elif how == "mute":
            store.muted.add(Way.FROM_SERVER)


async def come_back(site: Site, how: str) -> None:
    if how == "killed":
        await asyncio.to_thread(site.redis.start)
    for store in site.stores:
        store.restore()


def store_check(bridge: Bridge) -> str:
    """What the bridge says of its store."""
    _, body = bridge.get("/readyz?verbose")
    return next(line for line in body.splitlines() if line[3:].startswith("store"))


async def wait_store(bridge: Bridge, up: bool) -> str:
    deadline = time.monotonic() + 20
    while True:
        line = await asyncio.to_thread(store_check, bridge)
        if ("out of reach" not in line) == up:
            return line
        assert time.monotonic() < deadline, line
        await asyncio.sleep(0.05)


def bypassed(line: str) -> int:
    """How many messages went without the store, as the bridge says."""
    found = re.search(r"(\d+) messages", line)
    assert found, line
    return int(found[1])


async def clients(load: Load, site: Site, name: str) -> tuple[Receiver, Receiver]:
    """A named receiver and another; senders with and without keys, on both bridges."""
    first, second = site.urls
    named = await load.receiver(
        "named", f"/topic/{name}", first, stream="topic", ack="client-individual", client_id=f"n-{name}", lag=5
    )
    other = await load.receiver("unnamed", f"/topic/{name}", second, stream="topic")
    load.sender("plain", f"/topic/{name}", second, stream="topic")
    load.sender("keyed", f"/queue/{name}", first, second, stream="queue", keyed=True)
    await load.receiver("queue", f"/queue/{name}", second, first, stream="queue", ack="client", lag=5)
    return named, other


@pytest.mark.parametrize("on_store_failure", ["deliver", "hold"])
@pytest.mark.parametrize("how", ["killed", "cut off", "mute"])
async def test_redis_goes_away(
    make_site: MakeSite, load: Load, report: Report, name: str, how: str, on_store_failure: str
) -> None:
    site = await make_site(dedup=f'on_store_failure = "{on_store_failure}"')
    named, other = await clients(load, site, name)
    plain, keyed = load.senders
    count = scaled(600)
    before = asyncio.create_task(load.send(count // 3))
    await load.confirmed(count // 6)
    await go_away(site, how)
    for bridge in site.bridges:
        await wait_store(bridge, up=False)
    seen = load.ledger.receivers
    if on_store_failure == "deliver":
        await before
        await load.send(count // 3)
        await load.until(lambda: load.ledger.owed == 0)
        assert named.standing
        lines = [await asyncio.to_thread(store_check, bridge) for bridge in site.bridges]
        assert sum(bypassed(line) for line in lines) >= count // 3, lines
        assert not keyed.errors
    else:
        at = sum(seen["named"].seen.values())
        await load.send(count // 3, plain)
        await load.until(lambda: seen["unnamed"].seen.keys() >= {Id("plain", number) for number in range(plain.sent)})
        # What the store had answered before is at most one batch.
        assert sum(seen["named"].seen.values()) - at <= count // 6
        assert not before.done()
        await load.until(lambda: bool(keyed.errors))
        assert {error.message for error in keyed.errors} == {"Store unavailable"}
    await come_back(site, how)
    for bridge in site.bridges:
        await wait_store(bridge, up=True)
    await before
    await load.send(count // 3)
    await load.settle()
    figures = report(f"Redis {how}, {on_store_failure}", load.ledger)
    assert (figures.lost, figures.duplicated) == (0, 0), figures
    assert figures.confirmed == figures.attempted
    assert not site.sessions_lost()
    assert named.connections == other.connections == 1
