from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner, Result

import stompbridge
from stompbridge import __version__, config
from stompbridge.cli import access, main


class Daemon:
    """Stands in for the daemon and keeps what it was given."""

    def __init__(self) -> None:
        self.settings: list[config.Settings] = []
        self.code = 0

    def run(self, settings: config.Settings, load: Callable[[], config.Settings]) -> int:
        assert load() == settings
        self.settings.append(settings)
        return self.code


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    fake = Daemon()
    monkeypatch.setitem(sys.modules, "stompbridge.daemon", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(stompbridge, "daemon", fake, raising=False)
    return fake


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOMPBRIDGE_CONFIG", raising=False)


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=dict(environ))


def served(fake: Daemon, *arguments: str, **environ: str) -> config.Settings:
    result = invoke("serve", *arguments, **environ)
    assert result.exit_code == 0, result.output
    (settings,) = fake.settings
    return settings


def test_serve_without_anything(fake: Daemon) -> None:
    assert served(fake) == config.Settings()


def test_serve_passes_the_exit_code_on(fake: Daemon) -> None:
    fake.code = 1
    assert invoke("serve").exit_code == 1


def test_flags(fake: Daemon) -> None:
    settings = served(
        fake,
        *("--listen", "0.0.0.0:9000", "--admin", "[::1]:9001", "--node", "n1", "--insecure"),
        *("--broker-url", "amqp://one", "--broker-url", "amqp://u@two"),
        *("--log-level", "debug", "--log-format", "json", "--set", "limits.frame=1MiB", "--set", "stomp.hosts = ['a']"),
    )
    assert (settings.listen.host, settings.listen.port) == ("0.0.0.0", 9000)
    assert (settings.admin.host, settings.admin.port) == ("::1", 9001)
    assert (settings.node, settings.insecure) == ("n1", True)
    assert settings.broker.kind == "rabbitmq"
    assert settings.broker.urls == ("amqp://one", "amqp://u@two")
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert settings.limits.frame == 2**20
    assert settings.stomp.hosts == ("a",)


def test_a_port_alone(fake: Daemon) -> None:
    settings = served(fake, "--listen", "9000", "--admin", ":9001")
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 9000)
    assert (settings.admin.host, settings.admin.port) == ("127.0.0.1", 9001)


