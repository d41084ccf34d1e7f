"""Statistics and the table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.scenarios import Result


@dataclass(frozen=True)
class Figure:
    """A column: its name in the results, its heading, how it is written, and whether a ratio of it means anything."""

    name: str
    heading: str
    form: str
    ratio: bool = True


FIGURES = (
    Figure("per_second", "per s", ",.0f"),
    Figure("p50_ms", "p50 ms", ".2f"),
    Figure("p99_ms", "p99 ms", ".2f"),
    Figure("cpu_us", "CPU us", ",.1f"),
    Figure("cpu_bridge_us", "bridge", ",.1f", ratio=False),
    Figure("cpu_rabbitmq_us", "RabbitMQ", ",.1f", ratio=False),
    Figure("all_s", "all s", ".2f"),
    Figure("cpu_after_us", "after us", ",.1f", ratio=False),
    Figure("kib", "KiB/conn", ".1f"),
    Figure("kib_bridge", "bridge", ".1f", ratio=False),
    Figure("kib_rabbitmq", "RabbitMQ", ".1f", ratio=False),
    Figure("idle_cpu_percent", "idle CPU %", ".1f"),
    Figure("lost", "lost", ".0f", ratio=False),
    Figure("doubled", "twice", ".0f", ratio=False),
    Figure("generator_percent", "gen. %", ".0f", ratio=False),
)
REFERENCE = "webstomp"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all are not above (nearest rank); 0 where there is none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = math.ceil(round(share * len(ordered), 6))
    return ordered[min(len(ordered), max(1, rank)) - 1]


def medians(results: Sequence[Result]) -> dict[str, dict[str, dict[str, float]]]:
    """Work, target, figure: the median over the rounds, in the order of the first appearance."""
    collected: dict[str, dict[str, dict[str, list[float]]]] = {}
    for result in results:
        figures = collected.setdefault(result.work, {}).setdefault(result.target, {})
        for name, value in result.figures.items():
            figures.setdefault(name, []).append(value)
    return {
        work: {
            target: {name: statistics.median(values) for name, values in figures.items()}
            for target, figures in targets.items()
        }
        for work, targets in collected.items()
    }


def ratios(figures: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """Each figure as a multiple of the reference's; left out where there is nothing to divide by."""
    return {
        figure.name: figures[figure.name] / reference[figure.name]
        for figure in FIGURES
        if figure.ratio and figure.name in figures and reference.get(figure.name)
    }


def table(results: Sequence[Result], figures: Sequence[Figure] = FIGURES) -> str:
    """Aligned text: a row for each work and target, and below them one with the ratios to :data:`REFERENCE`."""
    summary = medians(results)
    present = {name for targets in summary.values() for measured in targets.values() for name in measured}
    columns = [figure for figure in figures if figure.name in present]
    rows = [["work", "target", *(column.heading for column in columns)]]
    for work, targets in summary.items():
        shown = work
        for target, measured in targets.items():
            rows.append([shown, target, *(cell(measured.get(column.name), column.form) for column in columns)])
            shown = ""
        for target, measured in targets.items():
            if target != REFERENCE and REFERENCE in targets:
                times = ratios(measured, targets[REFERENCE])
                name = "ratio" if len(targets) == 2 else f"ratio {target}"
                rows.append(["", name, *(cell(times.get(column.name), ".3f") for column in columns)])
    return align(rows)


def cell(value: float | None, form: str) -> str:
    """A figure as it is written; empty where there is none."""
    return "" if value is None else format(value, form)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first two to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader of the table must know."""
    return [
        f"{result.work}, {result.target}, round {result.round}: {note}" for result in results for note in result.notes
    ]


def as_json(results: Sequence[Result], environment: Mapping[str, object]) -> dict[str, object]:
    """Everything, for programs: each round, the medians, and the ratios."""
    summary = medians(results)
    return {
        "environment": dict(environment),
        "rounds": [
            {"work": r.work, "target": r.target, "round": r.round, "figures": r.figures, "notes": r.notes}
            for r in results
        ],
        "medians": summary,
        "ratios": {
            work: {
                target: ratios(figures, targets[REFERENCE])
                for target, figures in targets.items()
                if target != REFERENCE
            }
            for work, targets in summary.items()
            if REFERENCE in targets
        },
    }
