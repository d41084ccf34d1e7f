"""How much of everything so many connections need, by arithmetic from measured figures.

What is measured is in :class:`Measured`, what is assumed in :class:`Load`; all else follows from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONNECTIONS = (10_000, 100_000, 1_000_000, 10_000_000)
MOST_CONNECTIONS = 50_000
"""Of a process: the default of ``limits.connections``."""
BUSY = 0.6
"""The share of a core that may be in use, so that a burst and a lost neighbour find room."""
CLUSTER_CORES = 24
"""Of a RabbitMQ cluster: three nodes of eight."""

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """What one costs, on the machine that measured."""

    kib: float
    """Of the bridge's memory, for a connection."""
    kib_kernel: float
    """Of the kernel's, for its socket."""
    kib_binding: float
    """Of RabbitMQ's, for a binding of a room."""
    idle_us: float
    """Of the bridge's CPU a second, for a connection with 10 s heart-beats."""
    write_us: float
    """Of the bridge's CPU, for a delivery more of a message that it has."""
    message_us: float
    """Of the bridge's CPU, for a message beside its deliveries: SEND, publish, confirm, its copy from RabbitMQ."""
    rabbitmq_us: float
    """Of RabbitMQ's CPU, for a message and one copy of it."""
    redis_us: float
    """Of Redis' CPU, for a delivery to a named client."""
    connects: float
    """Connections that one process lets in a second, each with a subscription."""


def measured(results: Results) -> Measured:
    """Takes the figures out of the results of the scenarios; ``KeyError`` names what is not there."""
    ours = results["load"]["medians"]
    connect = next(work for work in ours if work.startswith("connect "))
    idle = next(iter(results["idle"]["medians"].items()))
    still = idle[1]["stompbridge"]
    write = results["flat"]["medians"]["fanout 10000 @ 2/s"]["stompbridge"]["cpu_bridge_us"]
    room = ours["rooms 500 @ 3000/s"]["stompbridge"]
    named = results["chat"]["medians"]["100 rooms of 5 @ 1000/s"]["named"]
    return Measured(
        kib=still["kib_bridge"],
        kib_kernel=still["kib_kernel"],
        kib_binding=still["kib_rabbitmq"],
        idle_us=still["idle_cpu_bridge_percent"] * 1e4 / int(idle[0].split()[1]),
        write_us=write,
        message_us=max(0.0, room["cpu_bridge_us"] - write),
        rabbitmq_us=room["cpu_rabbitmq_us"],
        redis_us=named["cpu_redis_us"],
        connects=ours[connect]["stompbridge"]["per_second"],
    )


@dataclass(frozen=True)
class Load:
    """What is assumed of the clients. ``by_room``: all members of a room are on one process."""

    sends_per_minute: float = 1.0
    members: int = 20
    by_room: bool = False


@dataclass(frozen=True)
class Size:
    """What it takes."""

    connections: int
    sends: float
    """A second, as all that follows."""
    deliveries: float
    copies: float
    """That RabbitMQ makes of one message: processes that have a member of its room."""
    processes: int
    gib_process: float
    """The bridge's and the kernel's, of one process."""
    rabbitmq_cores: float
    clusters: int
    rabbitmq_gib: float
    """For bindings, beside what RabbitMQ needs to run."""
    redis_cores: float
    """Where all clients name themselves."""
    back_seconds: float
    """Until all are back after all were lost."""


def size(connections: int, cost: Measured, load: Load) -> Size:
    """The smallest number of processes of which none is busier than :data:`BUSY` or has too many connections."""
    sends = connections * load.sends_per_minute / 60
    deliveries = sends * load.members
    needed = max(1, math.ceil(connections / MOST_CONNECTIONS))
    processes = 0
    copies = 1.0
    # More processes make more copies, which may take more processes: the number only rises, and is bounded by that
    # for one copy to each member.
    while needed > processes:
        processes = needed
        copies = 1.0 if load.by_room else processes_reached(processes, load.members)
        spent = connections * cost.idle_us + sends * copies * cost.message_us + deliveries * cost.write_us
        needed = math.ceil(spent / 1e6 / BUSY)
    rabbitmq = sends * copies * cost.rabbitmq_us / 1e6 / BUSY
    bindings = connections / load.members * copies
    return Size(
        connections=connections,
        sends=sends,
        deliveries=deliveries,
        copies=copies,
        processes=processes,
        gib_process=connections / processes * (cost.kib + cost.kib_kernel) / 2**20,
        rabbitmq_cores=rabbitmq,
        clusters=max(1, math.ceil(rabbitmq / CLUSTER_CORES)),
        rabbitmq_gib=bindings * cost.kib_binding / 2**20,
        redis_cores=deliveries * cost.redis_us / 1e6 / BUSY,
        back_seconds=connections / processes / cost.connects,
    )


def processes_reached(processes: int, members: int) -> float:
    """How many of the processes have at least one of the members, where each member is on any of them."""
    return max(1.0, processes * (1 - (1 - 1 / processes) ** members))
