from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import document, report
from tests.bench.scenarios import Result

PAGES = [Path(__file__).parents[2] / page for page in ("docs/performance.md", "docs/scaling.md")]
ENVIRONMENT = {"system": "Linux", "cores": 2, "python": "3.11.7", "rounds": 1, "seconds": 5}


def results() -> dict[str, dict[str, object]]:
    """Something for each scenario."""

    def one(work: str, target: str, **figures: float) -> Result:
        return Result(work, target, 1, figures)

    def summary(*found: Result) -> dict[str, object]:
        return report.as_json(found, ENVIRONMENT)

    return {
        "load": summary(
            one("fanout 1000 @ 20/s", "stompbridge", cpu_us=5, cpu_bridge_us=4),
            one("fanout 1000 @ 20/s", "webstomp", cpu_us=50),
            one("rooms 500 @ 3000/s", "stompbridge", cpu_us=110, cpu_bridge_us=50, cpu_rabbitmq_us=60),
            one("connect 1000", "stompbridge", per_second=1000),
            one("storm 5000", "stompbridge", per_second=900),
        ),
        "idle": summary(
            one("idle 15000", "stompbridge", kib_bridge=8, kib_kernel=4, kib_rabbitmq=2, idle_cpu_bridge_percent=6)
        ),
        "flat": summary(
            one("fanout 100 @ 200/s", "stompbridge", cpu_us=10, cpu_bridge_us=9),
            one("fanout 10000 @ 2/s", "stompbridge", cpu_us=5, cpu_bridge_us=5),
        ),
        "chat": summary(
            one("100 rooms of 5 @ 1000/s", "page", p50_ms=1.5, late_percent=0),
            one("100 rooms of 5 @ 1000/s", "named", cpu_redis_us=10, late_percent=1),
        ),
        "wire": summary(one("300 bytes to 10", "plain", wire_bytes=600)),
        "start": summary(one("start", "stompbridge", start_ms=540)),
        "processes": summary(one("rooms 500 @ max", "1 process", per_second=9)),
        "profiles": summary(one("rooms 500 @ 3000/s", "stompbridge", cpu_bridge_us=80, other=1)),
        "soak": summary(one("soak 15 min", "named", grew=0, lost=0, doubled=0)),
    }


@pytest.mark.parametrize("name", document.TABLES)
def test_every_table_can_be_made(name: str) -> None:
    rows = document.TABLES[name](results())
    assert len(rows) > 1
    assert len({len(row) for row in rows}) == 1


def test_ratios_stand_below_what_is_compared() -> None:
    assert document.TABLES["messages"](results())[1:4] == [
        ["fanout 1000 @ 20/s", "stompbridge", "5.0", "4.0", ""],
        ["fanout 1000 @ 20/s", "webstomp", "50.0", "", ""],
        ["", "ratio", "0.100", "", ""],
    ]


def test_goals_of_its_own_have_verdicts() -> None:
    verdicts = {row[0]: row[2:] for row in document.of_own_goals(results())[1:]}
    assert verdicts["idle connections with 10 s heart-beats: % of a core, bridge"] == ["6.0", "missed"]
    assert verdicts["start to first delivery, ms"] == ["540", "reached"]
    assert verdicts["the chat application's test, its page: % over 3 s or lost"] == ["0.00", "reached"]
    assert verdicts["CPU per delivery, 100 to 10,000 receivers: the dearest to that of 100"] == ["1.00", "reached"]
    only = {"start": results()["start"]}
    assert [row[0] for row in document.of_own_goals(only)[1:]] == ["start to first delivery, ms"]


def test_tables_are_replaced_and_all_else_is_not() -> None:
    page = "a\n<!-- table: start -->\nold\n<!-- end -->\nb\n<!-- table: soak -->\nkept\n<!-- end -->\n"
    found = results()
    del found["soak"]
    text, left = document.rewrite(page, found)
    assert text.startswith(
        "a\n<!-- table: start -->\n| work | target | delivered ms |\n| --- | ---: | ---: |\n| start |"
    )
    assert text.endswith("<!-- end -->\nb\n<!-- table: soak -->\nkept\n<!-- end -->\n")
    assert left == ["soak: left as it is, there is no 'soak'"]
    assert document.rewrite(text, found) == (text, left)


def test_unknown_tables_are_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        document.rewrite("<!-- table: nothing -->\n<!-- end -->\n", results())


def test_the_pages_have_only_known_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    for name, summary in results().items():
        (folder / f"{name}.json").write_text(json.dumps(summary))
    copies = [tmp_path / page.name for page in PAGES]
    for page, copy in zip(PAGES, copies, strict=True):
        copy.write_text(page.read_text())
    assert document.main([*map(str, copies), "--results", str(folder)]) == 0
    assert capsys.readouterr().err == ""
    shown = "".join(copy.read_text() for copy in copies)
    for name in document.TABLES:
        assert f"<!-- table: {name} -->" in shown
