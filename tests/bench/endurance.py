"""What takes time: idle connections, the start, and a soak."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from tests.bench import scenarios
from tests.bench.chat import ChatTally
from tests.bench.client import Client, Tally
from tests.bench.deployment import CHAT_CONFIG, Deployment
from tests.bench.jobs import Job, Options, standard
from tests.bench.measures import CHAT_BODY, CHAT_CLIENTS, make_rooms
from tests.bench.proc import usage
from tests.bench.scenarios import Result, Target, Traffic, Work
from tests.support.ports import free_port

IDLE_SECONDS = 30.0
"""At least: every client beats three times."""
START_TIMEOUT = 30.0
SATURATION_SECONDS = 10.0
SHARE = 0.8
"""Of what is taken at most, in a soak."""
SAMPLE_EVERY = 10.0
WARM_UP = 60.0
"""Seconds of a soak that do not count: buffers, histories and caches fill. A short soak takes a fifth."""
TOLERANCE, TOLERANCE_BYTES = 0.02, 2 << 20
"""What memory may vary by without having grown."""


def idle(options: Options) -> Iterator[Job]:
    """Connections that do nothing but beat, on fresh servers each time."""
    for number in range(1, options.rounds + 1):
        with Deployment(embedded=options.embedded) as deployment:
            target = deployment.bridge("stompbridge")
            yield standard(target, Work("idle", options.connections), max(IDLE_SECONDS, options.seconds), number)


class _Listener(Client):
    """Tells when it has heard something."""

    __slots__ = ("heard",)

    def __init__(self, tally: Tally, send_to: str, subscribe_to: str) -> None:
        super().__init__(tally, send_to, subscribe_to)
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _messages(self, data: bytes, start: int, end: int) -> None:
        super()._messages(data, start, end)
        if not self.heard.done():
            self.heard.set_result(None)


def start(options: Options) -> Iterator[Job]:
    """From the start of the process to the first message that a client gets through it."""
    with Deployment(embedded=options.embedded) as deployment:
        for number in range(1, options.rounds + 1):
            yield Job("start", "stompbridge", number, partial(_start, deployment))


async def _start(deployment: Deployment, result: Result) -> None:
    room = "/exchange/amq.topic/bench.start"
    port = free_port()
    began = time.monotonic()
    daemon = deployment.spawn(port, {})
    tally = Tally()
    client = _Listener(tally, room, room)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while not await _accepted(client, port):
                client = _Listener(tally, room, room)
                await asyncio.sleep(0.005)
            result.figures["subscribed_ms"] = 1000 * (time.monotonic() - began)
            client.send()
            await client.heard
            result.figures["start_ms"] = 1000 * (time.monotonic() - began)
            result.figures["start_cpu_ms"] = 1000 * usage([daemon.pid]).cpu
    finally:
        client.close()
        await asyncio.to_thread(daemon.stop)


async def _accepted(client: Client, port: int) -> bool:
    try:
        await client.open(port, "/ws")
    except ConnectionError:
        return False
    return True


def soak(options: Options) -> Iterator[Job]:
    """Rooms of named clients that acknowledge, histories in Redis, at most of what is taken, for minutes."""
    with Deployment(embedded=options.embedded, redis=True) as deployment:
        target = deployment.bridge("named", config=CHAT_CONFIG, named=True)
        work = f"soak {options.minutes:g} min"
        yield Job(work, target.name, 1, partial(_soak, target, options.members[-1], options.minutes * 60))


async def _soak(target: Target, members: int, seconds: float, result: Result) -> None:
    count = CHAT_CLIENTS // members

    async def run(rate: float | None, length: float, into: Result) -> None:
        tally = ChatTally(scenarios.sample_every((rate or 5000) * members * length))
        rooms, clients = make_rooms(tally, count, members, CHAT_BODY, named=True)
        traffic = Traffic(tally, rooms, clients, members, scenarios.ROOMS_WINDOW)
        await scenarios.exchange(target, traffic, clients, rate, length, into)

    async with scenarios.undisturbed(target):
        most = Result("saturation", target.name, 0)
        await run(None, min(SATURATION_SECONDS, seconds), most)
        result.figures["saturation_per_second"] = most.figures["sent_per_second"]
        result.notes += [f"saturation: {note}" for note in most.notes]
    samples: dict[str, list[tuple[float, int]]] = {name: [] for name in target.groups}
    sampling = asyncio.create_task(_sample(target, samples, min(SAMPLE_EVERY, seconds / 20)))
    try:
        await run(SHARE * most.figures["sent_per_second"], seconds, result)
    finally:
        sampling.cancel()
    result.figures["seconds"] = seconds
    judge(samples, min(WARM_UP, seconds / 5), result)


async def _sample(target: Target, samples: Mapping[str, list[tuple[float, int]]], interval: float) -> None:
    began = time.monotonic()
    while True:
        for name, pids in target.groups.items():
            samples[name].append((time.monotonic() - began, usage(pids).rss))
        await asyncio.sleep(interval)


def judge(samples: Mapping[str, Sequence[tuple[float, int]]], warm_up: float, result: Result) -> None:
    """Memory of each group after the warm-up: at its begin and its end (medians of the first and the last third of the
    samples, in MiB), and whether it grew; all samples go into the notes."""
    grew = 0
    for name, found in samples.items():
        after = [size for at, size in found if at >= warm_up]
        third = max(1, len(after) // 3)
        begin, end = statistics.median(after[:third]), statistics.median(after[-third:])
        result.figures |= {f"mib_{name}_begin": begin / 2**20, f"mib_{name}_end": end / 2**20}
        if end > begin * (1 + TOLERANCE) + TOLERANCE_BYTES:
            grew += 1
            result.notes.append(f"{name} grew from {begin / 2**20:.1f} to {end / 2**20:.1f} MiB")
        result.notes.append(f"{name}, MiB: " + " ".join(f"{size / 2**20:.1f}" for _, size in found))
    result.figures["grew"] = grew