def test_file_and_environment(fake: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text("node = 'from-file'\n[broker]\nurls_file = 'none'")
    settings = served(fake, "--broker-url", "amqp://h", STOMPBRIDGE_CONFIG=str(path), STOMPBRIDGE_LISTEN__PORT="9000")
    assert (settings.node, settings.listen.port, settings.broker.urls) == ("from-file", 9000, ("amqp://h",))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--listen", "localhost"], "is not HOST:PORT"),
        (["--listen", "localhost:x"], "is not HOST:PORT"),
        (["--listen", "::1:80"], "an IPv6 address is written in brackets"),
        (["--set", "limits.frame"], "is not KEY=VALUE"),
        (["--listen", "127.0.0.1:70000"], "stompbridge: command line: listen.port = 70000: must be"),
        (["--listen", "0.0.0.0:80"], "insecure = true"),
        (["--config", "/none.toml"], "stompbridge: /none.toml: cannot be read: No such file or directory"),
        (["--set", "limits.frme=1"], "did you mean limits.frame?"),
        (["--broker-url", "http://h"], 'broker.urls[0] = "http://h": must be a URL'),
        (["--broker-url", "amqp://u:secret@h"], "variable STOMPBRIDGE_BROKER__URLS, or broker.urls_file"),
        (["--broker-url", "amqp://h", "--broker-url", "amqp://u:secret@h"], "broker.urls_file"),
        (["--set", "broker.urls=['amqp://u:secret@h']"], "broker.urls_file"),
        (["--set", "dedup.redis_url=redis://:secret@h"], "STOMPBRIDGE_DEDUP__REDIS_URL, or dedup.redis_url_file"),
        (["--set", "auth.default_passcode=secret"], "STOMPBRIDGE_AUTH__DEFAULT_PASSCODE, or auth.default_passcode_fi"),
        (["--set", "auth.http.url=https://u:secret@h"], "AUTH__HTTP__URL, or auth.http.url in the configuration file"),
        (["--log-level", "loud"], 'log.level = "loud": must be one of'),
    ],
)
def test_bad_arguments(fake: Daemon, arguments: list[str], text: str) -> None:
    result = invoke("serve", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert "secret" not in result.output
    assert result.stdout == ""
    assert fake.settings == []


BAD_ROUTE = """
[[app.route]]
destination = "/app/message/{roomId}"
exchange = "chat.exchange"
routing_key = "roomId.{room}"
"""


def test_config_check(tmp_path: Path) -> None:
    assert invoke("config", "check").stdout == "The configuration is valid.\n"
    path = tmp_path / "bridge.toml"
    path.write_text(BAD_ROUTE)
    result = invoke("config", "check", "--config", str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith("stompbridge: app.route")
    assert "'room'" in result.stderr
    path.write_text("[limits]\nfrme = 1")
    result = invoke("config", "check", STOMPBRIDGE_CONFIG=str(path))
    assert result.exit_code == 2
    assert result.stderr == f"stompbridge: {path}: limits.frme = 1: no such key; did you mean limits.frame?\n"


def test_config_default() -> None:
    assert invoke("config", "default").stdout == config.default_toml()


def test_config_show() -> None:
    shown = tomllib.loads(invoke("config", "show", STOMPBRIDGE_LISTEN__PORT="9000").stdout)
    assert shown["listen"]["port"] == 9000
    assert shown["broker"]["urls"] == ["amqp://guest:***@127.0.0.1:5672/%2F"]


def test_version() -> None:
    assert invoke("version").stdout == invoke("--version").stdout == f"stompbridge {__version__}\n"


def test_help_names_every_command() -> None:
    text = invoke("-h").stdout
    assert all(name in text for name in ("serve", "config", "version"))


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stompbridge", "serve", "--listen", "nowhere"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "is not HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("typed", ["s3cret\n", "s3cret\r\n", "s3cret", "s3cret\nanother line\n"])
def test_users_hash(typed: str) -> None:
    result = CliRunner().invoke(main, ["users", "hash"], input=typed)
    assert result.exit_code == 0
    line = tomllib.loads(result.stdout)
    assert line.keys() == {"password"}
    assert PasswordHasher().verify(line["password"], "s3cret")
    assert "s3cret" not in result.output


def test_users_hash_asks_twice_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_on_a_terminal", lambda: True)
    result = CliRunner().invoke(main, ["users", "hash"], input="s3cret\ntypo\ns3cret\ns3cret\n")
    assert result.exit_code == 0
    assert result.stderr.count("Password") == 2
    assert PasswordHasher().verify(tomllib.loads(result.stdout)["password"], "s3cret")


@pytest.mark.parametrize(("typed", "text"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\n", "is not UTF-8 text")])
def test_no_password_to_hash(typed: bytes, text: str) -> None:
    result = CliRunner().invoke(main, ["users", "hash"], input=typed)
    assert result.exit_code == 2
    assert result.stderr == f"stompbridge: the password {text}\n"
    assert result.stdout == ""


def test_config_check_reads_the_users_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text("[auth]\nbackend = 'static'\nusers_file = 'users.toml'")
    result = invoke("config", "check", "--config", str(path))
    assert result.exit_code == 2
    assert result.stderr == f"stompbridge: {tmp_path}/users.toml: cannot be read: No such file or directory\n"
    users = tmp_path / "users.toml"
    users.touch(0o600)
    users.write_text("[users.alice]\n" + CliRunner().invoke(main, ["users", "hash"], input="x").stdout)
    assert invoke("config", "check", "--config", str(path)).stdout == "The configuration is valid.\n"
