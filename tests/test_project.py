"""The files around the package: they load, they agree with the code, and nothing in them is stale."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stompbridge import __version__, config
from stompbridge.routing.application import Application

ROOT = Path(__file__).parent.parent


def leaves(model: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(model):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from leaves(field.type, f"{path}{field.name}.")
        else:
            yield path + field.name


def named_keys(text: str) -> Iterator[str]:
    """The key paths of a TOML text whose keys may be commented out."""
    table = ""
    for line in text.splitlines():
        if match := re.match(r"#?\[+([a-z.]+)\]+", line):
            table = match[1] + "."
        elif match := re.match(r"#?(\w+) = ", line):
            yield table + match[1]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda path: path.name)
def test_a_configuration_of_the_project_loads(path: Path) -> None:
    settings = config.load(path, {}, {})
    Application(settings.app)


def test_the_default_file_is_the_packaged_one() -> None:
    assert (ROOT / "config/stompbridge.toml").read_text("utf-8") == config.default_toml()


def test_the_default_file_names_every_key_once() -> None:
    expected = [path for path in leaves(config.Settings) if path not in ("broker.exchange", "app.route", "acl")]
    expected += [f"broker.exchange.{name}" for name in config.Exchange.__struct_fields__]
    expected += [f"app.route.{name}" for name in config.Route.__struct_fields__]
    expected += [f"acl.{name}" for name in config.AclRule.__struct_fields__]
    named = list(named_keys(config.default_toml()))
    assert sorted(named) == sorted(expected)


def test_the_default_file_has_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"^#(\w+ = |\[)", r"\1", config.default_toml(), flags=re.MULTILINE)
    path = tmp_path / "all.toml"
    path.write_text(text, "utf-8")
    settings = config.load(path, {}, {})
    assert settings.broker.exchange == (config.Exchange(name="chat.exchange"),)
    assert len(settings.app.route) == 1
    assert len(settings.acl) == 1
    defaults = config.Settings(node="bridge-1")
    without_examples = msgspec.structs.replace(
        settings,
        broker=msgspec.structs.replace(settings.broker, exchange=()),
        app=msgspec.structs.replace(settings.app, route=()),
        acl=(),
    )
    assert without_examples == defaults


def test_the_chat_application() -> None:
    settings = config.load(ROOT / "config/chat-app.toml", {}, {})
    assert settings.broker.kind == "rabbitmq"
    assert [exchange.name for exchange in settings.broker.exchange] == ["chat.exchange"]
    assert settings.health.broker.exchange == "healthcheck.exchange.1"
    routed = Application(settings.app).apply("/app/message/7", b'{"text":"hi"}', "session-1", 0)
    body = msgspec.json.decode(routed.body)
    assert (routed.exchange, routed.key, routed.persistent) == ("chat.exchange", "roomId.7", True)
    assert (body["text"], body["roomId"], body["senderSessionId"]) == ("hi", 7, "session-1")
    assert isinstance(body["seq"], int)
    assert body["createdAt"].endswith("Z")


UNITS = ["stompbridge.service", "stompbridge@.service"]


@pytest.mark.parametrize("name", UNITS)
def test_the_unit(name: str) -> None:
    path = ROOT / "systemd" / name
    # Keys such as Environment may be there several times.
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text("utf-8"))
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    assert service["Type"] == "exec"
    assert service["ExecStart"].split()[1:] == ["serve", "--config", "/etc/stompbridge/stompbridge.toml"]
    assert float(service["TimeoutStopSec"]) > config.Settings().shutdown_timeout


def test_the_template_is_the_unit_with_what_makes_instances_different() -> None:
    unit, template = [(ROOT / "systemd" / name).read_text("utf-8").splitlines() for name in UNITS]
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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(tmp_path: Path, name: str) -> None:
    text = (ROOT / "systemd" / name).read_text("utf-8")
    # The program is not installed where the unit expects it.
    unit = tmp_path / name.replace("@", "@1")
    unit.write_text(text.replace("/usr/bin/stompbridge", "/bin/true"), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "stompbridge" in line]
    assert complaints == []


def test_the_package_is_described() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: stompbridge.__version__"
    assert "stompbridge = stompbridge.cli:main" in setup["options.entry_points"]["console_scripts"]
    assert (ROOT / "stompbridge/py.typed").exists()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["build-backend"]
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["bin/stompbridge", "bin/test", ".ci/run"])
def test_a_program_can_be_run(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & 0o111
    shell = path.read_text("utf-8").splitlines()[0].split()[-1].rpartition("/")[2]
    subprocess.run([shell, "-n", str(path)], check=True, timeout=10)
