from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from stompbridge.config import Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.traffic import Sums, add_up
from tests.gateway.world import LIMITS, Connection, World, frame


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(Settings(limits=LIMITS))
    await world.broker.start(world)  # type: ignore[arg-type]
    yield world
    await world.broker.stop()


def sockets(*connections: Connection) -> Any:
    """A gateway with these connections."""
    return SimpleNamespace(connections=connections, ended_bytes_in=1000, ended_bytes_out=2000)


async def test_frames_of_all_clients_are_counted_together(world: World) -> None:
    (one, _), (two, _) = world.client(), world.client()
    for client in (one, two):
        client.on_data(frame("SUBSCRIBE", id="0", destination="/topic/a", receipt="r"))
    one.on_data(frame("SEND", destination="/topic/a"))
    one.on_data(frame("NONSENSE"))
    traffic = world.traffic
    received = {command: count for command, count in traffic.frames_in.items() if count}
    assert received == {"CONNECT": 2, "SUBSCRIBE": 2, "SEND": 1, "invalid": 1}
    sums = await add_up(sockets(), traffic)
    assert traffic.frames_out(sums) == {"CONNECTED": 2, "MESSAGE": 2, "RECEIPT": 2, "ERROR": 1}
    assert (sums.messages_in, sums.messages_out) == (1, 2)


async def test_what_a_session_counted_outlives_it(world: World) -> None:
    client, _ = world.client()
    client.on_data(frame("SUBSCRIBE", id="0", destination="/topic/a"))
    client.on_data(frame("SEND", destination="/topic/a"))
    assert world.traffic.sessions == {client.sender_id: client}
    client.on_lost(CloseReason.CLIENT_LOST)
    assert world.traffic.sessions == {}
    sums = await add_up(sockets(), world.traffic)
    assert (sums.messages_in, sums.messages_out, world.traffic.sessions_total) == (1, 1, 1)


async def test_a_client_that_was_not_let_in_is_no_session(world: World) -> None:
    client, _ = world.client(b"")
    client.on_data(frame("SEND", destination="/topic/a"))
    client.on_lost(CloseReason.STOMP_ERROR)
    assert (world.traffic.sessions, world.traffic.sessions_total) == ({}, 0)
    assert world.traffic.errors == 1


async def test_heart_beats_are_counted(world: World) -> None:
    client, connection = world.client(frame("CONNECT", accept_version="1.2", heart_beat="0,10000"))
    client.on_check(9.0)
    assert connection.sent == ["\n"]
    assert world.traffic.heartbeats == 1


async def test_what_waits_is_added_up(world: World) -> None:
    (client, connection), (other, slow) = world.client(), world.client()
    client.on_data(frame("SUBSCRIBE", id="0", destination="/topic/a", ack="client", prefetch_count="2"))
    for _ in range(4):
        other.on_data(frame("SEND", destination="/topic/a"))
    other.on_data(b"SEND\n")
    connection.unsent, slow.unsent = 100, 7
    connection.bytes_in, connection.bytes_out, slow.bytes_in, slow.bytes_out = 1, 2, 3, 4
    slow.writing_paused = slow.reading_paused = True
    waits = {"unsent": 107, "unread": 5, "behind": 1, "paused": 1, "unacked": 2, "waiting": 2}
    assert await add_up(sockets(connection, slow), world.traffic) == Sums(4, 2, 1004, 2006, **waits)
    client.on_lost(CloseReason.CLIENT_LOST)
    assert (await add_up(sockets(slow), world.traffic)).unacked == 0


async def test_what_waits_for_the_store_is_added_up(world: World) -> None:
    client, connection = world.client(frame("CONNECT", accept_version="1.2", client_id="ann"))
    for id, destination in enumerate(("/topic/a", "/queue/a")):
        client.on_data(frame("SUBSCRIBE", id=str(id), destination=destination))
    world.store.late = True
    client.on_data(frame("SEND", destination="/topic/a"))
    client.on_data(frame("SEND", destination="/queue/a"))
    async with asyncio.timeout(5):
        while (await add_up(sockets(connection), world.traffic)).waiting < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_nobody_waits_for_a_sum_and_no_total_falls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves between two slices is counted once: by what it has counted itself."""
    monkeypatch.setattr("stompbridge.gateway.traffic.SLICE", 1)
    clients = [world.client()[0] for _ in range(3)]
    for client in clients:
        client.on_data(frame("SEND", destination="/topic/a"))
    adding = asyncio.create_task(add_up(sockets(Connection()), world.traffic))
    await asyncio.sleep(0)
    for client in clients:
        client.on_lost(CloseReason.CLIENT_LOST)
    assert not adding.done()
    assert (await adding).messages_in == (await add_up(sockets(), world.traffic)).messages_in == 3
