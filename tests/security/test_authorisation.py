"""Attackers who want to be somebody else, or to have what is not theirs.

Who they are and what they may do is said by a webhook or by tokens; what counts is what reaches them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from tests.security.support import Answer, Webhook, cpu, running
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.stomp import Client, Frame, encode, open_client

# Subscriptions. RabbitMQ: GHSA-gpvw-75h5-3wvx, CVE-2026-57217, topic authorisation across tenants; its MQTT: GHSA-x866
# and GHSA-q46v, names that become part of a pattern. NATS: advisories 2026-17 and 2026-18, wildcards that overlap what
# is denied.

words = st.sampled_from(["a", "b", "*", "#", "{user}", "x-{user}"])
templates = st.lists(words, min_size=1, max_size=3).map(".".join)
rule_lists = st.lists(st.tuples(templates, st.sampled_from([True, True, False])), min_size=1, max_size=3)
users = st.sampled_from(["u", "*", "#", "a", "a.b", "#.a", "a/b", "%2F", "{user}", "x-u", ".", "é", "u\n"])
patterns = st.lists(st.sampled_from(["a", "b", "*", "#", "{user}", "x-{user}", ""]), min_size=1, max_size=3)
sources = st.sampled_from(["chat.exchange", "amq.topic", "orders.direct", "news.fanout", "tags.headers"])
shapes = st.sampled_from(
    [
        {},
        {"durable": "true", "auto-delete": "true"},
        {"x-message-ttl": "60000"},
        {"x-queue-name": "{number}"},
        {"exclusive": "true"},
    ]
)
ACTIONS = ["subscribe", "durable", "queue-name", "queue-arguments"]


@dataclass
class Case:
    """Rules for the keys of an exchange, the user they are for, and what it tries to have."""

    rules: list[tuple[str, bool]]
    user: str
    exchange: str
    tries: list[tuple[list[str], Mapping[str, str]]] = field(default_factory=list)

    def acl(self) -> list[dict[str, Any]]:
        rules = [
            {"allow" if allow else "deny": ACTIONS, "destinations": [f"/exchange/{self.exchange}/{template}"]}
            for template, allow in self.rules
        ]
        return [*rules, {"allow": ["subscribe"], "destinations": ["/queue/#"]}]

    def is_allowed(self, key: Sequence[str]) -> bool:
        """A plain reading: the first rule that fits the key decides."""
        return next((allow for template, allow in self.rules if self._fits(template.split("."), key)), False)

    def _fits(self, template: Sequence[str], key: Sequence[str]) -> bool:
        if not template:
            return not key
        first, rest = template[0], template[1:]
        if first == "#":
            return self._fits(rest, key) or (bool(key) and self._fits(template, key[1:]))
        if not key:
            return False
        if "{user}" in first:
            if "." in self.user or key[0] != first.replace("{user}", self.user):
                return False
        elif first not in ("*", key[0]):
            return False
        return self._fits(rest, key[1:])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """What is tried are the rules' own patterns as often as others."""
    rules = draw(rule_lists) + draw(st.sampled_from([[], [("#", True)]]))
    own = st.sampled_from([template.split(".") for template, _ in rules])
    tries = st.tuples(st.one_of(patterns, own), shapes)
    return Case(rules, draw(users), draw(sources), draw(st.lists(tries, min_size=1, max_size=4)))


