"""What is measured: each function runs one piece of work against one target and returns its figures."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from tests.bench.client import Client, Tally, open_all, open_at_once
from tests.bench.proc import Snapshot, kernel_memory, usage
from tests.bench.report import percentile

TICK, POLL = 0.001, 0.002
"""How often the generator sends what is due, and looks what has arrived, at most, in seconds."""
FANOUT_WINDOW, ROOMS_WINDOW = 8, 256
"""Messages in flight where as many are sent as are taken."""
MOST_SAMPLES = 200_000
STALLED = 3.0
"""Seconds without a delivery after which what is missing is lost."""
HEARTBEAT = 10.0
MEMORY_STEP, MEMORY_TIMEOUT = 512 * 1024, 30.0
QUIET_SHARE, QUIET_FOR, QUIET_TIMEOUT = 0.03, 0.5, 30.0
STORM_TIMEOUT = 180.0
BOUND_TIMEOUT = 180.0


@dataclass(frozen=True)
class Target:
    """A server under test: where it listens, and the processes whose CPU counts, by name."""

    name: str
    port: int
    path: str
    groups: dict[str, tuple[int, ...]]
    named: bool = False
    """Whether the receivers name themselves, so that each delivery is claimed from the deduplication store."""


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    kind: str
    """``fanout``, ``rooms``, ``rooms-ack``, ``idle``, ``connect``, ``connect-shared`` or ``storm``."""
    clients: int
    rate: float | None = None
    """Messages a second, of all senders together; ``None`` for as many as are taken."""

    @property
    def sends(self) -> bool:
        return self.kind in ("fanout", "rooms", "rooms-ack")

    def __str__(self) -> str:
        if not self.sends:
            return f"{self.kind} {self.clients}"
        return f"{self.kind} {self.clients} @ {'max' if self.rate is None else f'{self.rate:g}/s'}"


@dataclass
class Result:
    """The figures of one run; ``figures`` by the names of :data:`tests.bench.report.FIGURES`."""

    work: str
    target: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


async def run(target: Target, work: Work, seconds: float, number: int) -> Result:
    """Runs one piece of work; everything it opened is closed again, and the servers are idle, when it returns."""
    result = Result(str(work), target.name, number)
    async with undisturbed(target):
        if work.sends:
            await _messages(target, work, seconds, result)
        elif work.kind == "idle":
            await _idle(target, work, seconds, result)
        else:
            await _connect(target, work, result)
    return result


@asynccontextmanager
async def undisturbed(target: Target) -> AsyncIterator[None]:
    """The servers are idle before and after, and this process collects no garbage meanwhile."""
    await quiet(target)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    await quiet(target)


async def quiet(target: Target, within: float = QUIET_TIMEOUT) -> bool:
    """Waits until the servers use hardly any CPU, so that the work of one run is not counted in the next."""
    deadline = time.monotonic() + within
    before = Snapshot.take(target.groups)
    while time.monotonic() < deadline:
        await asyncio.sleep(QUIET_FOR)
        after = Snapshot.take(target.groups)
        if sum(after.cpu_since(before).values()) < QUIET_SHARE * (after.at - before.at):
            return True
        before = after
    return False


# Messages: fan-out and rooms.


class Sender(Protocol):
    """Sends the next message."""

    def send(self) -> None: ...


@dataclass
class Traffic:
    """Who sends, who receives, and how many deliveries each message makes."""

    tally: Tally
    senders: Sequence[Sender]
    receivers: Sequence[Client]
    copies: int
    window: int
    sent: int = 0

    @property
    def delivered(self) -> int:
        return sum(client.delivered for client in self.receivers)

    @property
    def due(self) -> int:
        return self.sent * self.copies

    @property
    def under_way(self) -> int:
        """Deliveries still to come, if none was lost. Costs something only where some came twice, or at the end."""
        left = self.due - self.tally.arrived
        return left if left > 0 else self.due - self.delivered

    def send(self, count: int) -> None:
        for _ in range(count):
            self.senders[self.sent % len(self.senders)].send()
            self.sent += 1


async def _messages(target: Target, work: Work, seconds: float, result: Result) -> None:
    tally = Tally(sample_every=sample_every(_deliveries_expected(work, seconds)))
    traffic, clients = _make_traffic(target, work, tally)
    await exchange(target, traffic, clients, work.rate, seconds, result)


def sample_every(deliveries: float) -> int:
    """Of how many deliveries to a client one is sampled, so that there are at most about :data:`MOST_SAMPLES`."""
    return max(1, round(deliveries / MOST_SAMPLES))


async def exchange(
    target: Target, traffic: Traffic, clients: Sequence[Client], rate: float | None, seconds: float, result: Result
) -> None:
    """Opens the clients, sends for that many seconds, waits for what is under way, and closes the clients."""
    tally = traffic.tally
    try:
        await open_all(clients, target.port, target.path)
        # Bindings may still be made in the background.
        await quiet(target)
        await warm_up(traffic)
        tally.restart()
        before, delivered_before, sent_before = Snapshot.take(target.groups), traffic.delivered, traffic.sent
        began = time.monotonic()
        late = await (send_at(traffic, rate, seconds) if rate else send_as_taken(traffic, seconds))
        sending = time.monotonic() - began
        ended = await drain(traffic, limit=3 * seconds + 10)
        after, delivered = Snapshot.take(target.groups), traffic.delivered - delivered_before
        doubled = sum(client.doubled for client in clients)
        result.figures |= {
            "per_second": delivered / (ended - began),
            "p50_ms": percentile(tally.samples, 0.5) / 1e6,
            "p99_ms": percentile(tally.samples, 0.99) / 1e6,
            **cpu_each(before, after, delivered),
            "sent_per_second": (traffic.sent - sent_before) / sending,
            "deliveries": delivered,
            "lost": traffic.due - traffic.delivered,
            "doubled": doubled,
            "reordered": sum(client.reordered for client in clients),
        }
        watch_generator(before, after, result)
        if late > 0.1:
            result.notes.append(f"the generator was up to {late * 1000:.0f} ms behind its schedule")
        add_faults(tally, result)
    finally:
        close_all(clients)


def _deliveries_expected(work: Work, seconds: float) -> float:
    if work.rate is None:
        return 100_000 * seconds
    return work.rate * seconds * (work.clients if work.kind == "fanout" else 1)


def _make_traffic(target: Target, work: Work, tally: Tally) -> tuple[Traffic, list[Client]]:
    if work.kind == "fanout":
        room = "/exchange/amq.topic/bench.all"
        receivers = [Client(tally, room, room, stagger=index, named=target.named) for index in range(work.clients)]
        sender = Client(tally, room)
        return Traffic(tally, [sender], receivers, work.clients, FANOUT_WINDOW), [sender, *receivers]
    ack = "client" if work.kind == "rooms-ack" else "auto"
    clients = [
        Client(tally, room, room, ack=ack, stagger=index, named=target.named)
        for index, room in enumerate(_rooms(work.clients))
    ]
    return Traffic(tally, clients, clients, 1, ROOMS_WINDOW), clients


def _rooms(count: int) -> list[str]:
    return [f"/exchange/amq.topic/bench.room.{index}" for index in range(count)]


async def warm_up(traffic: Traffic) -> None:
    """Every sender and receiver has had a few messages before anything counts."""
    total = max(20, len(traffic.senders))
    deadline = time.monotonic() + 30
    while traffic.sent < total and time.monotonic() < deadline:
        if traffic.under_way < 4 * traffic.copies:
            traffic.send(min(4, total - traffic.sent))
        await asyncio.sleep(POLL)
    await drain(traffic, limit=30)


async def send_at(traffic: Traffic, rate: float, seconds: float) -> float:
    """Sends at a steady rate, whatever comes back; returns the seconds that it was behind its schedule at worst."""
    total = max(1, round(rate * seconds))
    start, done, late = time.monotonic(), 0, 0.0
    while done < total:
        elapsed = time.monotonic() - start
        count = min(total, int(elapsed * rate) + 1) - done
        if count > 0:
            late = max(late, elapsed - done / rate)
            traffic.send(count)
            done += count
        await asyncio.sleep(max(TICK, start + done / rate - time.monotonic()))
    return late


async def send_as_taken(traffic: Traffic, seconds: float) -> float:
    """Keeps a fixed number of messages in flight; being behind means nothing here."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        traffic.send(max(0, traffic.window - traffic.under_way // traffic.copies))
        await asyncio.sleep(POLL)
    return 0.0


