"""docs/operations.md has every log event of the code and every alert."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.events import events, events_of
from tests.docs.imports import ROOT

PAGE = (ROOT / "docs/operations.md").read_text("utf-8")
EVENTS = events()
ALERTS = ROOT / "config/prometheus/alerts.yml"


def listed() -> dict[str, str]:
    """The levels of the events in the page's tables."""
    log = PAGE.partition("## Log")[2].partition("## Runbook")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", log, re.MULTILINE)
    return {name: levels.strip() for names, levels in rows for name in re.findall(r"`(\w+)`", names)}


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_an_event_is_explained(name: str) -> None:
    shown = {"exception": "error †"}
    levels = listed().get(name, "")
    assert levels, f"{name} is logged, and not in docs/operations.md"
    assert set(levels.split(", ")) == {shown.get(level, level) for level in EVENTS[name]}


def test_no_event_is_explained_that_there_is_not() -> None:
    assert sorted(set(listed()) - set(EVENTS)) == []


def test_events_are_found_in_the_source() -> None:
    tree = ast.parse(
        "def f():\n    _log.info('a', x=1)\n    self._say(logging.WARNING, 'b')\n"
        "    _log.exception('c')\n    math.log(2)\n"
        "    tell = _log.debug if quiet else _log.warning\n    tell('d')\n"
    )
    found = {("a", "info"), ("b", "warning"), ("c", "exception"), ("d", "debug"), ("d", "warning")}
    assert set(events_of(tree, "m")) == found


def test_an_event_whose_name_is_made_is_an_error() -> None:
    with pytest.raises(ValueError, match="m, line 1"):
        list(events_of(ast.parse("_log.info(name)"), "m"))


def test_every_alert_has_its_section() -> None:
    alerts = re.findall(r"^\s*- alert: (\w+)$", ALERTS.read_text("utf-8"), re.MULTILINE)
    assert alerts
    runbook = PAGE.partition("## Runbook")[2]
    assert sorted(re.findall(r"^### (\w+)$", runbook, re.MULTILINE)) == sorted(alerts)
