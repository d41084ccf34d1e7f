from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import load
from tests.bench.scenarios import Work


def test_a_small_run_against_the_embedded_broker(tmp_path: Path) -> None:
    written = tmp_path / "result.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench.load", "--targets", "memory", "--scenarios", "fanout,rooms-ack,storm"),
            *("--receivers", "20", "--rooms", "5", "--rates", "50", "--seconds", "1", "--rounds", "1"),
            *("--storm", "250", "--json", str(written)),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["work", "target", "per", "s"]
    assert lines[2].split()[:5] == ["fanout", "20", "@", "50/s", "memory"]
    medians = json.loads(written.read_text())["medians"]
    fanout, rooms = medians["fanout 20 @ 50/s"]["memory"], medians["rooms-ack 5 @ 50/s"]["memory"]
    storm = medians["storm 250"]["memory"]
    assert fanout["deliveries"] == 1000
    assert rooms["deliveries"] == 50
    for figures in (fanout, rooms):
        assert (figures["lost"], figures["doubled"], figures["errors"], figures["disconnected"]) == (0, 0, 0, 0)
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert 0 < storm["p50_ms"] <= storm["p99_ms"] <= storm["all_s"] * 1000


def test_each_scenario_has_its_rows() -> None:
    rows = load.plan(load.arguments(["--receivers", "1000,100", "--connections", "7"]))
    assert [str(row) for row in rows] == [
        *("fanout 1000 @ 20/s", "fanout 1000 @ 50/s", "fanout 1000 @ max", "fanout 100 @ 200/s"),
        *("rooms 500 @ 1000/s", "rooms 500 @ 3000/s", "rooms 500 @ 8000/s"),
        *("rooms-ack 500 @ 1000/s", "rooms-ack 500 @ 3000/s"),
        *("connect 7", "connect-shared 7", "storm 5000", "idle 7"),
    ]


def test_rates_may_be_given() -> None:
    rows = load.plan(load.arguments(["--scenarios", "rooms,fanout", "--rates", "5,max", "--receivers", "3"]))
    assert rows == [Work("rooms", 500, 5), Work("rooms", 500, None), Work("fanout", 3, 5), Work("fanout", 3, None)]


@pytest.mark.parametrize(
    "argv",
    [
        ["--targets", "nobody"],
        ["--scenarios", "fanout,"],
        ["--rates", "0"],
        ["--rates", "fast"],
        ["--receivers", "0"],
        ["--receivers", "1,20001"],
        ["--seconds", "601"],
        ["--rounds", "0"],
    ],
)
def test_options_are_bounded(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.arguments(argv)
    assert argv[0] in capsys.readouterr().err
