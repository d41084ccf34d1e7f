"""Secrets stay where they are: they are not in the log, the answers of the admin port, the list of processes, or what
commands print. NATS: its advisory 2026-14, credentials on the command line that monitoring shows.

Each test takes a bridge that knows all kinds of secrets through good and bad ways, with the log at ``debug``.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

import jwt
import pytest
import redis
from argon2 import PasswordHasher
from websockets.exceptions import InvalidStatus

from tests.security.support import Answer, Webhook
from tests.support import configs
from tests.support.bridge import ROOT, Bridge
from tests.support.certificates import Certificate
from tests.support.kinds import Connect
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis
from tests.support.stomp import Client, encode

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis]


class Vault:
    """Secrets by name, each of them text that stands nowhere else."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}

    def new(self, name: str, odd: str = "") -> str:
        """A new secret; ``odd`` are characters that have to be written otherwise here and there."""
        return self.keep(name, f"s3cr{odd}{secrets.token_hex(8)}")

    def keep(self, name: str, secret: str) -> str:
        self._secrets[name] = secret
        return secret

    def leaks(self, text: str) -> list[str]:
        """Which secrets the text shows, in whatever writing."""
        return [name for name, secret in self._secrets.items() if any(form in text for form in forms(secret))]


def forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    written = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], encoded}
    # Within longer texts, such as "user:password", base64 looks otherwise.
    for pad in ("x", "xx"):
        written.add(base64.b64encode((pad + secret).encode()).decode()[4:].rstrip("=")[:-2])
    # A part of it is too much, too.
    return written | {secret[-12:]}


def store_with_password(server: Redis, password: str) -> str:
    client = redis.Redis(port=server.port)
    client.config_set("requirepass", password)
    client.close()
    return f"redis://:{quote(password, safe='')}@127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def vault() -> Vault:
    return Vault()


@pytest.fixture(scope="module")
def store(vault: Vault) -> Iterator[str]:
    """The address of a Redis that has a password."""
    server = Redis()
    try:
        server.start()
        yield store_with_password(server, vault.new("redis password", "@/#"))
    finally:
        server.remove()


@pytest.fixture(scope="module")
def broker(vault: Vault, rabbitmq: RabbitMQ) -> str:
    """The address of RabbitMQ for a user with a password."""
    user, password = f"bridge{secrets.token_hex(4)}", vault.new("broker password", "@/#%")
    name, word = (base64.b64encode(text.encode()).decode() for text in (user, password))
    rabbitmq.evaluate(
        f'rabbit_auth_backend_internal:add_user(base64:decode(<<"{name}">>), base64:decode(<<"{word}">>), <<"t">>), '
        f'rabbit_auth_backend_internal:set_permissions(base64:decode(<<"{name}">>), <<"/">>, <<".*">>, <<".*">>, '
        f'<<".*">>, <<"t">>), ok.'
    )
    return rabbitmq.url_for(user, "PASSWORD").replace("PASSWORD", quote(password, safe=""))


