"""SIGHUP: new users, rules, certificate and log level for a running bridge, all of them or none."""

from __future__ import annotations

import os
import signal
import ssl
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from tests.support.bridge import Bridge
from tests.support.certificates import Certificate
from tests.support.kinds import Connect, StartBridge

RULE = """
[[acl]]
allow = ["subscribe", "send"]
destinations = ["/topic/{name}"]
users = ["*"]
"""


def rule(name: str) -> str:
    return RULE.replace("{name}", name)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users.toml"
    file.touch(0o600)
    know(file, "alice")
    return file


def know(file: Path, *names: str) -> None:
    password = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")
    file.write_text("".join(f"[users.{name}]\npassword = {password!r}\n" for name in names))


def spoil(file: Path) -> None:
    file.write_text("nonsense")


def hang_up(bridge: Bridge) -> None:
    os.kill(bridge.pid, signal.SIGHUP)


def as_user(name: str) -> dict[str, str]:
    return {"login": name, "passcode": "secret"}


async def test_users_and_rules_change_for_sessions_old_and_new(
    start_bridge: StartBridge, connect: Connect, users: Path
) -> None:
    auth = f'[auth]\nbackend = "static"\nusers_file = "{users}"\n'
    bridge = start_bridge(auth + rule("a"))
    alice = await connect(bridge, headers=as_user("alice"))
    await alice.subscribe("/topic/a")
    know(users, "alice", "bob")
    bridge.reconfigure(auth + rule("b") + '[log]\nlevel = "debug"\n')
    hang_up(bridge)
    bridge.wait_log("reloaded")
    bob = await connect(bridge, headers=as_user("bob"))
    await bob.send_and_wait("/topic/b")
    # She keeps what she has.
    await alice.send_and_wait("/topic/b")
    assert not bridge.events("session_closed")
    await alice.send("/topic/a")
    assert (await alice.error()).message == "access_refused"


async def test_what_is_wrong_changes_nothing(start_bridge: StartBridge, connect: Connect, users: Path) -> None:
    auth = f'[auth]\nbackend = "static"\nusers_file = "{users}"\n'
    bridge = start_bridge(auth + rule("a"))
    bridge.reconfigure(auth + rule("b"))
    spoil(users)
    hang_up(bridge)
    assert str(users) in bridge.wait_log("not_reloaded")["error"]
    alice = await connect(bridge, headers=as_user("alice"))
    await alice.send_and_wait("/topic/a")


async def test_what_needs_a_restart_is_said(start_bridge: StartBridge) -> None:
    bridge = start_bridge("")
    bridge.reconfigure("[limits]\nheaders = 7\n[broker]\nqueue_prefetch = 3\n")
    hang_up(bridge)
    assert bridge.wait_log("reloaded")["needs_restart"] == "broker"


async def test_a_new_certificate(start_bridge: StartBridge, connect: Connect, tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    bridge = start_bridge("[listen]\n" + certificate.toml())
    bridge.scheme = "wss"
    before = await connect(bridge, ssl=certificate.trust())
    certificate.renew()
    with pytest.raises(ssl.SSLError):
        await connect(bridge, ssl=certificate.trust())
    hang_up(bridge)
    bridge.wait_log("reloaded")
    after = await connect(bridge, ssl=certificate.trust())
    await after.alive()
    spoil(certificate.key)
    hang_up(bridge)
    assert "tls_key" in bridge.wait_log("not_reloaded")["error"]
    await (await connect(bridge, ssl=certificate.trust())).alive()
    await before.alive()
