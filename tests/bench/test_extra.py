from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import endurance, extra, measures
from tests.bench.jobs import Job
from tests.bench.scenarios import Result, Work
from tests.support import redis as redis_support
from tests.support.requirements import require

QUICK = ("--embedded", "--rounds", "1", "--seconds", "0.5")


def run(folder: Path, *argv: str) -> dict[str, dict[str, dict[str, float]]]:
    """One scenario with the embedded broker; its medians."""
    assert extra.main([*argv, *QUICK, "--out", str(folder)]) == 0
    found: dict[str, dict[str, dict[str, float]]] = json.loads((folder / f"{argv[0]}.json").read_text())["medians"]
    return found


@pytest.mark.redis
def test_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(redis_support.binary(), "redis-server")
    monkeypatch.setattr(measures, "CHAT_RATES", (50.0,))
    monkeypatch.setattr(measures, "CHAT_CLIENTS", 6)
    figures = run(tmp_path, "chat", "--members", "3")["2 rooms of 3 @ 50/s"]
    for target in ("page", "named"):
        assert figures[target]["deliveries"] == 75
        assert figures[target]["late_percent"] == 0
    assert "cpu_redis_us" in figures["named"]
    assert "cpu_redis_us" not in figures["page"]


def test_compression_saves_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "WIRE_RECEIVERS", (5,))
    monkeypatch.setattr(measures, "WIRE_BODIES", (1000,))
    monkeypatch.setattr(measures, "WIRE_DELIVERIES", 100)
    figures = run(tmp_path, "wire")["1000 bytes to 5"]
    assert figures["plain"]["wire_bytes"] > 1000
    assert figures["compressed"]["wire_bytes"] < 0.8 * figures["plain"]["wire_bytes"]


def test_start(tmp_path: Path) -> None:
    figures = run(tmp_path, "start")["start"]["stompbridge"]
    assert 0 < figures["subscribed_ms"] <= figures["start_ms"] < 30_000


def test_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "PROCESSES_WORK", (Work("rooms", 5, 50),))
    figures = run(tmp_path, "processes")["rooms 5 @ 50/s"]
    assert {target: found["deliveries"] for target, found in figures.items()} == {"1 process": 25, "2 processes": 25}


@pytest.mark.redis
def test_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(redis_support.binary(), "redis-server")
    monkeypatch.setattr(endurance, "CHAT_CLIENTS", 6)
    monkeypatch.setattr(endurance, "SATURATION_SECONDS", 0.5)
    monkeypatch.setattr(endurance, "TOLERANCE_BYTES", 100 << 20)
    figures = run(tmp_path, "soak", "--minutes", "0.05", "--members", "3")["soak 0.05 min"]["named"]
    assert 0 < figures["sent_per_second"] < figures["saturation_per_second"]
    assert figures["mib_redis_end"] > 1


def test_a_failed_run_is_a_note_and_no_success() -> None:
    async def fail(_: Result) -> None:
        raise ConnectionError("it does not serve")

    result = extra.measure("chat", Job("work", "target", 1, fail))
    assert result.notes == ["failed: it does not serve"]
    assert not extra.is_sound(result)
    assert not extra.is_sound(Result("work", "target", 1, {"lost": 1}))
    assert extra.is_sound(Result("work", "target", 1, {"lost": 0}))


@pytest.mark.parametrize(
    "argv",
    [
        ["nothing"],
        ["--rounds", "0"],
        ["--seconds", "601"],
        ["--minutes", "0"],
        ["--connections", "20"],
        ["--members", "0"],
        ["--members", "1,501"],
    ],
)
def test_options_are_bounded(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        extra.arguments(argv)
    assert argv[0] in capsys.readouterr().err


def test_a_soak_is_only_done_when_named() -> None:
    assert "soak" not in extra.arguments([]).scenarios
    assert extra.arguments(["soak"]).scenarios == ["soak"]
