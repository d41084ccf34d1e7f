"""Access rules in the configuration, and ``stompbridge acl test``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stompbridge import config
from stompbridge.cli import main
from stompbridge.config import ConfigError

RULES = """
[[broker.exchange]]
name = "news"
type = "fanout"

[[acl]]
deny = ["subscribe"]
destinations = ["/topic/room.secret"]
users = ["*"]

[[acl]]
allow = ["subscribe", "send"]
destinations = ["/topic/room.*", "/exchange/news/a"]
users = ["*"]

[[acl]]
allow = ["send", "durable"]
destinations = ["/topic/#", "/queue/{user}"]
groups = ["staff"]
"""
USERS = {"auth.backend": "static", "auth.users_file": "users.toml"}
RULE = '[{allow = ["send"], destinations = ["/**"], users = ["*"]}]'


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "bridge.toml"
    path.write_text(RULES)
    return path


def acl_test(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["acl", "test", "--config", str(path), *arguments], env={})


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--user", "u", "subscribe", "/topic/room.7"], 0, "subscribe on /topic/room.7: allowed by rule 2 (allow = "),
        (
            ["--user", "u", "subscribe", "/topic/room.*"],
            1,
            'refused for /topic/room.secret by rule 1 (deny = ["subscribe"], destinations = ["/topic/room.secret"], ',
        ),
        (["--user", "u", "send", "/topic/x"], 1, "send on /topic/x: refused, no rule fits"),
        (["--user", "u", "--group", "staff", "send", "/topic/x"], 0, 'groups = ["staff"])'),
        (["--user", "u", "--group", "a", "--group", "staff", "send", "u"], 0, "send on /queue/u: allowed by rule 3"),
        (["--user", "v", "--group", "staff", "send", "/queue/u"], 1, "no rule fits"),
        (["--user", "", "subscribe", "/topic/room.7"], 0, "allowed by rule 2"),
        (["--user", "u", "subscribe", "/exchange/news/a"], 1, "subscribe on /exchange/news/#: refused"),
        (["--user", "u", "subscribe", "/topic/room.7", "--header", "durable:true"], 1, "durable on /topic/room.7"),
        (["--user", "u", "send", "/topic/room.7", "--header", "reply-to:/temp-queue/a"], 1, "temp-queue on /temp-qu"),
    ],
)
def test_answers(rules: Path, arguments: list[str], code: int, text: str) -> None:
    result = acl_test(rules, *arguments)
    assert result.exit_code == code, result.output
    assert text in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["subscribe", "/topic/a"], "--user"),
        (["--user", "u", "read", "/topic/a"], "'read' is not one of"),
        (["--user", "u", "subscribe"], "DESTINATION"),
        (["--user", "u", "subscribe", "/bogus/a"], "Unknown destination"),
        (["--user", "u", "subscribe", "/app/a"], "'/app/a' is not a valid destination for 'SUBSCRIBE'"),
        (["--user", "u", "subscribe", "/topic/a", "--header", "durable"], "is not NAME:VALUE"),
    ],
)
def test_questions_that_make_no_sense(rules: Path, arguments: list[str], text: str) -> None:
    result = acl_test(rules, *arguments)
    assert result.exit_code == 2
    assert text in result.output


def test_without_the_file(tmp_path: Path) -> None:
    assert acl_test(tmp_path / "absent.toml", "--user", "u", "send", "/topic/a").exit_code == 2


def test_json(rules: Path) -> None:
    result = acl_test(rules, "--user", "u", "--json", "send", "/topic/room.7")
    answer = json.loads(result.output)
    assert (answer["allowed"], answer["rule"]) == (True, 2)
    assert answer["text"].startswith("send on /topic/room.7: allowed by rule 2")
    answer = json.loads(acl_test(rules, "--user", "u", "--json", "send", "/queue/x").output)
    assert (answer["allowed"], answer["rule"]) == (False, None)


def test_without_rules(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.touch()
    result = acl_test(path, "--user", "u", "send", "/topic/a")
    assert (result.exit_code, result.output) == (0, "send allowed: there is no [[acl]], so that everything is\n")
    assert acl_test(path, "--user", "u", "send", "/bogus").exit_code == 2


def test_config_check_names_rule_and_pattern(rules: Path) -> None:
    rules.write_text(RULES.replace("/topic/room.*", "/topic/room*").replace('groups = ["staff"]', ""))
    result = CliRunner().invoke(main, ["config", "check", "--config", str(rules)], env={})
    assert result.exit_code == 2
    first, second = result.output.splitlines()
    assert f"{rules}: acl[1].destinations[0] = \"/topic/room*\": has a wildcard in 'room*'" in first
    assert f"{rules}: acl[2].users = []: names nobody" in second


def refusals(**overrides: str) -> list[str]:
    settings = {key.replace("__", "."): text for key, text in overrides.items()}
    with pytest.raises(ConfigError) as info:
        config.load(None, {}, settings)
    return str(info.value).splitlines()


def test_an_open_listener_needs_authentication_and_rules() -> None:
    (line,) = refusals(listen__host="0.0.0.0", acl=RULE)
    assert "while nothing authenticates clients: set auth.backend, and [[acl]]" in line
    assert "insecure = true" in line
    config.load(None, {}, {"listen.host": "0.0.0.0", "insecure": "true"})
    (line,) = refusals(listen__host="::", **{"auth.backend": "static", "auth.users_file": "users.toml"})
    assert "while no [[acl]] says what clients may do: add one" in line
    config.load(None, {}, {"listen.host": "0.0.0.0", "acl": RULE, **USERS})


def test_rabbitmq_has_rules_of_its_own() -> None:
    settings = {"listen.host": "0.0.0.0", "auth.backend": "rabbitmq", "broker.kind": "rabbitmq"}
    assert config.load(None, {}, settings).acl == ()


def test_the_admin_listener_stays_here() -> None:
    (line,) = refusals(admin__host="0.0.0.0", acl=RULE, **USERS)
    assert line.startswith('command line: admin.host = "0.0.0.0": can be reached from other machines')
    config.load(None, {}, {"admin.host": "0.0.0.0", "insecure": "true"})
