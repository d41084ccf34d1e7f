from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from stompbridge.cli import main, text
from tests.cli.conftest import invoke
from tests.support.bridge import ROOT


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10240, "10 KiB"), (2**20 - 1, "1.0 MiB"), (2**60, "1024 PiB")],
)
def test_sizes(count: float, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1m 0s"), (3599, "59m 59s"), (3600, "1h 0m"), (90000, "1d 1h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_numbers() -> None:
    assert [text.latency(value) for value in (0, 0.00012, 0.0123, 2.5)] == ["0.00 ms", "0.12 ms", "12 ms", "2.5 s"]
    assert [text.rate(value) for value in (0, 0.25, 12345)] == ["0", "0.2", "12,345"]


def test_tables() -> None:
    lines = text.table(("A", "NUMBER"), [("世界", "1"), ("x\ty", "22"), ("e\u0301" * 3, "3"), ("-" * 60, "4")], " >")
    assert lines[0].startswith("A ")
    assert [text.width(line) for line in lines] == [48 + 2 + 6] * 5
    assert lines[2].startswith("x\\ty ")
    assert "-" * 47 + "…" in lines[4]
    assert text.table(("A",), []) == ["A"]
    assert text.fields({}) == []
    assert text.fields({"a": "1", "long": "\x00"}) == ["a     1", "long  \\x00"]
    assert text.clip("世界世界", 5) == "世界…"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    script = invoke("completion", shell).stdout
    assert "_STOMPBRIDGE_COMPLETE" in script
    found = shutil.which(shell)
    if found is not None:
        subprocess.run([found, "-n"], input=script, text=True, check=True, timeout=30)


def test_completion_completes() -> None:
    environ = os.environ | {
        "PYTHONPATH": str(ROOT),
        "_STOMPBRIDGE_COMPLETE": "bash_complete",
        "COMP_WORDS": "stompbridge sessions k",
        "COMP_CWORD": "2",
    }
    code = "from stompbridge.cli import main; main(prog_name='stompbridge')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "plain,kick\n"


HEAVY = ("msgspec", "httpx", "asyncio", "websockets", "structlog", "aiormq", "stompbridge.config", "stompbridge.daemon")


@pytest.mark.parametrize(
    "code",
    [
        "from stompbridge.cli import main; main(['--help'], standalone_mode=False)",
        "from stompbridge.cli import main; main(['version'], standalone_mode=False)",
        "from stompbridge.cli import status",
    ],
)
def test_nothing_heavy_is_loaded_without_need(code: str) -> None:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
    if "help" in code:
        assert "http.client" not in done.stdout
    loaded = done.stdout.splitlines()[-1].split()
    assert "click" in loaded
    assert not set(HEAVY) & set(loaded)


def test_every_command_has_help() -> None:
    assert len(main.commands) == 0  # all are loaded on demand
    for name in main.list_commands(None):  # type: ignore[arg-type]
        result = invoke(name, "--help")
        assert result.exit_code == 0
        assert name in invoke("--help").stdout
    assert invoke("nothing").exit_code == 2
