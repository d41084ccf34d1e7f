"""Commands against a running bridge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import TOKEN, Ask, Fake, invoke
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.ports import free_port


def test_status(ask: Ask, operated: Bridge) -> None:
    result = ask("status")
    assert result.exit_code == 0, result.output
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines() if line and "  " in line)
    assert lines["bridge"].strip().startswith(f"{operated.node}: stompbridge ")
    assert f"process {operated.pid}" in lines["bridge"]
    assert lines["ready"].strip() == "yes"
    assert "memory up (connected)" in lines["broker"]
    assert "ok     broker" in result.stdout
    document = json.loads(ask("status", "--json").stdout)
    assert (document["node"], document["pid"], document["ready"]) == (operated.node, operated.pid, True)


def test_ready(ask: Ask) -> None:
    assert (ask("ready").exit_code, ask("ready").stdout) == (0, "ready\n")
    assert (ask("ready", "--live").exit_code, ask("ready", "--live").stdout) == (0, "alive\n")
    document = json.loads(ask("ready", "--json").stdout)
    assert document["ready"] is True
    assert {"name": "broker", "ok": True, "detail": "connected"} in document["checks"]


def test_not_ready(start_bridge: StartBridge) -> None:
    text = f'[broker]\nkind = "rabbitmq"\nurls = ["amqp://127.0.0.1:{free_port()}"]'
    bridge = start_bridge(text)
    result = invoke("ready", "--admin", bridge.admin_url)
    assert result.exit_code == 1
    assert result.stdout.startswith("not ready: broker: ")
    assert json.loads(invoke("ready", "--json", "--admin", bridge.admin_url).stdout)["ready"] is False
    assert invoke("ready", "--live", "--admin", bridge.admin_url).exit_code == 0
    assert "no: broker" in invoke("status", "--admin", bridge.admin_url).stdout


async def test_sessions(ask: Ask, operated: Bridge, connect: Connect, name: str) -> None:
    client = await connect(operated, {"client-id": f"{name}-a"})
    await client.subscribe(f"/topic/{name}.one")
    other = await connect(operated)
    listed = ask("sessions", "list", "--search", name.upper())
    assert listed.exit_code == 0, listed.output
    head, row, *rest = listed.stdout.splitlines()
    columns = "ID USER CLIENT-ID ADDRESS AGE STATE SUBS UNACKED IN OUT BYTES OUT UNSENT"
    assert head.split() == columns.split()
    assert f"{name}-a" in row
    assert rest[-1].startswith("1 of 1 sessions that match, of ")
    documents = json.loads(ask("sessions", "list", "--json", "--sort", "bytes", "--limit", "1").stdout)
    assert len(documents["sessions"]) == 1
    assert documents["total"] >= 2
    (found,) = json.loads(ask("sessions", "list", "--json", "--search", name).stdout)["sessions"]
    shown = ask("sessions", "show", found["id"])
    assert f"client-id  {name}-a\n" in shown.stdout
    assert f"/topic/{name}.one  auto" in shown.stdout
    assert json.loads(ask("sessions", "show", found["id"], "--json").stdout)["client_id"] == f"{name}-a"
    kicked = ask("sessions", "kick", found["id"])
    assert (kicked.exit_code, kicked.stdout) == (0, f"Session {found['id']} is closed.\n")
    await client.wait_closed()
    gone = ask("sessions", "kick", found["id"], "--json")
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert "session" in gone.stderr
    other.abort()


def test_log_level(ask: Ask) -> None:
    assert ask("log-level", "debug").stdout.startswith("The log level is debug, until SIGHUP or a restart; it was info")
    assert json.loads(ask("log-level", "info", "--json").stdout) == {"level": "info", "was": "debug"}
    assert ask("log-level", "loud").exit_code == 2


def test_drain(start_bridge: StartBridge, token_file: Path) -> None:
    bridge = start_bridge(f'[admin]\ntoken = "{TOKEN}"')
    result = invoke("drain", "--seconds", "1", "--admin", bridge.admin_url, "--token-file", str(token_file))
    assert result.exit_code == 0, result.output
    assert result.stdout == "The bridge is ending: 0 sessions are closed within 1 s.\n"
    assert bridge.wait_ended() == 0


def test_drain_in_json(fake: Fake) -> None:
    fake.says("/drain", {"draining": True, "sessions": 3, "seconds": 5.0}, 202)
    result = invoke("drain", "--json", "--admin", fake.url)
    assert json.loads(result.stdout)["sessions"] == 3
    assert fake.seen == [("POST", "/drain", "", b"")]


def test_tokens(operated: Bridge, start_bridge: StartBridge, tmp_path: Path, token_file: Path) -> None:
    where = ("log-level", "info", "--admin", operated.admin_url)
    missing = invoke(*where)
    assert missing.exit_code == 2
    assert "wants the admin token; give --token-file FILE" in missing.stderr
    wrong = invoke(*where, STOMPBRIDGE_ADMIN__TOKEN="x" * 16)
    assert wrong.exit_code == 2
    assert "refuses the token" in wrong.stderr
    assert "xxxx" not in wrong.output
    assert invoke(*where, "--token-file", str(token_file)).exit_code == 0
    assert invoke(*where, STOMPBRIDGE_ADMIN__TOKEN_FILE=str(token_file)).exit_code == 0
    config = tmp_path / "bridge.toml"
    config.write_text(f'[admin]\nport = {operated.admin_port}\ntoken_file = "token"')
    assert invoke("log-level", "info", "--config", str(config)).exit_code == 0
    token_file.chmod(0o644)
    result = invoke(*where, "--token-file", str(token_file))
    assert result.exit_code == 2
    assert "chmod o-rwx" in result.stderr
    # What is only read needs none.
    assert invoke("status", "--config", str(config)).exit_code == 0
    result = invoke("log-level", "info", STOMPBRIDGE_CONFIG=str(config))
    assert "can be read by everybody" in result.stderr
    token_file.chmod(0o600)
    token_file.write_text("one\ntwo\n")
    assert "must hold one line" in invoke(*where, "--token-file", str(token_file)).stderr


def test_no_token_configured(start_bridge: StartBridge, token_file: Path) -> None:
    bridge = start_bridge()
    result = invoke("drain", "--admin", bridge.admin_url, "--token-file", str(token_file))
    assert result.exit_code == 2
    assert "admin.token_file" in result.stderr


CLIENTS = ["status", "ready", "top", "sessions list", "trace", "log-level info", "drain"]


@pytest.mark.parametrize("command", CLIENTS)
def test_nothing_runs(command: str) -> None:
    url = f"127.0.0.1:{free_port()}"
    result = invoke(*command.split(), "--admin", url)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"stompbridge: no bridge answers at http://{url}: connection refused; is it run")
    assert result.stdout == ""


@pytest.mark.parametrize("command", CLIENTS)
def test_something_else_runs(fake: Fake, command: str) -> None:
    result = invoke(*command.split(), "--admin", fake.url)
    assert result.exit_code == 1
    assert "it is of another version, or no stompbridge" in result.stderr or "HTTP status 404" in result.stderr
    for path in ("/status", "/sessions", "/log-level", "/drain", "/trace", "/readyz", "/livez"):
        fake.answers[path] = 200, b"<html>"
    result = invoke(*command.split(), "--admin", fake.url)
    assert result.exit_code in (1, 3)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("status", "document", "code", "text"),
    [
        (404, {"error": "no session \x1b[2J"}, 1, "no session \\x1b[2J\n"),
        (429, {"error": "wait 5 s"}, 1, "wait 5 s"),
        (403, {"error": "there is no token"}, 2, "there is no token"),
        (421, {"error": "not under this name"}, 2, "not under this name"),
        (500, [1], 1, "HTTP status 500"),
        (200, [1], 3, "is no stompbridge"),
    ],
)
def test_refusals(fake: Fake, status: int, document: object, code: int, text: str) -> None:
    fake.says("/status", document, status)
    result = invoke("status", "--admin", fake.url)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


HOSTILE = "a\x1b[31m\r\n\u202eb\x9b" + "é世" * 40


def test_what_clients_have_named_cannot_harm_a_terminal(fake: Fake) -> None:
    session = {"id": HOSTILE, "user": HOSTILE, "client_id": None, "address": HOSTILE, "subscription_count": "x"}
    subscription = {"id": HOSTILE, "destination": HOSTILE, "ack": "auto", "prefetch": None, "unacked": None}
    fake.says("/sessions", {"total": 1, "matched": 1, "sessions": [session, 7]})
    fake.says("/sessions/x%2F1", {**session, "subscriptions": [subscription], "connected_at": 0})
    fake.says("/status", {"node": HOSTILE, "checks": [{"name": HOSTILE, "detail": HOSTILE, "ok": False}, 7]})
    fake.answers["/readyz"] = 503, f"[-]broker failed: {HOSTILE}\n".encode()
    for command in (["sessions", "list"], ["sessions", "show", "x/1"], ["status"], ["ready"]):
        for more in ([], ["--json"]):
            result = invoke(*command, *more, "--admin", fake.url)
            assert result.exit_code == (1 if command == ["ready"] else 0), result.output
            assert result.output.replace("\n", "").isprintable()
            assert "\\x1b[31m" in result.output or "\\u001b[31m" in result.output


def test_where_the_bridge_is(fake: Fake, tmp_path: Path) -> None:
    fake.says("/status", {})
    config = tmp_path / "bridge.toml"
    config.write_text(f'[admin]\nhost = "0.0.0.0"\nport = {fake.port}\n[broker]\nurls_file = "not for us"')
    assert invoke("status", "--config", str(config)).exit_code == 0
    assert invoke("status", STOMPBRIDGE_CONFIG=str(config)).exit_code == 0
    assert invoke("status", STOMPBRIDGE_ADMIN__PORT=str(fake.port)).exit_code == 0
    port = str(free_port())
    assert invoke("status", "--config", str(config), STOMPBRIDGE_ADMIN__PORT=port).exit_code == 3
    assert invoke("status", "--config", str(config), STOMPBRIDGE_ADMIN_URL=f"127.0.0.1:{port}").exit_code == 3
    assert invoke("status", "--admin", f"{fake.url}/", STOMPBRIDGE_ADMIN_URL=f"127.0.0.1:{port}").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "environ", "text"),
    [
        (["--admin", "ftp://h"], {}, "'ftp://h' is no address of an admin listener"),
        (["--admin", "http://[::1"], {}, "is no address"),
        (["--admin", "http://u:p@h"], {}, "is no address"),
        (["--admin", "http://h/?x"], {}, "is no address"),
        (["--config", "/none.toml"], {}, "/none.toml: cannot be read"),
        ([], {"STOMPBRIDGE_ADMIN__ENABLED": "false"}, "admin.enabled = false"),
        ([], {"STOMPBRIDGE_ADMIN__HOST": "::", "STOMPBRIDGE_ADMIN__PORT": "1"}, "http://[::1]:1"),
        (["--admin", "http://no.such.host.invalid"], {}, "no bridge answers at http://no.such.host.invalid: "),
        (["--token-file", "/none"], {}, "/none: the token cannot be read"),
    ],
)
def test_bad_arguments(arguments: list[str], environ: dict[str, str], text: str) -> None:
    result = invoke("status", *arguments, **environ)
    assert result.exit_code in (2, 3)
    assert text in result.stderr


def test_a_bad_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text("admin = 5")
    assert "admin must be a table" in invoke("status", "--config", str(path)).stderr
    path.write_text("[admin")
    assert "is not TOML" in invoke("status", "--config", str(path)).stderr
    path.write_text("[admin]\nenabled = false")
    result = invoke("status", "--config", str(path))
    assert (result.exit_code, f"{path} says admin.enabled = false" in result.stderr) == (2, True)
