"""What :mod:`tests.bench.load` does not compare with Web STOMP: stompbridge for itself.

    python -m tests.bench.extra
    python -m tests.bench.extra chat wire --rounds 3 --seconds 5
    python -m tests.bench.extra soak --minutes 15

Servers are started on free loopback ports and ended again. Figures go to stdout as tables, and into one JSON file for
each scenario in the folder ``--out``, from which ``python -m tests.bench.document`` makes the tables of the
documentation.

``chat``       the chat application's own test: requests a second to ``/app/message/{room}``, ``ack:client``
``wire``       bytes on the wire and CPU per delivery, with and without compression
``flat``       CPU per delivery from 100 to 10,000 receivers
``idle``       15,000 connections with 10 s heart-beats: memory each, and CPU
``start``      from the start of the process to its first delivery
``processes``  one process on a port, and two (``listen.reuse_port``)
``soak``       80 % of saturation for 15 minutes with memory of bridge, RabbitMQ and Redis; only when it is named
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench import endurance, measures, report
from tests.bench.jobs import Job, Options
from tests.bench.report import Figure
from tests.bench.scenarios import Result
from tests.bench.servers import raise_file_limit

SCENARIOS: dict[str, Callable[[Options], Iterator[Job]]] = {
    "chat": measures.chat,
    "wire": measures.wire,
    "flat": measures.flat,
    "idle": endurance.idle,
    "start": endurance.start,
    "processes": measures.processes,
    "soak": endurance.soak,
}
FIGURES = (
    Figure("saturation_per_second", "most SENDs/s", ",.0f"),
    Figure("sent_per_second", "SENDs/s", ",.0f"),
    Figure("per_second", "deliveries/s", ",.0f"),
    Figure("p50_ms", "p50 ms", ",.2f"),
    Figure("p99_ms", "p99 ms", ",.2f"),
    Figure("late_percent", "over 3 s %", ".2f"),
    Figure("wire_bytes", "bytes", ",.0f"),
    Figure("cpu_us", "CPU us", ",.1f"),
    Figure("cpu_bridge_us", "bridge", ",.1f"),
    Figure("cpu_rabbitmq_us", "RabbitMQ", ",.1f"),
    Figure("cpu_redis_us", "Redis", ",.1f"),
    Figure("kib_bridge", "KiB bridge", ".1f"),
    Figure("kib_rabbitmq", "KiB RabbitMQ", ".1f"),
    Figure("kib_kernel", "KiB kernel", ".1f"),
    Figure("idle_cpu_bridge_percent", "CPU % bridge", ".1f"),
    Figure("idle_cpu_rabbitmq_percent", "CPU % RabbitMQ", ".1f"),
    Figure("subscribed_ms", "subscribed ms", ",.0f"),
    Figure("start_ms", "delivered ms", ",.0f"),
    Figure("start_cpu_ms", "CPU ms", ",.0f"),
    *(
        Figure(f"mib_{name}_{when}", f"MiB {shown} {when}", ",.1f")
        for name, shown in (("bridge", "bridge"), ("rabbitmq", "RabbitMQ"), ("redis", "Redis"))
        for when in ("begin", "end")
    ),
    Figure("grew", "grew", ".0f"),
    Figure("lost", "lost", ".0f"),
    Figure("doubled", "twice", ".0f"),
    Figure("errors", "errors", ".0f"),
    Figure("disconnected", "cut off", ".0f"),
    Figure("generator_percent", "gen. %", ".0f"),
)
FAULTS = ("lost", "doubled", "errors", "disconnected", "grew")


def members(text: str) -> list[int]:
    """The type of an option that lists how many members chat rooms have."""
    numbers = [int(part) for part in text.split(",")]
    if not all(1 <= number <= measures.CHAT_CLIENTS for number in numbers):
        raise argparse.ArgumentTypeError(f"from 1 to {measures.CHAT_CLIENTS}")
    return numbers


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.extra", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], help="all but soak")
    parser.add_argument("--rounds", type=int, default=3, help="at most 50 (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of sending, at most 600 (%(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="of a soak, at most 1440 (%(default)s)")
    parser.add_argument("--connections", type=int, default=15_000, help="idle ones, at most 19000 (%(default)s)")
    parser.add_argument("--members", type=members, default="1,5", help="of a chat room, at most 500 (%(default)s)")
    parser.add_argument("--embedded", action="store_true", help="the bridge's own broker instead of RabbitMQ")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of results (%(default)s)")
    options = parser.parse_args(argv)
    options.scenarios = options.scenarios or [name for name in SCENARIOS if name != "soak"]
    bounds = (("rounds", 1, 50), ("seconds", 0.1, 600), ("minutes", 0.05, 1440), ("connections", 21, 19_000))
    for name, least, most in bounds:
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name} is from {least} to {most}")
    return options


def environment(options: Options) -> dict[str, object]:
    """What a figure depends on besides the programs."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "broker": "embedded" if options.embedded else "rabbitmq",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it; 1 when a run failed, a message was lost or came twice, a client was cut off, or memory grew."""
    chosen = arguments(argv)
    options = Options(
        chosen.rounds, chosen.seconds, chosen.minutes, chosen.connections, chosen.members, chosen.embedded
    )
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    raise_file_limit()
    chosen.out.mkdir(parents=True, exist_ok=True)
    sound = True
    for name in chosen.scenarios:
        results = [measure(name, job) for job in SCENARIOS[name](options)]
        sys.stdout.write(f"{name}\n{report.table(results, FIGURES)}\n")
        summary = report.as_json(results, environment(options))
        (chosen.out / f"{name}.json").write_text(json.dumps(summary, indent=2) + "\n")
        sound &= all(map(is_sound, results))
    return 0 if sound else 1


def measure(name: str, job: Job) -> Result:
    """Does it, and tells on stderr how it went."""
    result = job.do()
    shown = ", ".join(
        f"{figure.heading} {report.cell(result.figures[figure.name], figure.form)}"
        for figure in FIGURES
        if figure.name in result.figures
    )
    sys.stderr.write(f"{name}, round {job.round}: {job.work}, {job.target}: {shown}\n")
    for note in result.notes:
        sys.stderr.write(f"  {note}\n")
    return result


def is_sound(result: Result) -> bool:
    return bool(result.figures) and not any(result.figures.get(fault) for fault in FAULTS)


if __name__ == "__main__":
    sys.exit(main())