async def drain(traffic: Traffic, limit: float) -> float:
    """Waits for what is under way; returns the time of the last delivery."""
    left, moved = traffic.under_way, time.monotonic()
    deadline = moved + limit
    while left > 0 and moved < deadline:
        await asyncio.sleep(0.01)
        seen, at = traffic.under_way, time.monotonic()
        if seen != left:
            left, moved = seen, at
        elif at - moved > STALLED:
            break
    return moved


# Connections.


async def _idle(target: Target, work: Work, seconds: float, result: Result) -> None:
    """Memory per idle subscribed connection, and what keeping them costs, heart-beats both ways every 10 s."""
    tally = Tally()
    interval = f"{HEARTBEAT * 1000:.0f},{HEARTBEAT * 1000:.0f}"
    clients = [Client(tally, room, room, heartbeat=interval) for room in _rooms(work.clients)]
    first, rest = clients[:20], clients[20:]
    beating = asyncio.create_task(beat(clients))
    try:
        await open_all(first, target.port, target.path)
        empty, kernel = await settled_memory(target), kernel_memory()
        await open_all(rest, target.port, target.path)
        await bound(target)
        await settled_memory(target)
        # Both ends of a connection are on this machine.
        result.figures["kib_kernel"] = (kernel_memory() - kernel) / 1024 / max(1, len(rest)) / 2
        before = Snapshot.take(target.groups)
        await asyncio.sleep(seconds)
        after = Snapshot.take(target.groups)
        count = max(1, len(rest))
        for name, used in after.groups.items():
            result.figures[f"kib_{name}"] = (used.rss - empty[name]) / 1024 / count
        result.figures["kib"] = sum(result.figures[f"kib_{name}"] for name in target.groups)
        shares = {name: 100 * spent / (after.at - before.at) for name, spent in after.cpu_since(before).items()}
        result.figures |= {f"idle_cpu_{name}_percent": share for name, share in shares.items()}
        result.figures["idle_cpu_percent"] = sum(shares.values())
        watch_generator(before, after, result)
        add_faults(tally, result)
    finally:
        beating.cancel()
        close_all(clients)


