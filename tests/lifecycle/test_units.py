"""The units: they agree with the program, and systemd accepts them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stompbridge import config
from stompbridge.daemon import ENDING

ROOT = Path(__file__).parents[2]
SERVICES = ["stompbridge.service", "stompbridge@.service"]
SOCKET = "stompbridge.socket"
EXPOSURE = 1.5

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read(name: str) -> configparser.RawConfigParser:
    # Keys such as Environment may be there several times.
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((ROOT / "systemd" / name).read_text("utf-8"))
    return unit


@pytest.mark.parametrize("name", SERVICES)
def test_a_service(name: str) -> None:
    unit = read(name)
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    assert service["Type"] == "notify-reload"
    assert service["ExecStart"].split()[1:] == ["serve", "--config", "/etc/stompbridge/stompbridge.toml"]
    defaults = config.Settings()
    assert float(service["TimeoutStopSec"]) > defaults.drain_time + defaults.shutdown_timeout + ENDING
    assert float(service["WatchdogSec"]) > 10


def test_the_socket() -> None:
    unit = read(SOCKET)
    defaults = config.Listen()
    assert unit["Socket"]["ListenStream"] == f"{defaults.host}:{defaults.port}"
    assert unit["Socket"]["FileDescriptorName"] == "listen"


def test_the_template_is_the_unit_with_what_makes_instances_different() -> None:
    unit, template = [(ROOT / "systemd" / name).read_text("utf-8").splitlines() for name in SERVICES]
    own = [line for line in template if line not in unit]
    assert "User=stompbridge" in own
    assert [line for line in unit if line not in template] == ["Description=STOMP over WebSocket to RabbitMQ"]
    environ = dict(line.removeprefix("Environment=").split("=") for line in own if line.startswith("Environment="))
    settings = [
        config.load(
            None, {name: value.replace("%l", "host").replace("%i", instance) for name, value in environ.items()}, {}
        )
        for instance in ("1", "9")
    ]
    assert [(one.node, one.admin.port, one.app.worker) for one in settings] == [
        ("host-1", 8081, 1),
        ("host-9", 8089, 9),
    ]
    assert all(one.listen.reuse_port for one in settings)


def test_secrets_can_come_as_credentials(tmp_path: Path) -> None:
    """Each of the examples loads a credential and names a key that reads it."""
    lines = (ROOT / "systemd" / SERVICES[0]).read_text("utf-8").splitlines()
    names = [line.split("=")[1].split(":")[0] for line in lines if line.startswith("#LoadCredential=")]
    environ = dict(
        line.removeprefix("#Environment=").split("=") for line in lines if line.startswith("#Environment=STOMPBRIDGE_")
    )
    contents = {
        "broker-urls": "amqp://bridge:secret@rabbit-1/\n",
        "redis-url": "redis://:secret@redis-1/\n",
        "admin-token": "a-secret-of-16-letters-and-more\n",
    }
    for name in names:
        file = tmp_path / name
        file.touch(0o400)
        file.chmod(0o600)
        file.write_text(contents[name])
    assert [value.removeprefix("%d/") for value in environ.values()] == names
    settings = config.load(None, {name: value.replace("%d", str(tmp_path)) for name, value in environ.items()}, {})
    assert settings.broker.urls == ("amqp://bridge:secret@rabbit-1/",)
    assert settings.dedup.redis_url == "redis://:secret@redis-1/"
    assert settings.admin.token == "a-secret-of-16-letters-and-more"


def installed(folder: Path) -> list[Path]:
    """The units with a program that there is: stompbridge is not installed where they expect it."""
    paths = []
    for name in (*SERVICES, SOCKET):
        path = folder / name
        path.write_text((ROOT / "systemd" / name).read_text("utf-8").replace("/usr/bin/stompbridge", "/bin/true"))
        paths.append(path)
    return paths


def analyze(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    said = analyze("verify", "--man=no", *installed(tmp_path))
    complaints = {line.split(":", 2)[-1].strip() for line in said.splitlines() if "stompbridge" in line}
    version = re.search(r"systemd (\d+)", analyze("--version"))
    assert version is not None
    # It is there since 253.
    allowed = {"Failed to parse service type, ignoring: notify-reload"} if int(version[1]) < 253 else set()
    assert complaints <= allowed


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_is_exposed_to(tmp_path: Path, name: str) -> None:
    installed(tmp_path)
    said = analyze("security", "--offline=true", "--no-pager", tmp_path / name)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= EXPOSURE
