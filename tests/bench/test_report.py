from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import report
from tests.bench.scenarios import Result


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7], 0.5, 7),
        ([7], 0.0, 7),
        ([3, 1, 2], 0.5, 2),
        ([4, 1, 3, 2], 0.5, 2),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 101)), 0.07, 7),
        (list(range(1, 101)), 1.0, 100),
        (list(range(1, 1001)), 0.999, 999),
    ],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    random.Random(1).shuffle(values)
    assert report.percentile(values, share) == expected


@given(st.lists(st.integers(), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_enough_are_not_above(values: list[int], share: float) -> None:
    found = report.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-5


def results() -> list[Result]:
    def one(target: str, number: int, rate: float, cpu: float, **more: float) -> Result:
        return Result("fanout 10 @ 5/s", target, number, {"per_second": rate, "cpu_us": cpu, "lost": 0, **more})

    return [
        one("stompbridge", 1, 1000, 5, cpu_bridge_us=3),
        one("webstomp", 1, 200, 50),
        one("stompbridge", 2, 3000, 6, cpu_bridge_us=5),
        one("webstomp", 2, 100, 40),
        one("stompbridge", 3, 2000, 700, cpu_bridge_us=4),
        one("webstomp", 3, 400, 60),
        Result("idle 3", "webstomp", 1, {"kib": 170.04}, ["a note"]),
    ]


def test_medians_are_taken_over_the_rounds() -> None:
    summary = report.medians(results())
    assert list(summary) == ["fanout 10 @ 5/s", "idle 3"]
    assert summary["fanout 10 @ 5/s"] == {
        "stompbridge": {"per_second": 2000, "cpu_us": 6, "lost": 0, "cpu_bridge_us": 4},
        "webstomp": {"per_second": 200, "cpu_us": 50, "lost": 0},
    }


def test_ratios_leave_out_what_cannot_be_divided() -> None:
    ours = {"per_second": 10.0, "cpu_us": 1.0, "lost": 0.0, "p50_ms": 3.0}
    assert report.ratios(ours, {"per_second": 5.0, "cpu_us": 0.0, "lost": 2.0}) == {"per_second": 2.0}


def test_the_table() -> None:
    assert report.table(results()) == (
        "work             target        per s  CPU us  bridge  KiB/conn  lost\n"
        "---------------  -----------  ------  ------  ------  --------  ----\n"
        "fanout 10 @ 5/s  stompbridge   2,000     6.0     4.0               0\n"
        "                 webstomp        200    50.0                       0\n"
        "                 ratio        10.000   0.120\n"
        "idle 3           webstomp                                170.0\n"
    )


def test_a_failed_round_still_has_its_line() -> None:
    failed = [Result("fanout 1 @ max", "memory", 1, {}, ["failed: it does not serve"])]
    assert "fanout 1 @ max" in report.table(failed)
    assert report.notes(failed) == ["fanout 1 @ max, memory, round 1: failed: it does not serve"]


def test_everything_goes_into_the_json() -> None:
    written = json.loads(json.dumps(report.as_json(results(), {"cores": 2})))
    assert written["environment"] == {"cores": 2}
    assert len(written["rounds"]) == 7
    assert written["rounds"][-1]["notes"] == ["a note"]
    assert written["medians"]["idle 3"]["webstomp"]["kib"] == 170.04
    assert written["ratios"] == {
        "fanout 10 @ 5/s": {"stompbridge": {"per_second": 10.0, "cpu_us": 0.12}},
        "idle 3": {},
    }
