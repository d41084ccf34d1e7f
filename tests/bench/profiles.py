"""Where the bridge's time goes: samples of its stack under load, sorted into the steps of the hot paths.

    .venv/bin/python -m pip install py-spy
    .venv/bin/python -m tests.bench.profiles
    .venv/bin/python -m tests.bench.profiles --seconds 20

A sample counts for the innermost function of stompbridge; one with none is the event loop's own, which includes waiting
for sockets to be readable and reading from them. A step's share of the samples, times the CPU time that a delivery
costs the bridge in the same run, is what the step costs. The report goes to ``--out``, for
``python -m tests.bench.document``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import uvloop

from tests.bench import report
from tests.bench.report import Figure
from tests.bench.scenarios import Result, Target, Work, run
from tests.bench.servers import Servers, raise_file_limit

WORKS = (
    Work("rooms", 500, 3000),
    Work("rooms-ack", 500, 3000),
    Work("fanout", 100, 200),
    Work("fanout", 1000, 50),
    Work("connect-shared", 5000),
)
RATE = 400
"""Samples a second."""
LOOP, OTHER = "event loop, reading", "other"
RULES = (
    (LOOP, r"\S+ (__main__|cli|daemon|composition|lifecycle)\b"),
    ("write to clients", r"(write|send|_flush) gateway/connection"),
    ("write to RabbitMQ", r"(_flush|send) brokers/amqp/wire"),
    ("sweep", r"_check gateway/listener|(on_)?check gateway/|\S+ (gateway/sweep|stomp/heartbeat)"),
    ("MESSAGE frame", r"(_frame|encode|_write) routing/hub|(?!message_from_send )\S+ routing/headers"),
    ("MESSAGE frame", r"\S+ (routing/deflate|gateway/frames)"),
    ("publish, confirm", r"(_?encode\w*|frame) brokers/amqp/codec"),
    ("publish, confirm", r"\S+ brokers/amqp/(publisher|broker|channel|exchanges|outage)\.py"),
    ("RabbitMQ's frames in", r"\S+ brokers/amqp/(splitter|wire|codec|fields|methods)"),
    ("mailbox, binding", r"\S+ brokers/amqp/(mailboxes|bindings|held|consumer)"),
    ("WebSocket in", r"\S+ gateway/(receiver|connection|opening|handshake|capacity)"),
    ("STOMP frames in", r"\S+ stomp/parser"),
    ("session", r"\S+ (stomp/|dedup/|gateway/(client|admission|rates|gate|shared|traffic))"),
    ("subscription", r"\S+ gateway/subscriptions"),
    ("match", r"\S+ (routing/(hub|seen|identity|users)|brokers/topics)"),
    ("SEND to message", r"\S+ routing/"),
)
"""The steps, and what of ``function file`` belongs to each; the first that fits counts."""
STEPS = (
    LOOP,
    "WebSocket in",
    "STOMP frames in",
    "session",
    "SEND to message",
    "publish, confirm",
    "write to RabbitMQ",
    "RabbitMQ's frames in",
    "mailbox, binding",
    "match",
    "MESSAGE frame",
    "subscription",
    "write to clients",
    "sweep",
    OTHER,
)
"""The steps in the order in which a message takes them."""
_PLACE = re.compile(r"(\S+) \(\S*?stompbridge/([\w/]+\.py)")


def step_of(stack: str) -> str:
    """The step that one line of py-spy's raw form belongs to: frames from the outermost on, with ``;`` between."""
    for place in reversed(stack.split(";")):
        found = _PLACE.match(place)
        if found is not None:
            where = f"{found[1].rpartition('.')[2]} {found[2]}"
            return next((step for step, rule in RULES if re.match(rule, where)), OTHER)
    return LOOP


def shares(lines: Iterable[str]) -> dict[str, float]:
    """The share of each step, from py-spy's raw form: a stack and its number of samples a line."""
    counted: Counter[str] = Counter()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        counted[step_of(stack)] += int(number)
    total = counted.total()
    return {step: counted[step] / total for step in STEPS} if total else {}


async def profile(target: Target, work: Work, seconds: float, spy: str) -> Result:
    """One run under load, sampled from its second half on."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        loaded = asyncio.ensure_future(run(target, work, seconds, 1))
        if work.sends:
            # Opening and subscribing come before, and are not part of it.
            await asyncio.sleep(seconds / 2)
        spying = await asyncio.create_subprocess_exec(
            *(spy, "record", "--nonblocking", "--rate", str(RATE), "--duration", str(max(1, int(seconds / 2)))),
            *("--function", "--format", "raw", "--output", str(raw), "--pid", str(target.groups["bridge"][0])),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await spying.wait()
        result = await loaded
        cost = result.figures["cpu_bridge_us"]
        for step, share in shares(raw.read_text().splitlines()).items():
            result.figures[step] = share * cost
        return result


FIGURES = (Figure("cpu_bridge_us", "bridge us", ",.1f"), *(Figure(step, step, ".1f") for step in STEPS))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.profiles", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="of sending (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of results (%(default)s)")
    options = parser.parse_args(argv)
    beside = Path(sys.executable).with_name("py-spy")
    spy = str(beside) if beside.exists() else shutil.which("py-spy")
    if spy is None:
        parser.error("py-spy is needed: .venv/bin/python -m pip install py-spy")
    raise_file_limit()
    results = []
    with Servers(["stompbridge"]) as servers:
        for work in WORKS:
            results.append(uvloop.run(profile(servers.targets["stompbridge"], work, options.seconds, spy)))
            sys.stderr.write(f"{work}\n")
    sys.stdout.write(report.table(results, FIGURES) + "\n")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "profiles.json").write_text(json.dumps(report.as_json(results, {}), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
