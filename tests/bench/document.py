"""Writes the tables of the documentation from results, so that no figure is typed by hand.

    python -m tests.bench.document
    python -m tests.bench.document --results bench-results docs/performance.md docs/scaling.md

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. One whose results are not in the folder is left
as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tests.bench import extra, goals, profiles, report, sizing
from tests.bench.report import Figure
from tests.bench.sizing import Load, Results

Rows = list[list[str]]
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_PAGES = (Path("docs/performance.md"), Path("docs/scaling.md"))


def rewrite(text: str, results: Results) -> tuple[str, list[str]]:
    """The page with its tables, and a line about each table that was left as it is. ``KeyError`` for a table that
    nobody knows."""
    left: list[str] = []

    def replace(found: re.Match[str]) -> str:
        make = TABLES[found[2]]
        try:
            rows = make(results)
        except (KeyError, StopIteration) as missing:
            left.append(f"{found[2]}: left as it is, there is no {missing}")
            return found[0]
        return f"{found[1]}{markdown(rows)}{found[4]}"

    return _TABLE.sub(replace, text), left


def markdown(rows: Rows) -> str:
    """A table; the first row is the heading, and all columns but the first are to the right."""
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows]
    rule = "| --- |" + " ---: |" * (len(rows[0]) - 1) + "\n"
    return head + rule + "".join(body)


def of_figures(
    summary: Mapping[str, Any], figures: Sequence[Figure], works: str = ".*", target: str = "target"
) -> Rows:
    """Medians: a row for each work that matches and each target, and one with the ratios where there is something to
    compare with."""
    chosen = {work: found for work, found in summary["medians"].items() if re.fullmatch(works, work)}
    if not chosen:
        raise KeyError(f"work {works!r}")
    present = {name for targets in chosen.values() for measured in targets.values() for name in measured}
    columns = [figure for figure in figures if figure.name in present]
    rows = [["work", target, *(column.heading for column in columns)]]
    for work, targets in chosen.items():
        for name, measured in targets.items():
            rows.append([work, name, *(report.cell(measured.get(column.name), column.form) for column in columns)])
        for name, times in summary["ratios"].get(work, {}).items():
            label = "ratio" if len(targets) == 2 else f"ratio {name}"
            rows.append(["", label, *(report.cell(times.get(column.name), ".3f") for column in columns)])
    return rows


def of_environment(results: Results) -> Rows:
    rows = [["results", "system", "cores", "Python", "rounds", "seconds each"]]
    for name, summary in sorted(results.items()):
        about = summary["environment"]
        rows.append([name, *(str(about.get(key, "")) for key in ("system", "cores", "python", "rounds", "seconds"))])
    if len(rows) == 1:
        raise KeyError("result")
    return rows


def of_own_goals(results: Results) -> Rows:
    """What stompbridge is to reach for itself; the parts of it that were measured."""
    rows = [["goal", "at most", "measured", "verdict"]]
    for text, limit, form, find in _OWN_GOALS:
        try:
            value = find(results)
        except (KeyError, StopIteration):
            continue
        rows.append([text, f"{limit:g}", format(value, form), "reached" if value <= limit else "missed"])
    if len(rows) == 1:
        raise KeyError("result of tests.bench.extra")
    return rows


def _only(results: Results, scenario: str, target: str, figure: str) -> float:
    return float(next(iter(results[scenario]["medians"].values()))[target][figure])


def _flatness(results: Results) -> float:
    costs = [targets["stompbridge"]["cpu_us"] for targets in results["flat"]["medians"].values()]
    return float(max(costs) / costs[0])


def _late(results: Results) -> float:
    return float(max(targets["page"]["late_percent"] for targets in results["chat"]["medians"].values()))


_OWN_GOALS: tuple[tuple[str, float, str, Callable[[Results], float]], ...] = (
    ("CPU per delivery, 100 to 10,000 receivers: the dearest to that of 100", 1.1, ".2f", _flatness),
    (
        "idle connections with 10 s heart-beats: % of a core, bridge", 5, ".1f",
        lambda results: _only(results, "idle", "stompbridge", "idle_cpu_bridge_percent"),
    ),
    (
        "idle connections: KiB each, bridge", 16, ".1f",
        lambda results: _only(results, "idle", "stompbridge", "kib_bridge"),
    ),
    ("start to first delivery, ms", 1000, ",.0f", lambda results: _only(results, "start", "stompbridge", "start_ms")),
    ("the chat application's test, its page: % over 3 s or lost", 0, ".2f", _late),
    ("soak: of bridge, RabbitMQ and Redis, how many grew", 0, ".0f", lambda r: _only(r, "soak", "named", "grew")),
    ("soak: messages lost", 0, ".0f", lambda results: _only(results, "soak", "named", "lost")),
    ("soak: messages that came twice", 0, ".0f", lambda results: _only(results, "soak", "named", "doubled")),
)  # fmt: skip


def of_inputs(results: Results) -> Rows:
    values = sizing.measured(results)
    rows = [["measured", "value", "from"]]
    for field in fields(values):
        text, source = _INPUTS[field.name]
        rows.append([text, f"{getattr(values, field.name):,.1f}", source])
    return rows


_INPUTS = {
    "kib": ("bridge: KiB for a connection", "`idle`"),
    "kib_kernel": ("kernel: KiB for its socket", "`idle`"),
    "kib_binding": ("RabbitMQ: KiB for a binding", "`idle`, a room for each connection"),
    "idle_us": ("bridge: µs of CPU a second for a connection with 10 s heart-beats", "`idle`"),
    "write_us": ("bridge: µs for a delivery more", "`flat`, 10,000 receivers"),
    "message_us": ("bridge: µs for a message beside its deliveries", "`rooms` at 3,000/s, less a delivery"),
    "rabbitmq_us": ("RabbitMQ: µs for a message and one copy", "`rooms` at 3,000/s"),
    "redis_us": ("Redis: µs for a delivery to a named client", "`chat` at 1,000/s, rooms of 5"),
    "connects": ("bridge: connects and subscriptions a second", "`connect`"),
}


def of_sizes(results: Results) -> Rows:
    cost = sizing.measured(results)
    rows = [
        [
            "connections", "rooms are", "SENDs/s", "deliveries/s", "copies", "bridge processes", "GiB each",
            "RabbitMQ cores", "clusters", "GiB bindings", "Redis cores", "all back after, s",
        ]
    ]  # fmt: skip
    for connections in sizing.CONNECTIONS:
        for by_room in (False, True):
            found = sizing.size(connections, cost, Load(by_room=by_room))
            rows.append(
                [
                    f"{connections:,}",
                    "on one process" if by_room else "anywhere",
                    f"{found.sends:,.0f}",
                    f"{found.deliveries:,.0f}",
                    f"{found.copies:.1f}",
                    f"{found.processes:,}",
                    f"{found.gib_process:.2f}",
                    f"{found.rabbitmq_cores:,.1f}",
                    f"{found.clusters:,}",
                    f"{found.rabbitmq_gib:,.1f}",
                    f"{found.redis_cores:,.1f}",
                    f"{found.back_seconds:,.0f}",
                ]
            )
    return rows


def of_assumptions(_: Results) -> Rows:
    load = Load()
    return [
        ["assumed", "value"],
        ["SENDs of a client a minute", f"{load.sends_per_minute:g}"],
        ["members of a room, each subscribed to that one room", f"{load.members}"],
        ["share of a core in use, at most", f"{sizing.BUSY:.0%}"],
        ["connections of a process, at most (`limits.connections`)", f"{sizing.MOST_CONNECTIONS:,}"],
        ["cores of a RabbitMQ cluster", f"{sizing.CLUSTER_CORES}"],
    ]


def _extra(scenario: str) -> Callable[[Results], Rows]:
    return lambda results: of_figures(results[scenario], extra.FIGURES)


def of_profiles(results: Results) -> Rows:
    """A row for each step, a column for each work: steps are many, works are few."""
    return [list(row) for row in zip(*of_figures(results["profiles"], profiles.FIGURES), strict=True)]


def _load(works: str) -> Callable[[Results], Rows]:
    return lambda results: of_figures(results["load"], report.FIGURES, works)


TABLES: dict[str, Callable[[Results], Rows]] = {
    "environment": of_environment,
    "goals": lambda results: goals.table(results["load"]),
    "messages": _load("(fanout|rooms|rooms-ack) .*"),
    "connections": _load("(connect|connect-shared|idle) .*"),
    "storm": _load("storm.*"),
    "own-goals": of_own_goals,
    "profiles": of_profiles,
    **{scenario: _extra(scenario) for scenario in extra.SCENARIOS},
    "assumptions": of_assumptions,
    "inputs": of_inputs,
    "sizes": of_sizes,
}


def load_results(folder: Path) -> dict[str, Any]:
    """All reports of the folder, by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.document", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, default=_PAGES, help="docs/performance.md docs/scaling.md")
    parser.add_argument("--results", type=Path, default=Path("bench-results"), help="folder (%(default)s)")
    options = parser.parse_args(argv)
    results = load_results(options.results)
    for line in write(options.pages, results):
        sys.stderr.write(line + "\n")
    return 0


def write(pages: Sequence[Path], results: Results) -> Iterator[str]:
    """Rewrites the pages; what was left as it is."""
    for page in pages:
        text, left = rewrite(page.read_text(), results)
        page.write_text(text)
        yield from (f"{page}: {line}" for line in left)


if __name__ == "__main__":
    sys.exit(main())
