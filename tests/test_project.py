"""The files around the package: they load, they agree with the code, and nothing in them is stale."""

from __future__ import annotations

import configparser
import re
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
