"""A bridge dies or stands still while its clients hold messages; they go on at the other one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import pytest

from tests.faults.checker import Id
from tests.faults.conftest import MakeSite, Report, scaled
from tests.faults.load import Load
from tests.faults.sessions import Receiver
from tests.faults.site import LOCK_TTL

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]
DURABLE = {"durable": "true", "auto-delete": "false"}
LAG = 20


@pytest.mark.parametrize("on_doubt", ["redeliver", "drop"])
async def test_killed(make_site: MakeSite, load: Load, report: Report, name: str, on_doubt: str) -> None:
    """Turn by turn: all clients are at one bridge, it is killed, they return to the other by their name."""
    site = await make_site(dedup=f'on_doubt = "{on_doubt}"')
    first, second = site.urls
    topic, queue = f"/topic/{name}", f"/queue/{name}"
    named = [
        await load.receiver(
            "queue", queue, first, second, stream="queue", ack="client-individual", client_id=f"q-{name}", lag=LAG
        ),
        await load.receiver(
            "durable",
            topic,
            first,
            second,
            stream="topic",
            ack="client",
            client_id=f"d-{name}",
            lag=LAG,
            headers=DURABLE,
        ),
    ]
    load.sender("q", queue, first, second, stream="queue", keyed=True)
    load.sender("t", topic, first, second, stream="topic", keyed=True)
    count, turns = scaled(1200), 4
    sending = asyncio.create_task(load.send(count))
    for turn in range(turns):
        await load.confirmed((turn + 1) * count // (turns + 2))
        await load.until(lambda: all(len(receiver.held) >= LAG for receiver in named))
        bridge = site.bridges[turn % 2]
        await asyncio.to_thread(bridge.kill)
        await load.until(lambda: all(receiver.standing for receiver in named))
        await asyncio.to_thread(bridge.start)
    await sending
    await load.settle(60 if on_doubt == "redeliver" else 3)
    figures = report(f"bridge killed, in doubt: {on_doubt}", load.ledger)
    assert all(receiver.connections == turns + 1 for receiver in named)
    assert (figures.duplicated, figures.refused, figures.unexpected) == (0, 0, 0)
    assert figures.confirmed == figures.attempted
    if on_doubt == "redeliver":
        assert figures.lost == 0
        assert figures.marked >= turns * LAG
    else:
        # What was written and not read is in doubt as well: only the client could tell.
        assert figures.marked == 0
        assert figures.lost <= figures.confirmed // 10


@pytest.mark.parametrize("on_store_failure", ["deliver", "hold"])
async def test_stopped_for_longer_than_its_locks(
    make_site: MakeSite, load: Load, report: Report, name: str, on_store_failure: str
) -> None:
    """A bridge stands still, loses its messages to the other one, and wakes up with deliveries and acknowledgements
    that it has not seen yet: what it settles then has no effect, and it delivers nothing without asking."""
    site = await make_site(dedup=f'on_store_failure = "{on_store_failure}"')
    queue = f"/queue/{name}"
    receiver = await load.receiver(
        "queue", queue, *site.urls, stream="queue", ack="client-individual", client_id=f"q-{name}", lag=LAG
    )
    sender = load.sender("q", queue, site.urls[1], stream="queue", keyed=True)
    count, turns = scaled(900), 3
    for turn in range(turns):
        stale, fresh = turn % 2, 1 - turn % 2
        await load.send(count // turns // 2)
        await load.until(lambda: load.ledger.owed == 0 and len(receiver.held) == LAG)
        # The sender has to be where something answers.
        sender.go(site.urls[fresh])
        site.suspend(stale)
        sent, late = sender.sent, len(receiver.late)
        sending = asyncio.create_task(load.send(count // turns // 2))
        try:
            receiver.lag = 10**9
            await receiver.quiet()
            unread = list(receiver.held)[: LAG // 2]
            await receiver.acknowledge(unread)
            copies = copies_of(receiver, unread)
            await receiver.move(site.urls[fresh])
            site.amqp[stale].cut()
            await load.until(partial(have_come, receiver, copies))
            await asyncio.sleep(1.5 * LOCK_TTL)
        finally:
            site.resume(stale)
        await load.until(partial(taken_over, receiver, turn + 1))
        assert not [one for one in receiver.late[late:] if one.number >= sent], "delivered without asking the store"
        # Were one of the old acknowledgements recorded, the message would not come once more.
        copies = copies_of(receiver, unread)
        receiver.abort()
        await load.until(partial(have_come, receiver, copies))
        await sending
        await receiver.acknowledge_all()
        receiver.lag = LAG
    await load.settle()
    late = len(receiver.late)
    figures = report(f"bridge stopped and continued, {on_store_failure} ({late} late on left sockets)", load.ledger)
    assert (figures.lost, figures.duplicated, figures.refused) == (0, 0, 0), figures


def copies_of(receiver: Receiver, messages: Sequence[tuple[Id, str]]) -> dict[Id, int]:
    """How often each of the messages has come."""
    seen = receiver.ledger.receivers[receiver.name].seen
    return {message: seen[message] for message, _ in messages}


def have_come(receiver: Receiver, copies: Mapping[Id, int]) -> bool:
    """Whether each of the messages has come once more."""
    seen = receiver.ledger.receivers[receiver.name].seen
    return all(seen[message] > count for message, count in copies.items())


def taken_over(receiver: Receiver, times: int) -> bool:
    """Whether so many of its sessions were told that a newer one has taken over."""
    return sum(error.message == "Session taken over" for error in receiver.errors) == times