class World:
    """A bridge whose webhook knows the rules of the case at hand, and a client that may send anything."""

    def __init__(self, bridge: Bridge, answers: dict[str, dict[str, Any]], runner: asyncio.Runner) -> None:
        self.bridge = bridge
        self.runner = runner
        self._answers = answers
        self._numbers = itertools.count()
        self._sender: Client | None = None
        self.accepted = 0
        self.refused = 0
        self.delivered = 0

    async def check(self, case: Case) -> None:
        """Whatever is accepted brings nothing that is forbidden."""
        login = str(next(self._numbers))
        self._answers[login] = {"user": case.user, "acl": case.acl()}
        for pattern, shape in case.tries:
            number = f"n{next(self._numbers)}"
            attacker = await self._connect(login)
            text = ".".join(pattern).replace("{user}", case.user)
            headers = {name: value.replace("{number}", number) for name, value in shape.items()}
            destination = f"/exchange/{case.exchange}/{quoted(text)}"
            await attacker.send_frame("SUBSCRIBE", {"destination": destination, "id": number, "receipt": "r"} | headers)
            answer = await attacker.receive()
            if answer.command == "RECEIPT":
                self.accepted += 1
                await self._bombard(case, text, attacker)
                await attacker.request("UNSUBSCRIBE", {"id": number} | headers)
            else:
                assert answer.message == "access_refused", answer
                self.refused += 1
            await attacker.close()

    async def _bombard(self, case: Case, text: str, attacker: Client) -> None:
        if self._sender is None:
            self._sender = await self._connect("sender")
        alphabet = {"a", "b", "c", "", case.user, f"x-{case.user}", *text.split(".")}
        keys = {".".join(key) for length in (1, 2, 3) for key in itertools.product(sorted(alphabet), repeat=length)}
        frames = [
            encode("SEND", {"destination": f"/exchange/{case.exchange}/{quoted(key)}"}, json.dumps(key))
            for key in keys
            if "%2F" not in key and len(key) < 60
        ]
        await self._sender.send_raw(b"".join(frames))
        await self._sender.alive()
        await attacker.alive()
        while attacker.pending:
            frame = attacker.pending.popleft()
            assert frame.command == "MESSAGE"
            key = json.loads(frame.body)
            self.delivered += 1
            assert case.is_allowed(key.split(".")), f"{case.user!r} got {key!r} by {text!r}"

    async def close(self) -> None:
        if self._sender is not None:
            await self._sender.close()

    async def _connect(self, login: str) -> Client:
        client = await open_client(self.bridge.url)
        await client.connect({"accept-version": "1.2", "login": login, "passcode": "x"})
        return client


def quoted(key: str) -> str:
    return key.replace("/", "%2F")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    answers: dict[str, dict[str, Any]] = {
        "sender": {"user": "sender", "acl": [{"allow": ["send"], "destinations": ["/**"]}]}
    }

    def respond(question: dict[str, Any]) -> Answer:
        return 200, answers[question["login"]]

    webhook = Webhook(respond)
    try:
        with running(Bridge(configs.memory(webhook.toml()))) as bridge, asyncio.Runner() as runner:
            made = World(bridge, answers, runner)
            yield made
            runner.run(made.close())
    finally:
        webhook.stop()


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cases())
@example(Case([("a.b", False), ("a.#", True)], "u", "chat.exchange", [(["a", "*"], {}), (["a", "#"], {}), (["a"], {})]))
@example(Case([("{user}.#", True)], "*", "amq.topic", [(["*", "#"], {}), (["*"], {}), (["#"], {})]))
@example(Case([("{user}.#", True)], "#", "chat.exchange", [(["#"], {}), (["#", "a"], {"durable": "true"})]))
@example(
    Case([("{user}.#", True)], "a.b", "chat.exchange", [(["a", "b"], {}), (["a", "b", "#"], {}), (["a", "#"], {})])
)
@example(Case([("*", True)], "u", "orders.direct", [(["*"], {}), (["#"], {}), (["a", "b"], {})]))
@example(Case([("a", True), ("b", True)], "u", "news.fanout", [(["a"], {}), (["b"], {"durable": "true"})]))
@example(Case([("#", True)], "u", "news.fanout", [(["a"], {}), (["#"], {})]))
def test_no_accepted_subscription_brings_a_forbidden_key(world: World, case: Case) -> None:
    world.runner.run(asyncio.wait_for(world.check(case), 20))


def test_the_cases_above_meant_something(world: World) -> None:
    assert world.accepted > 12
    assert world.refused > 12
    assert world.delivered > 100


# Identities.


HOSTILE = [
    "*",
    "#",
    "**",
    "victim.#",
    "victim/..",
    "*.x",
    "#.victim",
    "{user}",
    "%76ictim",
    "victim\n",
    "victim\0",
    "Victim",
    "victim ",
]
ALIASES = {f"hostile {number}": name for number, name in enumerate(HOSTILE)}
"""Names that a header of CONNECT cannot hold."""


def anybody(question: dict[str, Any]) -> Answer:
    """Everybody is who they say."""
    login = question["login"]
    return 200, {"user": ALIASES.get(login, login)}


RULES = """
[[acl]]
allow = ["subscribe", "send"]
destinations = ["/queue/{user}", "/queue/{user}.#", "/topic/own.{user}", "/app/message/{user}", "/user/**"]
users = ["*"]

[[acl]]
allow = ["send", "queue-arguments"]
destinations = ["/topic/own.*", "/queue/victim.#"]
users = ["victim"]

[[acl]]
allow = ["send", "temp-queue"]
destinations = ["/queue/rpc", "/temp-queue/**"]
users = ["*"]
"""


@pytest.fixture(scope="module")
def named() -> Iterator[Bridge]:
    """A bridge where everybody is who they say, with rules for each."""
    webhook = Webhook(anybody)
    try:
        with running(Bridge(configs.memory(webhook.toml(), RULES))) as bridge:
            yield bridge
    finally:
        webhook.stop()


