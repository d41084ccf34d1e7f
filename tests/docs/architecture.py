"""Draws docs/images/architecture.svg and the tables of docs/architecture.md from the package's imports.

``python -m tests.docs.architecture`` writes both. Rows and purposes are laid down here. Which arrows there are comes
from the code, and one that does not point downward is an error.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from tests.docs.imports import ROOT, Import, imports, modules

DOCUMENT = ROOT / "docs/architecture.md"
PICTURE = ROOT / "docs/images/architecture.svg"


class Area(NamedTuple):
    """A box of the picture."""

    name: str
    purpose: str
    row: int
    column: float
    modules: tuple[str, ...] = ()
    """Modules and packages of ``stompbridge``; without any, that of the area's name. The longest name counts."""


AREAS = (
    Area("cli", "command line, doctor", 0, 1, ("cli", "doctor", "__main__")),
    Area("daemon", "builds, starts, drains", 1, 1, ("daemon", "composition", "lifecycle")),
    Area("admin", "health, metrics, page", 2, 1),
    Area("gateway", "sockets, sessions", 3, 1),
    Area("upstream", "links of clients' logins", 3, 2.15),
    Area("config_checks", "what must agree", 3, 3.3),
    Area("lifecycle.sockets", "sockets passed on", 4, 0),
    Area("auth", "who may do what", 4, 1),
    Area("certificates", "reads PEM files", 4, 3.3),
    Area("routing", "destinations, fan-out", 5, 1),
    Area("stomp", "protocol, no I/O", 6, 0),
    Area("dedup", "what was delivered", 6, 1),
    Area("brokers", "AMQP, embedded broker", 6, 2),
    Area("log, histogram", "small tools", 7, 3, ("log", "histogram")),
    Area("config", "typed settings", 8, 2, ("config", "config_file")),
)
UPWARD = {
    (
        "config",
        "config_checks",
    ): "`config.load` calls the checks of `config_checks`, which know the settings' types, as its last step.",
}
"""Imports that point upward, at call time, and why."""

WIDTH, HEIGHT, COLUMN, ROW, MARGIN = 164, 44, 188, 78, 12


class Edge(NamedTuple):
    """One area imports another."""

    upper: str
    lower: str


_HOMES = {module: area.name for area in AREAS for module in area.modules or (area.name,)}


def area_of(module: str) -> str:
    """The area that a module belongs to; empty where it has none."""
    while module not in _HOMES and module:
        module = module.rpartition(".")[0]
    return _HOMES.get(module, "")


def problems(found: Iterable[Import], names: Iterable[str]) -> list[str]:
    """What in the code is not as :data:`AREAS` says."""
    rows = {area.name: area.row for area in AREAS}
    said = [f"{name} stands in no area" for name in names if name and not area_of(name)]
    for one in found:
        upper, lower = area_of(one.importer), area_of(one.imported)
        if not upper or not lower or upper == lower:
            continue
        if rows[upper] >= rows[lower] and not ((upper, lower) in UPWARD and one.late):
            said.append(f"{one.importer} imports {one.imported}: {upper} is not above {lower}")
    return sorted(set(said))


def edges(found: Iterable[Import]) -> set[Edge]:
    """All imports between areas that point downward."""
    pairs = {Edge(area_of(one.importer), area_of(one.imported)) for one in found if one.importer and one.imported}
    return {edge for edge in pairs if edge.upper != edge.lower and tuple(edge) not in UPWARD}


def drawn(all_edges: set[Edge]) -> set[Edge]:
    """Those without which the picture would say less: what follows from two others is left out."""
    below: dict[str, set[str]] = defaultdict(set)
    for area in sorted(AREAS, key=lambda area: -area.row):
        for edge in all_edges:
            if edge.upper == area.name:
                below[area.name] |= {edge.lower} | below[edge.lower]
    return {
        edge
        for edge in all_edges
        if not any(other.upper == edge.upper and edge.lower in below[other.lower] for other in all_edges)
    }


def picture(shown: set[Edge]) -> str:
    """The SVG."""
    columns, rows = max(area.column for area in AREAS), max(area.row for area in AREAS)
    width, height = int(columns * COLUMN + WIDTH + 2 * MARGIN), rows * ROW + HEIGHT + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="Which part of the package imports which">',
        "<style>",
        "  svg { background: #fff } text { font: 12px system-ui, sans-serif; text-anchor: middle; fill: #1f2328 }",
        "  .name { font-weight: 600; font-size: 14px } .purpose { fill: #59636e }",
        "  rect { fill: #f6f8fa; stroke: #8c959f } path { fill: none; stroke: #57606a; stroke-width: 1.3 }",
        "  marker path { fill: #57606a; stroke: none }",
        "  @media (prefers-color-scheme: dark) {",
        "    svg { background: #0d1117 } text { fill: #f0f6fc } .purpose { fill: #9198a1 }",
        "    rect { fill: #151b23; stroke: #656c76 } path { stroke: #9198a1 } marker path { fill: #9198a1 }",
        "  }",
        "</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
    ]
    places = {area.name: (MARGIN + int(area.column * COLUMN), MARGIN + area.row * ROW) for area in AREAS}
    leaving, arriving = defaultdict(list), defaultdict(list)
    for edge in sorted(shown):
        leaving[edge.upper].append(edge.lower)
        arriving[edge.lower].append(edge.upper)
    for edge in sorted(shown):
        x1, y1 = _side(edge.upper, edge.lower, leaving, places), places[edge.upper][1] + HEIGHT
        x2, y2 = _side(edge.lower, edge.upper, arriving, places), places[edge.lower][1] - 1
        middle = (y1 + y2) // 2
        lines.append(f'<path d="M{x1} {y1} C{x1} {middle} {x2} {middle} {x2} {y2}" marker-end="url(#head)"/>')
    for area in AREAS:
        x, y = places[area.name]
        lines.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>')
        lines.append(f'<text class="name" x="{x + WIDTH // 2}" y="{y + 18}">{escape(area.name)}</text>')
        lines.append(f'<text class="purpose" x="{x + WIDTH // 2}" y="{y + 35}">{escape(area.purpose)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def table(all_edges: set[Edge]) -> str:
    """What each area imports."""
    lines = ["| area | imports |", "| --- | --- |"]
    for area in AREAS:
        lower = [other.name for other in AREAS if Edge(area.name, other.name) in all_edges]
        listed = ", ".join(f"`{name}`" for other in lower for name in other.split(", ")) or "nothing of the package"
        name = ", ".join(f"`{part}`" for part in area.name.split(", "))
        lines.append(f"| {name} | {listed} |")
    return "\n".join(lines) + "\n"


def filled(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the comments that hold the place of ``name``."""
    begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->\n"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no place for {name!r}")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def document(text: str) -> str:
    """``text`` of docs/architecture.md with the tables of the code as it is."""
    found = imports()
    upward = "".join(f"- {reason}\n" for reason in UPWARD.values())
    return filled(filled(text, "imports", table(edges(found))), "upward", upward)


def _side(at: str, other: str, ends: dict[str, list[str]], places: dict[str, tuple[int, int]]) -> int:
    """Where on an area's edge an arrow begins or ends: in the order of what is at the other end."""
    order = sorted(ends[at], key=lambda name: places[name][0])
    step = WIDTH / (len(order) + 1)
    return places[at][0] + round(step * (order.index(other) + 1))


def main() -> int:
    found = imports()
    wrong = problems(found, modules())
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(drawn(edges(found))), "utf-8")
    DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
