"""What stompbridge is to reach beside RabbitMQ's Web STOMP, and whether a run did."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound for one figure of the rows whose name fits ``work``.

    ``bound`` and ``aim`` are ratios to Web STOMP, or absolute where ``absolute``. ``at_least``: more is better.
    """

    text: str
    work: str
    figure: str
    bound: float
    aim: float
    at_least: bool = False
    absolute: bool = False

    def met(self, value: float, limit: float) -> bool:
        return value >= limit if self.at_least else value <= limit


GOALS = (
    Goal("fan-out 1,000: CPU per delivery", r"fanout 1000 @ (20|50)/s", "cpu_us", 0.15, 0.08),
    Goal("fan-out 1,000: deliveries a second at saturation", r"fanout 1000 @ max", "per_second", 4, 6, at_least=True),
    Goal("fan-out 1,000 at 20/s: p99", r"fanout 1000 @ 20/s", "p99_ms", 0.4, 0.25),
    Goal("fan-out 100: CPU per delivery", r"fanout 100 @ .*", "cpu_us", 0.2, 0.12),
    Goal("rooms: CPU per message", r"rooms 500 @ (3000|8000)/s", "cpu_us", 0.8, 0.55),
    Goal("rooms with ack:client: CPU per message", r"rooms-ack 500 @ .*", "cpu_us", 0.75, 0.5),
    Goal("rooms at 1,000/s: p50", r"rooms 500 @ 1000/s", "p50_ms", 2.0, 1.2),
    Goal("connects a second", r"connect \d+.*", "per_second", 2, 4, at_least=True),
    Goal("memory per idle connection, KiB", r"idle .*", "kib", 16, 8, absolute=True),
)

TARGET = "stompbridge"


def verdicts(summary: Mapping[str, object]) -> Iterator[tuple[Goal, str, float, str]]:
    """Goal, work, value and ``"reached"``, ``"within"`` (the bound, not the aim) or ``"missed"``, for each row of
    a report of :func:`tests.bench.report.as_json` that a goal speaks of."""
    medians, ratios = summary["medians"], summary["ratios"]
    assert isinstance(medians, Mapping)
    assert isinstance(ratios, Mapping)
    for goal in GOALS:
        for work in medians:
            if not re.fullmatch(goal.work, work):
                continue
            source = medians if goal.absolute else ratios
            value = source.get(work, {}).get(TARGET, {}).get(goal.figure)
            if value is not None:
                yield goal, work, value, _verdict(goal, value)


def _verdict(goal: Goal, value: float) -> str:
    if goal.met(value, goal.aim):
        return "reached"
    return "within" if goal.met(value, goal.bound) else "missed"


def table(summary: Mapping[str, object]) -> list[list[str]]:
    """Rows of text, the heading first."""
    rows = [["goal", "work", "at most", "aim", "measured", "verdict"]]
    for goal, work, value, verdict in verdicts(summary):
        sign = ">= " if goal.at_least else ""
        rows.append([goal.text, work, f"{sign}{goal.bound:g}", f"{sign}{goal.aim:g}", f"{value:.2f}", verdict])
    return rows