async def bound(target: Target) -> None:
    """Waits until the bridge has bound in the background what was opened at once: that is RabbitMQ's work, while
    heart-beats are not."""
    behind = {name: pids for name, pids in target.groups.items() if name != "bridge"}
    if "bridge" in target.groups:
        await quiet(replace(target, groups=behind), BOUND_TIMEOUT)


async def settled_memory(target: Target) -> dict[str, int]:
    """Resident bytes by group, once they hardly change any more: a machine that has just started gives some back."""
    deadline = time.monotonic() + MEMORY_TIMEOUT
    sizes: dict[str, int] = {}
    unchanged = 0
    while unchanged < 4 and time.monotonic() < deadline:
        await asyncio.sleep(1)
        former, sizes = sizes, {name: usage(pids).rss for name, pids in target.groups.items()}
        same = all(abs(size - former.get(name, 0)) < MEMORY_STEP for name, size in sizes.items())
        unchanged = unchanged + 1 if same else 0
    return sizes


async def beat(clients: Sequence[Client]) -> None:
    """Sends every client's heart-beat, spread evenly over the interval."""
    steps = 20
    step = 0
    while True:
        await asyncio.sleep(HEARTBEAT / steps)
        for client in clients[step::steps]:
            if client.ready.done():
                client.beat()
        step = (step + 1) % steps


async def _connect(target: Target, work: Work, result: Result) -> None:
    """Connections a second, each with a subscription to a room of its own, or all to one; some at a time, or all."""
    tally = Tally()
    rooms = _rooms(work.clients)
    if work.kind == "connect-shared":
        rooms = rooms[:1] * work.clients
    clients = [Client(tally, room, room) for room in rooms]
    try:
        before = Snapshot.take(target.groups)
        open_them = open_at_once if work.kind == "storm" else open_all
        took = await open_them(clients, target.port, target.path)
        opened = time.monotonic()
        after = Snapshot.take(target.groups)
        result.figures |= {
            "per_second": work.clients / (opened - before.at),
            "p50_ms": percentile(took, 0.5),
            "p99_ms": percentile(took, 0.99),
            **cpu_each(before, after, work.clients),
        }
        watch_generator(before, after, result)
        if work.kind == "storm":
            # What is left to do while the clients stay, as long as it takes.
            await quiet(target, STORM_TIMEOUT)
            spent = sum(Snapshot.take(target.groups).cpu_since(after).values())
            result.figures |= {"all_s": opened - before.at, "cpu_after_us": spent * 1e6 / work.clients}
        add_faults(tally, result)
    finally:
        close_all(clients)


# What all have in common.


def cpu_each(before: Snapshot, after: Snapshot, count: int) -> dict[str, float]:
    each = {f"cpu_{name}_us": spent * 1e6 / max(1, count) for name, spent in after.cpu_since(before).items()}
    return {**each, "cpu_us": sum(each.values())}


def watch_generator(before: Snapshot, after: Snapshot, result: Result) -> None:
    own, other = after.own_share_since(before), after.other_share_since(before)
    result.figures |= {"generator_percent": 100 * own, "other_percent": 100 * other}
    if own > 0.8:
        result.notes.append(f"the generator used {own:.0%} of a core: it may be what limits this figure")
    if other > 0.2:
        result.notes.append(f"other processes used {other:.0%} of a core")


def add_faults(tally: Tally, result: Result) -> None:
    result.figures |= {"errors": tally.errors, "disconnected": tally.disconnected}
    if tally.first_error:
        result.notes.append(f"first error: {tally.first_error!r}")
    for figure in ("lost", "doubled", "reordered", "errors", "disconnected"):
        if result.figures.get(figure):
            result.notes.append(f"{figure}: {result.figures[figure]:g}")


def close_all(clients: Sequence[Client]) -> None:
    for client in clients:
        client.close()
