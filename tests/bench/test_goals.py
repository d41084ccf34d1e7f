from __future__ import annotations

import xml.etree.ElementTree as ET

from tests.bench import goals, plot, report
from tests.bench.scenarios import Result


def summary() -> dict[str, object]:
    def one(work: str, target: str, **figures: float) -> Result:
        return Result(work, target, 1, figures)

    return report.as_json(
        [
            one("fanout 1000 @ 20/s", "stompbridge", cpu_us=7, p99_ms=30),
            one("fanout 1000 @ 20/s", "webstomp", cpu_us=100, p99_ms=100),
            one("fanout 1000 @ max", "stompbridge", per_second=30),
            one("fanout 1000 @ max", "webstomp", per_second=10),
            one("idle 1000", "stompbridge", kib=9),
            one("unheard of", "stompbridge", cpu_us=1),
        ],
        {},
    )


def test_each_goal_is_held_against_its_rows() -> None:
    found = {goal.text: verdict for goal, _, _, verdict in goals.verdicts(summary())}
    assert found == {
        "fan-out 1,000: CPU per delivery": "reached",
        "fan-out 1,000: deliveries a second at saturation": "missed",
        "fan-out 1,000 at 20/s: p99": "within",
        "memory per idle connection, KiB": "within",
    }


def test_the_table_says_bound_aim_and_value() -> None:
    assert goals.table(summary())[1] == [
        "fan-out 1,000: CPU per delivery", "fanout 1000 @ 20/s", "0.15", "0.08", "0.07", "reached",
    ]  # fmt: skip


def test_the_plot_shows_every_row_it_knows() -> None:
    drawn = plot.svg(summary())
    texts = [element.text for element in ET.fromstring(drawn).iter() if element.tag.endswith("text")]
    assert "fanout 1000 @ 20/s" in texts
    assert "100" in texts
    assert "unheard of" not in texts
