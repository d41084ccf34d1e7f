"""The drain of clients whose broker does as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from stompbridge.config import Settings
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.lifecycle import drain
from stompbridge.lifecycle.drain import Drain, spread
from tests.gateway.world import Connection, World, acks, frame

WAIT = 10.0


class Socket(Connection):
    """A connection, perhaps of a client."""

    def __init__(self, client: Client | None = None) -> None:
        super().__init__()
        self.listener = client
        self.closed_at = 0.0

    def close(self, reason: CloseReason, text: str = "") -> None:
        super().close(reason, text)
        self.closed_at = asyncio.get_running_loop().time()


class Gateway:
    """As much of one as a drain needs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.connections: set[Socket] = set()

    @property
    def connections_open(self) -> int:
        return len(self.connections)


class Stage:
    """Clients of a world, and their drain."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gateway = Gateway()
        self.progress: list[int] = []
        self.draining: asyncio.Task[None] | None = None

    def sockets(self, count: int) -> list[Socket]:
        sockets = [Socket() for _ in range(count)]
        self.gateway.connections.update(sockets)
        return sockets

    def client(self) -> tuple[Client, Socket]:
        socket = Socket()
        client = Client(socket, self.world.shared)  # type: ignore[arg-type]
        socket.listener = client
        client.on_open(socket)  # type: ignore[arg-type]
        client.on_data(b"CONNECT\naccept-version:1.2\n\n\0")
        socket.sent.clear()
        self.gateway.connections.add(socket)
        return client, socket

    def drain(self, patience: float = WAIT) -> Drain:
        return Drain(self.gateway, patience, self.progress.append)  # type: ignore[arg-type]

    def begin(self, patience: float = WAIT) -> None:
        self.draining = asyncio.get_running_loop().create_task(self.drain(patience).run(0.0))

    async def end(self) -> None:
        assert self.draining is not None
        async with asyncio.timeout(WAIT):
            await self.draining


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(Settings())
    await world.broker.start(world)  # type: ignore[arg-type]
    yield world
    await world.broker.stop()


@pytest.fixture
async def stage(world: World) -> AsyncIterator[Stage]:
    stage = Stage(world)
    yield stage
    if stage.draining is not None:
        stage.draining.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """A few turns of the drain."""
    for _ in range(int(WAIT / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def holding(stage: Stage, ack: str = "client-individual") -> tuple[Client, Socket]:
    """A client with an unacknowledged message of a queue, which holds another one."""
    client, socket = stage.client()
    client.on_data(frame("SUBSCRIBE", id="0", destination="/queue/a", ack=ack, prefetch_count="1"))
    for body in ("first", "second"):
        client.on_data(frame("SEND", body, destination="/queue/a"))
    await until(lambda: socket.bodies() == ["first"])
    return client, socket


@pytest.mark.parametrize(
    ("sessions", "drain_time", "seconds"),
    [(0, 5.0, 0.0), (50, 5.0, 0.0), (150, 5.0, 0.5), (1050, 5.0, 5.0), (50_000, 5.0, 5.0), (50_000, 0.0, 0.0)],
)
def test_few_sessions_take_less(sessions: int, drain_time: float, seconds: float) -> None:
    assert spread(sessions, drain_time) == seconds


async def test_clients_who_wait_for_nothing_go_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_TICK", 1000.0)
    sockets = [stage.client()[1] for _ in range(40)] + stage.sockets(5)
    async with asyncio.timeout(WAIT):
        await stage.drain().run(0.0)
    assert {socket.closed for socket in sockets} == {(CloseReason.SHUTDOWN, "")}


async def test_what_was_sent_is_answered_before_the_end(stage: Stage) -> None:
    stage.world.broker.hold_confirms = True
    client, socket = stage.client()
    client.on_data(frame("SEND", "x", destination="/topic/a", receipt="1"))
    stage.begin()
    await until(lambda: socket.reading_paused)
    # What comes now has no effect, so that who sends it again doubles nothing.
    client.on_data(frame("SEND", "y", destination="/topic/a", receipt="2"))
    assert socket.closed is None
    assert len(stage.world.broker.confirms) == 1
    stage.world.broker.confirms[0](None)
    await stage.end()
    assert socket.receipts() == ["1"]
    assert socket.closed == (CloseReason.SHUTDOWN, "")
    assert client.messages_in == 1


async def test_the_patience_has_an_end(stage: Stage) -> None:
    stage.world.broker.hold_confirms = True
    client, socket = stage.client()
    client.on_data(frame("SEND", "x", destination="/topic/a", receipt="1"))
    stage.begin(patience=0.05)
    await stage.end()
    assert (socket.receipts(), socket.closed) == ([], (CloseReason.SHUTDOWN, ""))


async def test_a_broker_that_is_away_is_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.world.broker.hold_confirms = True
    client, socket = stage.client()
    client.on_data(frame("SEND", "x", destination="/topic/a", receipt="1"))
    monkeypatch.setattr(type(stage.world.broker), "up", False)
    monkeypatch.setattr(drain, "_TICK", 1000.0)
    stage.begin()
    await stage.end()
    assert socket.closed == (CloseReason.SHUTDOWN, "")


async def test_a_client_may_acknowledge_what_it_holds_and_gets_no_more(stage: Stage) -> None:
    client, socket = await holding(stage)
    stage.begin()
    await until(lambda: client.leaving)
    client.on_data(frame("ACK", id=acks(socket)[0], receipt="acked"))
    await stage.end()
    assert socket.receipts() == ["acked"]
    assert socket.bodies() == ["first"]
    client.on_lost(CloseReason.SHUTDOWN)
    # The second was on its way, and is there for somebody else.
    assert stage.world.queued("a") == 1


async def test_what_it_does_not_acknowledge_in_time_goes_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "ACK_PATIENCE", 0.05)
    client, socket = await holding(stage)
    stage.begin()
    await stage.end()
    assert socket.closed == (CloseReason.SHUTDOWN, "")
    client.on_lost(CloseReason.SHUTDOWN)
    assert stage.world.queued("a") == 2


async def test_messages_of_topics_are_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_TICK", 1000.0)
    client, socket = stage.client()
    client.on_data(frame("SUBSCRIBE", id="0", destination="/topic/a", ack="client"))
    client.on_data(frame("SEND", "x", destination="/topic/a"))
    await until(lambda: socket.bodies() == ["x"])
    stage.begin()
    await stage.end()
    assert socket.closed == (CloseReason.SHUTDOWN, "")


async def test_a_transaction_takes_effect_as_a_whole(stage: Stage, world: World) -> None:
    """Its second SEND waits for the first one's confirm, as there may be no more in flight."""
    world.shared.in_flight_max = 1
    world.broker.hold_confirms = True
    client, socket = stage.client()
    client.on_data(frame("BEGIN", transaction="t"))
    for body in ("x", "y"):
        client.on_data(frame("SEND", body, destination="/topic/a", transaction="t"))
    client.on_data(frame("COMMIT", transaction="t", receipt="all"))
    stage.begin()
    await until(lambda: client.leaving)
    while world.broker.confirms:
        assert socket.closed is None
        world.broker.confirms.pop(0)(None)
        await asyncio.sleep(0)
    await stage.end()
    assert socket.receipts() == ["all"]
    assert client.messages_in == 2


