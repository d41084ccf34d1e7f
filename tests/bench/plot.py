"""The figures of a run as an SVG: bars for stompbridge and for RabbitMQ's Web STOMP, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from tests.bench.report import REFERENCE

TARGET = "stompbridge"
_COLOURS = {TARGET: "#2563eb", REFERENCE: "#9ca3af"}
_NAMES = {TARGET: "stompbridge + RabbitMQ", REFERENCE: "RabbitMQ Web STOMP"}
_PANELS = (
    ("CPU per delivery, µs (less is better)", "cpu_us", ("fanout", "rooms", "rooms-ack")),
    ("deliveries a second (more is better)", "per_second", ("fanout 1000 @ max", "rooms 500 @ 8000/s")),
    ("connects a second (more is better)", "per_second", ("connect",)),
    ("memory per idle connection, KiB (less is better)", "kib", ("idle",)),
)
_WIDTH, _LABELS, _BAR, _GAP = 820, 230, 13, 12


def svg(summary: Mapping[str, object]) -> str:
    """The plot of a report of :func:`tests.bench.report.as_json`."""
    medians = summary["medians"]
    assert isinstance(medians, Mapping)
    parts: list[str] = []
    top = 40
    for title, figure, prefixes in _PANELS:
        rows = [
            (work, {target: targets[target][figure] for target in _COLOURS if figure in targets.get(target, {})})
            for work, targets in medians.items()
            if any(_is(work, prefix) for prefix in prefixes)
        ]
        rows = [(work, values) for work, values in rows if values]
        if rows:
            top = _panel(parts, top, title, rows)
    legend = "".join(
        f'<rect x="{10 + 230 * at}" y="12" width="12" height="12" fill="{_COLOURS[target]}"/>'
        f'<text x="{28 + 230 * at}" y="22">{escape(_NAMES[target])}</text>'
        for at, target in enumerate(_COLOURS)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}" '
        'font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{legend}{"".join(parts)}</svg>\n'
    )


def _is(work: str, prefix: str) -> bool:
    return work == prefix or work.startswith(prefix + " ")


def _panel(parts: list[str], top: int, title: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> int:
    parts.append(f'<text x="10" y="{top + 14}" font-weight="bold">{escape(title)}</text>')
    top += 24
    most = max(value for _, values in rows for value in values.values()) or 1.0
    room = _WIDTH - _LABELS - 90
    for work, values in rows:
        parts.append(f'<text x="{_LABELS - 8}" y="{top + _BAR + 4}" text-anchor="end">{escape(work)}</text>')
        for at, target in enumerate(_COLOURS):
            if target not in values:
                continue
            value, y = values[target], top + at * _BAR
            width = max(1.0, room * value / most)
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
            parts.append(
                f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR - 2}" fill="{_COLOURS[target]}"/>'
                f'<text x="{_LABELS + width + 5:.1f}" y="{y + _BAR - 3}" font-size="11">{shown}</text>'
            )
        top += 2 * _BAR + _GAP
    return top + 10
