"""Dashboard, alerts and docs/metrics.md name what there is."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

from stompbridge.admin.measures import SECTIONS
from tests.docs import metrics as document
from tests.support.promtool import promtool

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config/prometheus"
ALERTS = (PROMETHEUS / "alerts.yml").read_text("utf-8")
TESTS = (PROMETHEUS / "alerts_test.yml").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "config/grafana/stompbridge.json").read_text("utf-8"))

MEASURES = [measure for measures in SECTIONS.values() for measure in measures]
LABELS = {measure.full_name: set(measure.labels) for measure in MEASURES}
HISTOGRAMS = {measure.full_name for measure in MEASURES if measure.kind == "histogram"}
EVERYWHERE = {"instance", "job", "le", "alertname", "alertstate", "severity"}

_METRIC = re.compile(r"\b((?:stompbridge|process)_\w+)(?:\{([^}]*)\})?")


def alert_names() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)


def assert_known(text: str) -> None:
    """Every metric in a query is one of ours and has the labels that it is asked for."""
    for name, selectors in _METRIC.findall(text):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        measured = base if base in HISTOGRAMS else name
        assert measured in LABELS, name
        asked = set(re.findall(r"(\w+)\s*[=!]~?\s*\"", selectors))
        assert asked <= LABELS[measured] | EVERYWHERE, (name, selectors)


def test_the_page_is_up_to_date() -> None:
    assert document.DOCUMENT.read_text("utf-8") == document.document(), "run: python -m tests.docs.metrics"


# Alerts


def test_alerts_ask_for_what_there_is() -> None:
    assert_known("\n".join(line for line in ALERTS.splitlines() if "annotations" not in line))
    assert_known(TESTS.replace("'", ""))


def test_each_alert_says_what_to_do() -> None:
    blocks = re.split(r"^ +- alert: ", ALERTS, flags=re.MULTILINE)[1:]
    operations = (ROOT / "docs/operations.md").read_text("utf-8")
    for name, block in zip(alert_names(), blocks, strict=True):
        assert re.search(r"^ +severity: (critical|warning|info)$", block, re.MULTILINE), name
        assert re.search(r'^ +summary: ".+"$', block, re.MULTILINE), name
        assert "description: >-" in block, name
        assert f"runbook: docs/operations.md#{name.lower()}\n" in block, name
        assert re.search(rf"^#+ {name}$", operations, re.MULTILINE), name


def test_each_alert_is_tested() -> None:
    tested = re.findall(r"^  - name: (\w+)$", TESTS, re.MULTILINE)
    assert tested == alert_names()
    for name in tested:
        assert f'{{alertname="{name}", instance="bad"}}' in TESTS
    assert TESTS.count('instance="good"') >= len(tested)


def test_promtool_is_content_with_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", PROMETHEUS / "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", PROMETHEUS / "alerts_test.yml")
    assert "SUCCESS" in promtool("check", "config", PROMETHEUS / "scrape.yml")


# The dashboard


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def targets() -> list[dict[str, Any]]:
    return list(chain.from_iterable(panel["targets"] for panel in panels()))


def test_the_dashboard_asks_for_what_there_is() -> None:
    for target in targets():
        assert_known(target["expr"])
    for variable in DASHBOARD["templating"]["list"]:
        assert_known(variable.get("definition", ""))


def test_the_dashboard_takes_any_data_source() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for owner in (*panels(), *targets(), variables["instance"]):
        assert owner["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert "id" not in DASHBOARD


def test_the_dashboards_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_promtool_is_content_with_the_dashboards_queries(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    queries = [target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*") for target in targets()]
    entries = [{"record": f"q:{number}", "expr": query} for number, query in enumerate(queries)]
    # JSON is YAML.
    rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": entries}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", rules)