def login(user: str, **more: str) -> dict[str, str]:
    return {"accept-version": "1.2", "login": user, "passcode": "x"} | more


@pytest.mark.parametrize("alias", ALIASES)
async def test_a_name_stands_for_nobody_else(named: Bridge, connect: Connect, alias: str) -> None:
    """The destinations of all others, written with their names and with the attacker's own."""
    user = ALIASES[alias]
    victim = await connect(named, login("victim"))
    await victim.subscribe("/topic/own.victim")
    await victim.subscribe("/user/queue/x", id="user")
    await victim.subscribe("/queue/victim", id="queue")
    texts = {name.replace("\0", "").replace("/", "%2F") for name in (user, "victim", "victim.x", "*", "#", "%76ictim")}
    for text, form in itertools.product(sorted(texts), ("/topic/own.{}", "/queue/{}", "/amq/queue/{}", "/topic/{}")):
        attacker = await connect(named, login(alias))
        await attacker.send_frame("SUBSCRIBE", {"destination": form.format(text), "id": "s", "receipt": "r"})
        await attacker.receive()
        await victim.send_and_wait("/topic/own.victim", "topic")
        await victim.send_and_wait("/user/victim/queue/x", "user")
        await victim.send_and_wait("/queue/victim", "queue")
        assert sorted([frame.text for frame in await victim.messages(3)]) == ["queue", "topic", "user"]
        with contextlib.suppress(ConnectionClosed):
            await attacker.alive()
        assert not any(frame.command == "MESSAGE" for frame in attacker.pending)
        attacker.abort()


async def test_what_is_another_ones_by_name(named: Bridge, connect: Connect) -> None:
    """The name of a client, and the key of a message, are the user's own: nobody can take them from another."""
    victim = await connect(named, login("victim", **{"client-id": "phone"}))
    attacker = await connect(named, login("attacker", **{"client-id": "phone"}))
    odd = await connect(named, login("hostile 10", **{"client-id": "phone"}))
    for client in (attacker, odd, victim):
        await client.alive()
    await victim.subscribe("/queue/victim")
    await attacker.send_and_wait("/queue/attacker", "x", idempotency_key="order-1")
    await victim.send_and_wait("/queue/victim", "mine", idempotency_key="order-1")
    await victim.message("mine")


async def test_answers_for_somebody_else(named: Bridge, connect: Connect) -> None:
    """RabbitMQ: GHSA-5cq3-v9jx-p3x3 and GHSA-6chv-gv3h-cvcj, replies injected by a forged or guessed address."""
    service = await connect(named, login("rpc"))
    await service.subscribe("/queue/rpc")
    victim = await connect(named, login("victim"))
    await victim.send_frame("SEND", {"destination": "/queue/rpc", "reply-to": "/temp-queue/mine"}, "question")
    asked = await service.message("question")
    address = asked.headers["reply-to"]
    name = address.removeprefix("/reply-queue/")
    for command, destination, headers in (
        ("SEND", address, {}),
        ("SEND", f"/queue/{name}", {}),
        ("SEND", f"/amq/queue/{name}", {}),
        ("SUBSCRIBE", address, {"id": "s"}),
        ("SUBSCRIBE", f"/queue/{name}", {"id": "s"}),
        ("SUBSCRIBE", f"/amq/queue/{name}", {"id": "s"}),
        ("SUBSCRIBE", "/topic/own.attacker", {"id": "s", "x-queue-name": name}),
        ("SUBSCRIBE", "/temp-queue/mine", {"id": "s"}),
    ):
        attacker = await connect(named, login("attacker"))
        await attacker.send_frame(
            command, {"destination": destination} | headers, "forged" if command == "SEND" else ""
        )
        await attacker.error()
    await victim.alive()
    assert not victim.pending


