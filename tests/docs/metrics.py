"""Writes docs/metrics.md from the table of measures.

``python -m tests.docs.metrics`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from stompbridge.admin.measures import SECTIONS, Measure
from tests.docs.imports import ROOT

DOCUMENT = ROOT / "docs/metrics.md"
HEAD = """# Metrics

What `GET /metrics` on the admin listener tells, in Prometheus' text format. `python -m tests.docs.metrics` writes this
page from the program.

    curl -s http://127.0.0.1:8081/metrics

- [config/prometheus/scrape.yml](../config/prometheus/scrape.yml) is an example of how to have it scraped,
  [config/prometheus/alerts.yml](../config/prometheus/alerts.yml) has alerts, each with what to do in
  [operations.md](operations.md), and [config/grafana/stompbridge.json](../config/grafana/stompbridge.json) is a
  dashboard to import.
- A counter (`_total`) begins at 0 with the process: look at its `rate()`. A gauge is what there is now. A histogram has
  the samples `_bucket`, `_sum` and `_count`: look at `histogram_quantile()` of the `rate()` of its buckets.
- Labels have few values, known from the start. None is a user, a destination or a session.
- A measure of something that the configuration leaves out, such as RabbitMQ, has its name there and no samples.
- A scrape looks at every client, 500 in a turn of the event loop, so that no client waits for it.
"""


def _row(name: str, kind: str, labels: tuple[str, ...], help: str) -> str:
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {kind} | {shown} | {help.replace('|', chr(92) + '|')} |"


def _table(rows: Iterator[str]) -> str:
    return "\n".join(["| name | kind | labels | meaning |", "| --- | --- | --- | --- |", *rows])


def _ours(measures: tuple[Measure, ...]) -> Iterator[str]:
    for measure in measures:
        yield _row(measure.full_name, measure.kind, measure.labels, measure.help)


def document() -> str:
    """The page."""
    chapters = [f"## {title}\n\n{_table(_ours(measures))}" for title, measures in SECTIONS.items()]
    return "\n\n".join([HEAD.strip(), *chapters]) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")