def private(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


class Site:
    """A bridge, and what can be seen of it."""

    def __init__(self, vault: Vault, config: str, environ: dict[str, str]) -> None:
        self.vault = vault
        self.environ = {"STOMPBRIDGE_LOG__LEVEL": "debug"} | environ
        self.bridge = Bridge(config, environ=self.environ)
        self.seen: dict[str, str] = {}

    def command(self, *arguments: str) -> None:
        """What a command prints about the same configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "stompbridge", *arguments, "--config", str(self.bridge.config)],
            env=dict(os.environ) | self.environ | {"PYTHONPATH": str(ROOT)},
            cwd=self.bridge.folder,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        self.seen[" ".join(arguments)] = done.stdout + done.stderr
        assert done.stdout + done.stderr

    def look(self) -> None:
        """Over its shoulder."""
        for path in ("/livez", "/readyz?verbose", "/readyz", "/metrics", "/config", "/"):
            self.seen[path] = self.bridge.get(path)[1]
        for file in ("cmdline", "comm", "status"):
            self.seen[file] = Path(f"/proc/{self.bridge.pid}/{file}").read_text()
        assert "serve" in self.seen["cmdline"]

    def hear(self, client: Client) -> None:
        """What a client was told."""
        self.seen[f"client {len(self.seen)}"] = repr([client.connected, *client.pending])

    def assert_tight(self) -> None:
        self.seen["log"] = self.bridge.log
        for where, text in self.seen.items():
            assert not self.vault.leaks(text), f"{where}: {self.vault.leaks(text)}\n{text[-3000:]}"


async def attempts(site: Site, connect: Connect, good: dict[str, str], bad: list[dict[str, str]]) -> None:
    """CONNECTs that work, that are refused, and that are no frames, with all that clients know."""
    bridge, vault = site.bridge, site.vault
    version = {"accept-version": "1.2"}
    client = await connect(bridge, version | good)
    await client.subscribe("/topic/x")
    await client.send_and_wait("/topic/x", "x")
    await client.message("x")
    # Once more while connected, and then an end in the middle of it.
    await client.send_raw(encode("CONNECT", version | good, escaped=False))
    await client.wait_closed()
    site.hear(client)
    for headers in [*bad, {"passcode": vault.new("passcode without login")}, {"login": "", "passcode": "x"}]:
        client = await connect(bridge, connected=False)
        await client.send_raw(encode("CONNECT", version | headers, escaped=False))
        await client.error()
        site.hear(client)
        client.abort()
    passcode = vault.new("passcode in no frame")
    for broken in (
        f"CONNECT\naccept-version:1.2\nlogin:alice\npasscode {passcode}\n\n\0",
        f"CONNECT\npasscode:{passcode}\n{passcode}\n\n\0",
        f"{passcode}\npasscode:{passcode}\n\n\0",
        f"CONNECT\naccept-version:1.2\ncontent-length:{passcode}\npasscode:{passcode}\n\n\0",
        f"CONNECT\naccept-version:9\nheart-beat:{passcode}\npasscode:{passcode}\n\n\0",
        f"CONNECT\npasscode:{passcode}\nx:{'x' * 70_000}\n\n\0",
        f"SEND\npasscode:{passcode}\n\n{passcode}\0",
    ):
        client = await connect(bridge, connected=False)
        await client.send_raw(broken)
        client.abort()
    in_upgrade = vault.new("secret in the upgrade")
    upgrade = {"Authorization": f"Bearer {in_upgrade}", "Cookie": f"token={in_upgrade}; other={in_upgrade}"}
    for query, origin in ((f"?token={in_upgrade}", None), (f"/no?access_token={in_upgrade}", "http://evil.example")):
        try:
            client = await connect(bridge, version | good, additional_headers=upgrade, origin=origin, path=query)
        except InvalidStatus as refused:
            site.seen[f"handshake {query}"] = repr(refused.response)
        else:
            site.hear(client)
            await client.close()


def reloaded(site: Site, config: str, event: str) -> None:
    """SIGHUP with another configuration."""
    site.bridge.reconfigure(config)
    os.kill(site.bridge.pid, signal.SIGHUP)
    site.bridge.wait_log(event)


async def tell(site: Site, connect: Connect, good: dict[str, str], bad: list[dict[str, str]], config: str) -> None:
    """The life of a bridge."""
    bridge = site.bridge
    try:
        commands = [asyncio.to_thread(site.command, "config", word) for word in ("show", "check")]
        await asyncio.gather(asyncio.to_thread(bridge.start), *commands)
        bridge.wait_ready()
        await attempts(site, connect, good, bad)
        site.look()
        await asyncio.to_thread(reloaded, site, config, "reloaded")
        broken = vault_line(site.vault)
        await asyncio.to_thread(reloaded, site, config + broken, "not_reloaded")
        await asyncio.to_thread(site.command, "config", "show")
        assert site.vault.leaks(bridge.config.read_text() + str(site.environ)), "what should be found where it is"
        assert bridge.stop() == 0
        bridge.assert_clean_log()
        site.assert_tight()
    finally:
        bridge.remove()


def vault_line(vault: Vault) -> str:
    """A key in the wrong place, as it happens when a secret is pasted."""
    return f'\n[auth.default_passcodes]\ndefault_passcode = "{vault.new("misplaced passcode")}"\n'


def raw(connect: Connect, connections: dict[str, Any]) -> Connect:
    """Clients with these options; ``path`` goes behind the bridge's own."""

    async def open_one(bridge: Bridge, *arguments: Any, path: str = "", **options: Any) -> Client:
        class Elsewhere:
            url = bridge.url + path

        return await connect(Elsewhere(), *arguments, **(connections | options))

    return open_one


async def test_static(vault: Vault, store: str, broker: str, connect: Connect, tmp_path: Path) -> None:
    """Everything in the file of the configuration; over TLS."""
    certificate = Certificate(tmp_path)
    vault.keep("TLS key", certificate.key.read_text().splitlines()[1])
    passcode = vault.new("user's passcode")
    hashed = vault.keep("hash", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(passcode))
    users = private(tmp_path / "users.toml", f"[users.alice]\npassword = '{hashed}'\n")
    config = configs.rabbitmq(
        broker,
        f'[auth]\nbackend = "static"\nusers_file = "{users}"\ndefault_login = "guest"\n'
        f'default_passcode = "{vault.new("default passcode")}"',
        f'[dedup]\nstore = "redis"\nredis_url = "{store}"',
        f"[listen]\n{certificate.toml()}",
    )
    site = Site(vault, config, {})
    site.bridge.scheme = "wss"
    over_tls = raw(connect, {"ssl": certificate.trust()})
    bad = [
        {"login": "alice", "passcode": vault.new("wrong passcode")},
        {"login": "nobody", "passcode": passcode},
        {"login": "alice", "passcode": passcode + "x"},
        {"login": "alice", "passcode": vault.keep("long passcode", secrets.token_hex(20_000))},
        {},
    ]
    await tell(site, over_tls, {"login": "alice", "passcode": passcode, "client-id": "phone"}, bad, config)
    # A hash that is none is not quoted either.
    users.write_text(f"[users.alice]\npassword = '{hashed[:-3]}'\n")
    site = Site(vault, config, {})
    site.command("config", "check")
    site.assert_tight()
    site.bridge.remove()


async def test_tokens(vault: Vault, store: str, broker: str, connect: Connect, tmp_path: Path) -> None:
    """Everything in the environment."""
    secret = vault.new("JWT secret") * 4
    vault.keep("JWT secret", secret)
    key = private(tmp_path / "key", secret)
    auth = (
        f'[auth]\nbackend = "jwt"\n[auth.jwt]\nkey_file = "{key}"\nalgorithms = ["HS256"]\n'
        'audience = "a"\nissuer = "i"\ncookie = "token"'
    )
    environ = {
        "STOMPBRIDGE_BROKER__URLS": f'["{broker}"]',
        "STOMPBRIDGE_DEDUP__REDIS_URL": store,
    }

    def token(name: str, **claims: Any) -> str:
        made = jwt.encode({"sub": "alice", "aud": "a", "iss": "i", "exp": time.time() + 60} | claims, secret)
        # Signature and claims: neither is for others.
        vault.keep(name, made.rpartition(".")[2])
        vault.keep(f"{name}, claims", made.split(".")[1])
        return made

    config = configs.rabbitmq("amqp://unused", auth, '[dedup]\nstore = "redis"')
    bad = [
        {"passcode": token("expired token", exp=1.5)},
        {"token": token("token of another audience", aud="b")},
        {"authorization": "Bearer " + token("token with a broken claim", groups="x")},
        {"token": jwt.encode({"x": 1}, vault.new("forger's secret") * 4)},
        {"token": "a." + vault.new("no token") + ".b"},
        {"token": "x." * 10_000},
    ]
    await tell(Site(vault, config, environ), raw(connect, {}), {"token": token("token")}, bad, config)


async def test_webhook(vault: Vault, store: str, broker: str, connect: Connect, tmp_path: Path) -> None:
    """Everything in files of their own; the webhook's address has a password, and its answers are no use at times."""
    passcode, in_answer = vault.new("passcode for the webhook"), vault.new("secret in an answer")

    def respond(question: dict[str, Any]) -> Answer:
        answers: dict[str, Answer] = {
            "alice": (200, {"user": "alice", "token": in_answer}),
            "refused": (403, in_answer.encode()),
            "broken": (500, in_answer.encode()),
            "no json": (200, f'{{"user": "{in_answer}'.encode()),
            "wrong": (200, {"user": "x", "acl": [{"allow": [in_answer], "destinations": [in_answer]}]}),
            "moved": (302, in_answer.encode()),
        }
        return answers.get(question["login"], (401, in_answer.encode()))

    webhook = Webhook(respond)
    try:
        url = webhook.url.replace("//", f"//bridge:{vault.new('password of the webhook')}@")
        default = private(tmp_path / "passcode", vault.new("default passcode in a file") + "\n")
        auth = (
            f'[auth]\nbackend = "http"\ndefault_login = "guest"\ndefault_passcode_file = "{default}"\n'
            f'[auth.http]\nurl = "{url}"\nforward_headers = ["cookie", "authorization"]'
        )
        urls = private(tmp_path / "urls", broker + "\n")
        redis_url = private(tmp_path / "redis", store + "\n")
        config = configs.rabbitmq(
            "amqp://unused",
            auth,
            f'[dedup]\nstore = "redis"\nredis_url_file = "{redis_url}"',
            broker=f'urls_file = "{urls}"',
        )
        names = ("refused", "broken", "no json", "wrong", "moved")
        bad = [{"login": name, "passcode": passcode} for name in names]
        good = {"login": "alice", "passcode": passcode}
        await tell(Site(vault, config, {}), raw(connect, {}), good, bad, config)
    finally:
        webhook.stop()


async def test_logins_of_rabbitmq(vault: Vault, store: str, broker: str, connect: Connect, rabbitmq: RabbitMQ) -> None:
    """The clients' passcodes go to RabbitMQ."""
    parts = urlsplit(broker)
    user, passcode = parts.username or "", unquote(parts.password or "")
    config = configs.rabbitmq(
        broker, '[auth]\nbackend = "rabbitmq"', f'[dedup]\nstore = "redis"\nredis_url = "{store}"'
    )
    bad = [
        {"login": user, "passcode": vault.new("wrong passcode at RabbitMQ")},
        {"login": "nobody", "passcode": passcode},
        {"login": user, "passcode": passcode, "host": "none"},
    ]
    await tell(Site(vault, config, {}), raw(connect, {}), {"login": user, "passcode": passcode}, bad, config)


@pytest.mark.parametrize("kind", ["refused", "unreachable"])
async def test_what_cannot_be_reached(vault: Vault, store: str, broker: str, connect: Connect, kind: str) -> None:
    """Passwords that are wrong, and servers that are away."""
    wrong = vault.new("wrong password", "%/")
    nowhere = f"127.0.0.1:{free_port()}"
    broker_url = f"amqp://bridge:{quote(wrong, safe='')}@{broker.rpartition('@')[2]}"
    redis_url = f"redis://:{quote(wrong, safe='')}@{store.rpartition('@')[2]}"
    if kind == "unreachable":
        broker_url = f"amqp://bridge:{quote(wrong, safe='')}@{nowhere}/%2F"
        redis_url = f"redis://:{quote(wrong, safe='')}@{nowhere}/0"
    site = Site(vault, configs.rabbitmq(broker_url, f'[dedup]\nstore = "redis"\nredis_url = "{redis_url}"'), {})
    bridge = site.bridge
    try:
        bridge.start()
        bridge.wait_log("broker_down")
        client = await connect(bridge, {"accept-version": "1.2", "client-id": "phone"})
        bridge.wait_log("store_down")
        site.look()
        await client.close()
        assert bridge.stop() == 0
        bridge.assert_clean_log()
        site.assert_tight()
    finally:
        bridge.remove()


def test_a_secret_on_the_command_line_is_not_taken(vault: Vault) -> None:
    passcode = vault.new("passcode on the command line")
    site = Site(vault, configs.memory(), {})
    for assignment in (
        f"auth.default_passcode={passcode}",
        f'broker.urls=["amqp://u:{passcode}@127.0.0.1/"]',
        f"dedup.redis_url=redis://:{passcode}@127.0.0.1/0",
        f"auth.http.url=https://u:{passcode}@127.0.0.1/",
        f"auth.jwt.jwks_url=https://u:{passcode}@127.0.0.1/",
    ):
        site.command("serve", "--set", assignment)
        text = site.seen.pop(f"serve --set {assignment}")
        assert "list of processes" in text
        site.seen[assignment.partition("=")[0]] = text
    site.assert_tight()
    site.bridge.remove()