async def test_refusals_tell_nothing(named: Bridge, connect: Connect) -> None:
    """RabbitMQ: GHSA-9q2j-2hq8-22r2, existence and properties of queues and exchanges told to those who may not ask."""
    victim = await connect(named, login("victim"))
    await victim.subscribe("/queue/victim.jobs", x_message_ttl="60000")
    answers = set()
    for destination, headers in itertools.product(
        ("/queue/victim.jobs", "/queue/victim.none", "/amq/queue/victim.jobs", "/amq/queue/victim.none"),
        ({}, {"x-message-ttl": "1"}, {"exclusive": "true"}),
    ):
        for command in ("SEND", "SUBSCRIBE"):
            attacker = await connect(named, login("attacker"))
            await attacker.send_frame(command, {"destination": destination, "id": "s"} | headers)
            error = await attacker.error("access_refused")
            answers.add(error.text.replace(destination, "DESTINATION"))
    for exchange in ("chat.exchange", "none.exchange", "amq.topic", "stompbridge.user", ""):
        for command in ("SEND", "SUBSCRIBE"):
            attacker = await connect(named, login("attacker"))
            destination = f"/exchange/{exchange}/k" if exchange else "/exchange/none"
            await attacker.send_frame(command, {"destination": destination, "id": "s"})
            error = await attacker.error()
            if exchange != "stompbridge.user":
                answers.add(error.text.replace(destination, "DESTINATION"))
    assert answers == {"ACCESS_REFUSED - access to destination 'DESTINATION' refused for user 'attacker'"}


async def test_questions_that_take_long(connect: Connect) -> None:
    """Whether rules cover a wildcard is decided in bounded time, whatever the wildcard."""
    hard = ["#.a." + ".".join(["*"] * 12), "#.b." + ".".join(["*"] * 12), "*.#.*.#", "#.a.#.b.#.c.#"]
    acl = "".join(
        f'[[acl]]\n{kind} = ["subscribe"]\ndestinations = ["/topic/{template}"]\nusers = ["*"]\n'
        for kind, template in zip(("deny", "deny", "allow", "allow"), hard, strict=True)
    )
    webhook = Webhook(anybody)
    try:
        with running(Bridge(configs.memory(webhook.toml(), acl))) as bridge:
            victim = await connect(bridge, login("victim"))
            tries = [".".join(parts * 15) for parts in itertools.product("#*ab", repeat=3)][:12]
            before = cpu(bridge)
            slowest = 0.0
            for number, text in enumerate(tries):
                attacker = await connect(bridge, login(f"attacker{number}"))
                await attacker.send_frame("SUBSCRIBE", {"destination": f"/topic/{text}", "id": "s", "receipt": "r"})
                started = time.monotonic()
                await victim.alive()
                slowest = max(slowest, time.monotonic() - started)
                await attacker.receive()
                attacker.abort()
            # Some 0.1 s each on a slow machine, connection included; one that tries out combinations does not end.
            assert (cpu(bridge) - before) / len(tries) < 0.5
            assert slowest < 1
            await victim.close()
    finally:
        webhook.stop()


# Tokens.

KEY = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def token(key: Any = KEY, algorithm: str = "RS256", header: dict[str, Any] | None = None, /, **claims: Any) -> str:
    values = {"sub": "alice", "aud": "chat", "iss": "id", "exp": time.time() + 60} | claims
    return jwt.encode({name: value for name, value in values.items() if value is not ...}, key, algorithm, header)


def raw_token(header: Any, claims: Any, signature: bytes = b"") -> str:
    parts = [json.dumps(part).encode() if not isinstance(part, bytes) else part for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature))


def confused() -> str:
    """Signed with the public key as if it were a shared secret."""
    unsigned = raw_token({"alg": "HS256", "typ": "JWT"}, claims()).rpartition(".")[0]
    signature = hmac.digest(PUBLIC, unsigned.encode(), hashlib.sha256)
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "alice", "aud": "chat", "iss": "id", "exp": time.time() + 60} | more


FORGED: dict[str, Callable[[], str]] = {
    # RabbitMQ: GHSA-rrj4-g94f-rqj9, a float exp that was not looked at.
    "float exp in the past": lambda: token(exp=time.time() - 0.5),
    "float exp long past": lambda: token(exp=1.5),
    "exp as text": lambda: token(exp=str(time.time() + 60)),
    "exp as text, float": lambda: raw_token({"alg": "RS256"}, claims(exp="1e99")),
    "infinite exp": lambda: token(exp=float("inf")),
    "exp that is no number": lambda: token(exp=float("nan")),
    "exp of 1e400": lambda: signed(b'{"sub":"alice","aud":"chat","iss":"id","exp":1e400}'),
    "exp true": lambda: token(exp=True),
    "exp null": lambda: token(exp=None),
    "exp in a list": lambda: token(exp=[time.time() + 60]),
    "two exps": lambda: signed(b'{"exp":9999999999,"sub":"alice","aud":"chat","iss":"id","exp":1.5}'),
    "no exp": lambda: token(exp=...),
    "float nbf in the future": lambda: token(nbf=time.time() + 30.5),
    "alg none": lambda: raw_token({"alg": "none", "typ": "JWT"}, claims()),
    "alg None": lambda: raw_token({"alg": "None"}, claims()),
    "alg nOnE with a signature": lambda: raw_token({"alg": "nOnE"}, claims(), b"x" * 256),
    "alg empty": lambda: raw_token({"alg": ""}, claims()),
    "alg null": lambda: raw_token({"alg": None}, claims()),
    "alg missing": lambda: raw_token({"typ": "JWT"}, claims()),
    "alg a list": lambda: raw_token({"alg": ["RS256"]}, claims()),
    "signature taken away": lambda: token().rpartition(".")[0] + ".",
    "two parts": lambda: token().rpartition(".")[0],
    "another token's signature": lambda: token(sub="mallory").rpartition(".")[0] + "." + token().rpartition(".")[2],
    "public key as a secret": confused,
    "another key": lambda: token(OTHER),
    "its own key": lambda: token(
        OTHER, "RS256", {"jwk": {"kty": "RSA"}, "jku": "http://127.0.0.1:1/", "kid": "../key"}
    ),
    "critical extension": lambda: token(KEY, "RS256", {"crit": ["x"], "x": 1}),
    "no aud": lambda: token(aud=...),
    "wrong aud": lambda: token(aud="chat2"),
    "no iss": lambda: token(iss=...),
    "wrong iss": lambda: token(iss="id2"),
    "sub a number": lambda: token(sub=7),
    "sub empty": lambda: token(sub=""),
}


