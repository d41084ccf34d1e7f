"""``python -m tests.parity``: how many rows there are of each section, and how they are to end."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import click

from tests.support.parity import ROWS

KINDS = ("equal", "better", "missing", "unrun")


def main() -> None:
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.parity.{path.stem}")
    rows = ROWS.values()
    click.echo(f"{'section':>8}{'rows':>8}" + "".join(f"{kind:>10}" for kind in KINDS))
    for section in (*sorted({entry.section for entry in rows}), None):
        counts = Counter(entry.verdict.kind for entry in rows if section in (entry.section, None))
        label = "all" if section is None else str(section)
        click.echo(f"{label:>8}{counts.total():>8}" + "".join(f"{counts[kind]:>10}" for kind in KINDS))
    for kind in KINDS[1:]:
        for entry in rows:
            if entry.verdict.kind == kind:
                click.echo(f"{kind}: {entry}: {entry.verdict.why}")


main()
