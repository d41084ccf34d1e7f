"""Messages, beside :mod:`tests.bench.load`: the chat application, compression, large fan-outs, several processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

from tests.bench import scenarios
from tests.bench.chat import Bodies, ChatClient, ChatTally, Room
from tests.bench.deployment import CHAT_CONFIG, Deployment
from tests.bench.jobs import Job, Options, standard
from tests.bench.scenarios import Result, Target, Traffic, Work

CHAT_RATES = (50.0, 100.0, 1000.0, 3000.0)
CHAT_CLIENTS, CHAT_BODY = 500, 200
WIRE_BODIES = (300, 1000)
WIRE_RECEIVERS = (10, 500)
WIRE_DELIVERIES, FLAT_DELIVERIES = 10_000, 20_000
"""Deliveries a second, the same for each number of receivers."""
FLAT_RECEIVERS = (100, 400, 1000, 4000, 10_000)
PROCESSES_WORK = (Work("fanout", 1000), Work("rooms", 500))


def chat(options: Options) -> Iterator[Job]:
    """The chat application's own test, with the configuration of ``config/chat-app.toml``.

    ``page`` is its page as it is; ``named`` the same with ``client-id``, and histories in Redis.
    """
    with Deployment(embedded=options.embedded, redis=True) as deployment:
        targets = [
            deployment.bridge("page", config=CHAT_CONFIG),
            deployment.bridge("named", config=CHAT_CONFIG, named=True),
        ]
        for number in range(1, options.rounds + 1):
            for members, rate, target in product(options.members, CHAT_RATES, targets):
                rooms = CHAT_CLIENTS // members
                run = partial(_chat, target, rooms, members, rate, options.seconds)
                yield Job(f"{rooms} rooms of {members} @ {rate:g}/s", target.name, number, run)


async def _chat(target: Target, rooms: int, members: int, rate: float, seconds: float, result: Result) -> None:
    tally = ChatTally(scenarios.sample_every(rate * seconds * members))
    async with scenarios.undisturbed(target):
        senders, clients = make_rooms(tally, rooms, members, CHAT_BODY, target.named)
        traffic = Traffic(tally, senders, clients, members, 1)
        await scenarios.exchange(target, traffic, clients, rate, seconds, result)
    figures = result.figures
    late = tally.late + figures["lost"]
    figures["late_percent"] = 100 * late / max(1.0, figures["deliveries"] + figures["lost"])


def make_rooms(
    tally: ChatTally, count: int, members: int, body: int, named: bool
) -> tuple[list[Room], list[ChatClient]]:
    """Rooms of the chat application, and all their members, who acknowledge what they get."""
    bodies = Bodies(body)
    rooms: list[Room] = []
    clients: list[ChatClient] = []
    for number in range(1, count + 1):
        said, heard = f"/app/message/{number}", f"/exchange/chat.exchange/roomId.{number}"
        inside = [
            ChatClient(tally, said, heard, body, stagger=number + member, named=named) for member in range(members)
        ]
        rooms.append(Room(inside, bodies))
        clients += inside
    return rooms, clients


def wire(options: Options) -> Iterator[Job]:
    """Bytes and CPU per delivery with and without compression: chat messages to ten receivers, and to hundreds."""
    with Deployment(embedded=options.embedded) as deployment:
        targets = [
            deployment.bridge("plain", config=CHAT_CONFIG),
            deployment.bridge("compressed", {"LISTEN__COMPRESSION": "true"}, config=CHAT_CONFIG),
        ]
        for number in range(1, options.rounds + 1):
            for receivers, body, target in product(WIRE_RECEIVERS, WIRE_BODIES, targets):
                run = partial(_wire, target, receivers, body, options.seconds)
                yield Job(f"{body} bytes to {receivers}", target.name, number, run)


async def _wire(target: Target, receivers: int, body: int, seconds: float, result: Result) -> None:
    compressed = target.name == "compressed"
    tally = ChatTally(scenarios.sample_every(WIRE_DELIVERIES * seconds))
    said, heard = "/app/message/7", "/exchange/chat.exchange/roomId.7"
    async with scenarios.undisturbed(target):
        members = [
            ChatClient(tally, said, heard, body, ack="auto", stagger=index, compressed=compressed)
            for index in range(receivers)
        ]
        speaker = ChatClient(tally, said, None, body)
        traffic = Traffic(tally, [Room([speaker], Bodies(body))], members, receivers, 1)
        rate = WIRE_DELIVERIES / receivers
        await scenarios.exchange(target, traffic, [speaker, *members], rate, seconds, result)
    result.figures["wire_bytes"] = tally.received / max(1.0, result.figures["deliveries"])


def flat(options: Options) -> Iterator[Job]:
    """The cost of a delivery, from a hundred receivers of one destination to ten thousand."""
    with Deployment(embedded=options.embedded) as deployment:
        target = deployment.bridge("stompbridge")
        for number in range(1, options.rounds + 1):
            for receivers in FLAT_RECEIVERS:
                yield standard(target, Work("fanout", receivers, FLAT_DELIVERIES / receivers), options.seconds, number)


def processes(options: Options) -> Iterator[Job]:
    """As many messages as are taken, by one process on a port and by two."""
    with Deployment(embedded=options.embedded) as deployment:
        targets = [deployment.bridge("1 process"), deployment.bridge("2 processes", processes=2)]
        for number in range(1, options.rounds + 1):
            for work, target in product(PROCESSES_WORK, targets):
                yield standard(target, work, options.seconds, number)
