from __future__ import annotations

from pathlib import Path

import pytest

from stompbridge import config
from stompbridge.config import ConfigError

TOKEN = "0123456789abcdef"


def refusal(environ: dict[str, str] | None = None, **overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        config.load(None, environ or {}, {key.replace("__", "."): text for key, text in overrides.items()})
    return str(error.value)


def test_the_token_of_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    path = tmp_path / "stompbridge.toml"
    path.write_text('[admin]\ntoken_file = "token"\ntoken = "this one is not looked at"\n')
    settings = config.load(path, {}, {})
    assert settings.admin.token == TOKEN
    assert TOKEN not in config.show(settings)
    assert 'token = "***"' in config.show(settings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must hold one line, the token"),
        ("\n", "must hold one line, the token"),
        (f"{TOKEN}\n{TOKEN}\n", "must hold one line, the token"),
    ],
)
def test_files_without_one(tmp_path: Path, text: str, problem: str) -> None:
    secret = tmp_path / "token"
    secret.write_text(text)
    secret.chmod(0o600)
    assert refusal(admin__token_file=str(secret)) == f'command line: admin.token_file = "{secret}": {problem}'


def test_a_file_that_everybody_can_read(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o644)
    assert "can be read by everybody on this machine" in refusal(admin__token_file=str(secret))
    assert "No such file" in refusal(admin__token_file=str(tmp_path / "other"))


def test_a_token_of_the_environment() -> None:
    assert config.load(None, {"STOMPBRIDGE_ADMIN__TOKEN": f"{TOKEN}=="}, {}).admin.token == f"{TOKEN}=="


@pytest.mark.parametrize("token", ["short", "123456789012345", "with a space inside", "ümläut-ümläut-ümläut", "=" * 16])
def test_tokens_that_are_none(token: str) -> None:
    message = refusal({"STOMPBRIDGE_ADMIN__TOKEN": token})
    assert "must have at least 16 characters" in message
    assert token not in message


def test_no_token_on_the_command_line() -> None:
    message = refusal(admin__token=TOKEN)
    assert message.startswith('command line: admin.token = "***": can be read there by everybody on this machine')
    assert TOKEN not in message


def test_hosts() -> None:
    names = '["bridge", "admin.chat.example", "a_b-c"]'
    assert config.load(None, {}, {"admin.hosts": names}).admin.hosts == ("bridge", "admin.chat.example", "a_b-c")


@pytest.mark.parametrize("host", ["", "bridge:8081", "http://bridge", "bridge/", "*.example"])
def test_hosts_that_are_none(host: str) -> None:
    message = refusal(admin__hosts=f'["ok", "{host}"]')
    assert message == (f'command line: admin.hosts[1] = "{host}": must be a name without a port: "bridge.example"')
