"""Load and latency, stompbridge and RabbitMQ's Web STOMP side by side.

    python -m tests.bench.load
    python -m tests.bench.load --targets stompbridge,webstomp --scenarios fanout,rooms --rounds 5 --json result.json
    python -m tests.bench.load --targets memory --scenarios fanout --receivers 100 --rates 200,max --seconds 5

One run starts RabbitMQ with its ``rabbitmq_web_stomp`` plugin and stompbridge on free loopback ports, with folders of
their own, measures each piece of work against each target in turn, round after round, and ends what it started. Nothing
leaves the machine. It needs Debian's ``rabbitmq-server`` and the packages of ``stompbridge[test]``.

Scenarios, all with JSON bodies of 100 bytes:

``fanout``          one sender, ``--receivers`` receivers of one destination
``rooms``           ``--rooms`` clients, each sending to a destination that only it subscribes, ``ack:auto``
``rooms-ack``       the same with ``ack:client``, every message acknowledged
``connect``         ``--connections`` clients connect and subscribe a room of their own, 50 at a time
``connect-shared``  the same, all to one room
``storm``           ``--storm`` clients connect and subscribe a room of their own, all at once
``idle``            ``--connections`` subscribed clients with 10 s heart-beats that do nothing, on fresh servers

Rates are messages sent a second, by all senders together; ``max`` keeps a fixed number of messages in flight.

What is in the table (medians over the rounds; the line ``ratio`` divides by Web STOMP):

``per s``       deliveries a second from the first SEND to the last delivery; connections a second for ``connect``
``p50``, ``p99``  from just before SEND is written to MESSAGE being read, every k-th delivery; the time from opening the
                socket to the subscription's RECEIPT for ``connect``, from the beginning for ``storm``
``CPU us``      user and system time from ``/proc/<pid>/stat`` of the bridge, of RabbitMQ, and of both, with children,
                divided by deliveries or connections
``all s``       seconds until every client of a storm has its RECEIPT
``after us``    CPU of all servers from then on until they are quiet, divided by the clients of the storm
``KiB/conn``    growth of the resident set from 20 connections to all, divided by their number
``lost``, ``twice``  from the running numbers in the bodies, per receiver
``gen. %``      what this generator used of one core. Above 80 it may be what limits, and a warning says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tests.bench import goals, plot, report
from tests.bench.scenarios import Result, Target, Work, run
from tests.bench.servers import TARGETS, Servers, raise_file_limit

SCENARIOS = ("fanout", "rooms", "rooms-ack", "connect", "connect-shared", "storm", "idle")
MANY = 500
"""From this many receivers on a fan-out is measured at :data:`MANY_RATES`."""
MANY_RATES: tuple[float | None, ...] = (20, 50, None)
FEW_RATES: tuple[float | None, ...] = (200,)
ROOM_RATES: dict[str, tuple[float | None, ...]] = {"rooms": (1000, 3000, 8000), "rooms-ack": (1000, 3000)}


def names(allowed: Sequence[str]) -> argparse._ActionType:
    """The type of an option that lists some of ``allowed``, separated by commas."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return chosen

    return parse


def counts(text: str) -> list[int]:
    """The type of an option that lists whole numbers from 1 to 20,000."""
    numbers = [int(part) for part in text.split(",")]
    if not all(1 <= number <= 20_000 for number in numbers):
        raise argparse.ArgumentTypeError("from 1 to 20000")
    return numbers


def rates(text: str) -> list[float | None]:
    """The type of an option that lists rates; ``None`` stands for ``max``."""
    values = [None if part == "max" else float(part) for part in text.split(",")]
    if not all(value is None or 0 < value <= 1_000_000 for value in values):
        raise argparse.ArgumentTypeError("rates are above 0 and at most 1000000, or max")
    return values


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--targets", type=names(TARGETS), default="stompbridge,webstomp", help="memory: with the embedded broker"
    )
    parser.add_argument("--scenarios", type=names(SCENARIOS), default=",".join(SCENARIOS))
    parser.add_argument("--receivers", type=counts, default="1000,100", help="of a fan-out (%(default)s)")
    parser.add_argument("--rooms", type=counts, default="500", help="clients (%(default)s)")
    parser.add_argument("--connections", type=counts, default="1000", help="connect and idle (%(default)s)")
    parser.add_argument("--storm", type=counts, default="5000", help="clients (%(default)s)")
    parser.add_argument("--rates", type=rates, help="instead of each scenario's own")
    parser.add_argument("--seconds", type=float, default=5.0, help="of sending, at most 600 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="at most 50 (%(default)s)")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--plot", type=Path, help="draw the figures into this file, SVG")
    options = parser.parse_args(argv)
    if not 0.1 <= options.seconds <= 600 or not 1 <= options.rounds <= 50:
        parser.error("--seconds is from 0.1 to 600 and --rounds from 1 to 50")
    return options


def plan(options: argparse.Namespace) -> list[Work]:
    """The rows of the table."""
    rows = []
    for scenario in options.scenarios:
        if scenario == "fanout":
            for receivers in options.receivers:
                own = MANY_RATES if receivers >= MANY else FEW_RATES
                rows += [Work(scenario, receivers, rate) for rate in options.rates or own]
        elif scenario in ROOM_RATES:
            for rooms in options.rooms:
                rows += [Work(scenario, rooms, rate) for rate in options.rates or ROOM_RATES[scenario]]
        else:
            clients = options.storm if scenario == "storm" else options.connections
            rows += [Work(scenario, number) for number in clients]
    return rows


async def measure(target: Target, work: Work, seconds: float, number: int) -> Result:
    """One run, which may fail without ending the others."""
    try:
        return await run(target, work, seconds, number)
    except (OSError, TimeoutError) as error:
        return Result(str(work), target.name, number, notes=[f"failed: {str(error) or type(error).__name__}"])


def measure_all(options: argparse.Namespace) -> list[Result]:
    """All rounds; progress goes to stderr."""
    results: list[Result] = []

    def one(target: Target, work: Work, number: int) -> None:
        result = uvloop.run(measure(target, work, options.seconds, number))
        results.append(result)
        shown = {
            figure.heading: format(result.figures[figure.name], figure.form)
            for figure in report.FIGURES
            if figure.name in result.figures
        }
        say(f"round {number}: {work}, {target.name}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
        for note in result.notes:
            say(f"  {note}")

    rows = plan(options)
    busy, idle = [row for row in rows if row.kind != "idle"], [row for row in rows if row.kind == "idle"]
    if busy:
        with Servers(options.targets) as servers:
            for number in range(1, options.rounds + 1):
                for work in busy:
                    for name in options.targets:
                        one(servers.targets[name], work, number)
    for number in range(1, options.rounds + 1):
        for work in idle:
            for name in options.targets:
                with Servers([name]) as servers:
                    one(servers.targets[name], work, number)
    return results


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def environment(options: argparse.Namespace) -> dict[str, object]:
    """What a figure depends on besides the programs."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": options.seconds,
        "rounds": options.rounds,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it; 1 when a run failed or a message was lost or came twice."""
    options = arguments(argv)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    raise_file_limit()
    results = measure_all(options)
    sys.stdout.write(report.table(results))
    for note in report.notes(results):
        sys.stdout.write(f"! {note}\n")
    summary = report.as_json(results, environment(options))
    if len(reached := goals.table(summary)) > 1:
        sys.stdout.write("\n" + report.align(reached))
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    if options.plot:
        options.plot.write_text(plot.svg(summary))
    sound = all(
        result.figures and not result.figures.get("lost") and not result.figures.get("doubled") for result in results
    )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