def signed(payload: bytes) -> str:
    """Claims as they stand here, with a right signature."""
    made: str = jwt.PyJWS().encode(payload, KEY, "RS256")
    return made


@pytest.fixture(scope="module")
def tokens() -> Iterator[Bridge]:
    """A bridge that asks for tokens."""
    auth = (
        '[auth]\nbackend = "jwt"\nfailures = 10000\n'
        '[auth.jwt]\nkey_file = "key.pem"\nalgorithms = ["RS256"]\naudience = "chat"\nissuer = "id"\ncookie = "token"'
    )
    bridge = Bridge(configs.memory(auth))
    (bridge.folder / "key.pem").write_bytes(PUBLIC)
    with running(bridge):
        yield bridge


@pytest.fixture
async def alice(tokens: Bridge, connect: Connect) -> AsyncIterator[Client]:
    """The victim: her session goes on."""
    client = await connect(tokens, {"accept-version": "1.2", "passcode": token()})
    await client.subscribe("/user/queue/x")
    yield client
    await client.send_and_wait("/user/queue/x", "mine")
    await client.message("mine")
    assert not client.pending


async def test_forged_tokens(tokens: Bridge, alice: Client, connect: Connect) -> None:
    """None gets in, wherever it is put, and the answer does not say why."""
    for name, forge in FORGED.items():
        forged = forge()
        for upgrade, headers in (
            ({}, {"passcode": forged}),
            ({}, {"authorization": f"Bearer {forged}"}),
            ({"Cookie": f"token={forged}"}, {}),
            ({"Authorization": f"Bearer {forged}"}, {}),
        ):
            attacker = await connect(tokens, connected=False, additional_headers=upgrade)
            await attacker.send_raw(encode("CONNECT", {"accept-version": "1.2"} | headers))
            error = await attacker.error("Bad CONNECT")
            assert error.text == "Access refused\n", name
            attacker.abort()


@pytest.mark.parametrize("fraction", [0.0, 0.3], ids=["int", "float"])
async def test_a_session_ends_with_its_token(
    tokens: Bridge, alice: Client, connect: Connect, name: str, fraction: float
) -> None:
    """RabbitMQ: GHSA-wmrr-4h5v-5ch7, consumers that outlive the right to consume; its change 17244, no end at all."""
    exp = int(time.time()) + 2 + (fraction or 0)
    mallory = await connect(tokens, {"accept-version": "1.2", "passcode": token(sub="mallory", exp=exp)})
    await mallory.subscribe(f"/topic/{name}", id="t")
    await mallory.subscribe(f"/queue/{name}", id="q")
    await mallory.subscribe(f"/topic/{name}", id="d", durable="true")
    await alice.send_and_wait(f"/topic/{name}", "before")
    assert [frame.text for frame in await mallory.messages(2)] == ["before", "before"]
    error = await mallory.error("Session expired", within=5)
    assert isinstance(error, Frame)
    assert exp <= time.time() < exp + 1.5
    await alice.send_and_wait(f"/topic/{name}", "after")
    await alice.send_and_wait(f"/queue/{name}", "after")
    await mallory.wait_closed()
    assert not mallory.pending
    again = await connect(tokens, connected=False)
    await again.send_raw(encode("CONNECT", {"accept-version": "1.2", "passcode": token(exp=exp)}))
    await again.error("Bad CONNECT")