async def test_a_client_that_leaves_by_itself(stage: Stage) -> None:
    _, socket = await holding(stage)
    stage.begin()
    socket.close(CloseReason.CLIENT_LOST)
    await stage.end()
    assert socket.closed == (CloseReason.CLIENT_LOST, "")


async def test_sessions_are_closed_at_a_pace(stage: Stage) -> None:
    sockets = stage.sockets(60)
    gone = sockets[0]
    gone.close(CloseReason.CLIENT_LOST)
    begun = stage.gateway.loop.time()
    await stage.drain().run(0.6)
    times = sorted(socket.closed_at - begun for socket in sockets[1:])
    assert times[-1] >= 0.5
    # On a machine that stands still now and then, they come later, never sooner.
    assert all(at >= number * 0.01 - 0.05 for number, at in enumerate(times))


async def test_a_drain_can_be_hurried(stage: Stage) -> None:
    stage.sockets(100)
    plan = stage.drain()
    draining = asyncio.get_running_loop().create_task(plan.run(3600.0))
    await asyncio.sleep(0)
    plan.hurry(7200.0)
    plan.hurry(0.1)
    async with asyncio.timeout(WAIT):
        await draining


async def test_who_comes_in_late_is_closed_too(stage: Stage) -> None:
    [first] = stage.sockets(1)
    stage.world.broker.hold_confirms = True
    client, _ = stage.client()
    client.on_data(frame("SEND", "x", destination="/topic/a", receipt="1"))
    stage.begin()
    await until(lambda: first.closed is not None)
    _, late = stage.client()
    stage.world.broker.confirms[0](None)
    await stage.end()
    assert late.closed == (CloseReason.SHUTDOWN, "")


async def test_says_how_far_it_is(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_PROGRESS", 0.05)
    stage.sockets(20)
    await stage.drain().run(0.3)
    assert set(stage.progress) == {20}
