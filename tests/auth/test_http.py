from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stompbridge.auth import http
from stompbridge.auth.base import AuthRefused, AuthUnavailable, Identity
from stompbridge.auth.http import WebhookAuthenticator
from stompbridge.config import AclRule, HttpAuth

NOW = 1_800_000_000.0
UPGRADE = {"cookie": "session=1", "authorization": "Bearer x", "x-tenant": "t", "user-agent": "browser"}

Make = Callable[..., Any]


class Clock:
    """Of the wall, and monotonic."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        return NOW + self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(web: Any, clock: Clock) -> AsyncIterator[Make]:
    made: list[WebhookAuthenticator] = []

    async def one(**settings: Any) -> WebhookAuthenticator:
        webhook = WebhookAuthenticator(HttpAuth(**{"url": web.url, **settings}), clock.wall, clock.monotonic)
        made.append(webhook)
        await webhook.start()
        return webhook

    yield one
    for webhook in made:
        await asyncio.wait_for(webhook.stop(), 5)


def response(answer: Any, status: str = "200 OK", *headers: str) -> bytes:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


def says(web: Any, answer: Any, status: str = "200 OK", *headers: str) -> None:
    web.respond = lambda _body: response(answer, status, *headers)


async def test_what_the_webhook_is_told(make: Make, web: Any, ask: Any) -> None:
    says(web, {"user": "alice"})
    webhook = await make(forward_headers=("Cookie", "x-tenant", "x-absent"))
    assert await webhook.authenticate(ask("al", "sec:ret", host="chat", upgrade=UPGRADE)) == Identity("alice")
    await webhook.authenticate(ask())
    (head, body), (_, without) = web.requests
    assert head.startswith("POST /path HTTP/1.1\r\n")
    assert json.loads(body) == {
        "login": "al",
        "passcode": "sec:ret",
        "host": "chat",
        "address": "192.0.2.1",
        "headers": {"cookie": "session=1", "x-tenant": "t"},
    }
    assert json.loads(without) == {
        "login": None,
        "passcode": None,
        "host": None,
        "address": "192.0.2.1",
        "headers": {},
    }


async def test_a_whole_answer(make: Make, web: Any, ask: Any) -> None:
    rule = {"allow": ["subscribe"], "destinations": ["/topic/{user}.#"], "users": ["*"]}
    says(web, {"user": "alice", "groups": ["a", "b"], "expires_at": NOW + 9, "acl": [rule], "more": 1})
    webhook = await make()
    assert await webhook.authenticate(ask("alice", "x")) == Identity(
        "alice",
        frozenset({"a", "b"}),
        NOW + 9,
        (AclRule(allow=("subscribe",), destinations=("/topic/{user}.#",), users=("*",)),),
    )


async def test_an_answer_of_nulls_and_whole_numbers(make: Make, web: Any, ask: Any) -> None:
    says(web, {"user": "alice", "expires_at": None, "acl": None})
    webhook = await make(cache=0.0)
    assert await webhook.authenticate(ask("alice", "x")) == Identity("alice")
    own = {"allow": ["send"], "destinations": ["/queue/x"]}
    says(web, {"user": "alice", "acl": [own]})
    rules = (await webhook.authenticate(ask("alice", "x"))).rules
    assert rules == (AclRule(allow=("send",), destinations=("/queue/x",)),)
    says(web, {"user": "alice", "expires_at": int(NOW) + 9, "acl": []})
    assert await webhook.authenticate(ask("alice", "x")) == Identity("alice", expires_at=NOW + 9, rules=())


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_no(make: Make, web: Any, ask: Any, status: str) -> None:
    says(web, b"because", status)
    webhook = await make()
    with pytest.raises(AuthRefused) as info:
        await webhook.authenticate(ask("alice", "secret"))
    assert info.value.text == "Access refused for user 'alice'\n"
    assert info.value.cause == f"auth.http.url: HTTP status {status[:3]}"
    with pytest.raises(AuthRefused) as info:
        await webhook.authenticate(ask())
    assert info.value.text == "Access refused\n"
    # A no is not kept: the next time it may be a yes.
    says(web, {"user": "alice"})
    assert (await webhook.authenticate(ask("alice", "secret"))).user == "alice"


GOOD = {"user": "alice"}


@pytest.mark.parametrize(
    ("answer", "status", "problem"),
    [
        (GOOD, "201 Created", "HTTP status 201"),
        (b"", "204 No Content", "HTTP status 204"),
        (GOOD, "302 Found", "HTTP status 302"),
        (GOOD, "404 Not Found", "HTTP status 404"),
        (GOOD, "407 Proxy Authentication Required", "HTTP status 407"),
        (GOOD, "429 Too Many Requests", "HTTP status 429"),
        (GOOD, "500 Internal Server Error", "HTTP status 500"),
        (b"", "200 OK", "the answer is not as it should be"),
        (b"secret", "200 OK", "the answer is not as it should be"),
        (b"\xff", "200 OK", "the answer is not as it should be"),
        (b"[" * 5000, "200 OK", "the answer is not as it should be"),
        (b'{"user": "secret', "200 OK", "the answer is not as it should be"),
        ([], "200 OK", "the answer is not as it should be"),
        ({}, "200 OK", "the answer is not as it should be"),
        ({"user": ""}, "200 OK", "the answer is not as it should be"),
        ({"user": None}, "200 OK", "the answer is not as it should be"),
        ({"user": 7}, "200 OK", "the answer is not as it should be"),
        ({**GOOD, "groups": "secret"}, "200 OK", "the answer is not as it should be"),
        ({**GOOD, "groups": [1]}, "200 OK", "the answer is not as it should be"),
        ({**GOOD, "groups": None}, "200 OK", "the answer is not as it should be"),
        ({**GOOD, "expires_at": "tomorrow"}, "200 OK", "the answer is not as it should be"),
        ({**GOOD, "expires_at": True}, "200 OK", "the answer is not as it should be"),
        (b'{"user": "alice", "expires_at": NaN}', "200 OK", "the answer is not as it should be"),
        (b'{"user": "alice", "expires_at": 1e999}', "200 OK", "the answer is not as it should be"),
        ({**GOOD, "acl": {}}, "200 OK", "the answer is not as it should be"),
        ({**GOOD, "acl": [{"allow": ["subscribe"]}]}, "200 OK", "the answer is not as it should be"),
        ({**GOOD, "acl": [{"allow": ["fly"], "destinations": []}]}, "200 OK", "the answer is not as it should be"),
        (
            {**GOOD, "acl": [{"alow": ["subscribe"], "destinations": ["/topic/#"], "users": ["*"]}]},
            "200 OK",
            "the answer is not as it should be",
        ),
        (
            {**GOOD, "acl": [{"allow": ["subscribe"], "destinations": ["nowhere"], "users": ["*"]}]},
            "200 OK",
            "the answer is not as it should be",
        ),
        ({**GOOD, "more": "x" * http.ANSWER_MAX}, "200 OK", "the answer has more than 65536 bytes"),
    ],
)
async def test_neither_yes_nor_no(make: Make, web: Any, ask: Any, answer: Any, status: str, problem: str) -> None:
    says(web, answer, status, f"Location: {web.url}")
    webhook = await make()
    with pytest.raises(AuthUnavailable) as info:
        await webhook.authenticate(ask("alice", "passcode"))
    assert str(info.value) == f"auth.http.url: {problem}"
    assert (len(web.requests), webhook.unanswered) == (1, 1)


async def test_a_webhook_that_hangs_up(make: Make, web: Any, ask: Any) -> None:
    web.respond = lambda _body: None
    webhook = await make()
    with pytest.raises(AuthUnavailable, match=r"auth\.http\.url: no usable answer: RemoteProtocolError"):
        await webhook.authenticate(ask("alice", "secret"))


async def test_a_webhook_that_is_not_there(make: Make, web: Any, ask: Any) -> None:
    webhook = await make()
    await web.stop()
    with pytest.raises(AuthUnavailable, match=r"auth\.http\.url: no connection: "):
        await webhook.authenticate(ask("alice", "secret"))
    says(web, {"user": "alice"})
    await web.start()
    assert (await webhook.authenticate(ask("alice", "secret"))).user == "alice"


async def test_a_webhook_that_does_not_answer_in_time(make: Make, web: Any, ask: Any) -> None:
    says(web, {"user": "alice"})
    web.hold = True
    webhook = await make(timeout=0.5)
    with pytest.raises(AuthUnavailable, match=r"auth\.http\.url: no answer within 0\.5 s"):
        await webhook.authenticate(ask("alice", "secret"))
    web.release()
    assert (await webhook.authenticate(ask("alice", "secret"))).user == "alice"


async def test_a_yes_is_kept_for_a_while(make: Make, web: Any, ask: Any, clock: Clock) -> None:
    says(web, {"user": "alice"})
    webhook = await make(cache=30.0)
    for _ in range(3):
        assert (await webhook.authenticate(ask("alice", "secret", upgrade=UPGRADE))).user == "alice"
    assert (len(web.requests), webhook.asked, webhook.recalled) == (1, 1, 2)
    zeros = {"webhook_unanswered": 0, "webhook_turned_away": 0}
    assert webhook.counters() == {"webhook_requests": 1, "webhook_recalled": 2, **zeros}
    clock.now += 29.9
    await webhook.authenticate(ask("alice", "secret", upgrade=UPGRADE))
    assert len(web.requests) == 1
    clock.now += 0.1
    says(web, b"", "403 Forbidden")
    with pytest.raises(AuthRefused):
        await webhook.authenticate(ask("alice", "secret", upgrade=UPGRADE))


@pytest.mark.parametrize(
    "change",
    [
        {"login": "bob"},
        {"login": None},
        {"passcode": "other"},
        {"passcode": None},
        {"host": "elsewhere"},
        {"address": "192.0.2.2"},
        {"upgrade": {**UPGRADE, "cookie": "session=2"}},
        {"upgrade": {}},
    ],
)
async def test_a_yes_is_for_the_same_question(make: Make, web: Any, ask: Any, change: dict[str, Any]) -> None:
    says(web, {"user": "alice"})
    webhook = await make()
    asked = {"login": "alice", "passcode": "secret", "host": "chat", "upgrade": UPGRADE}
    await webhook.authenticate(ask(**asked))
    says(web, b"", "403 Forbidden")
    with pytest.raises(AuthRefused):
        await webhook.authenticate(ask(**{**asked, **change}))
    # What the webhook is not told makes no difference.
    upgrade = {**UPGRADE, "user-agent": "another"}
    assert (await webhook.authenticate(ask(**{**asked, "upgrade": upgrade, "headers": {"x": "y"}}))).user == "alice"


async def test_a_yes_is_kept_no_longer_than_it_is_valid(make: Make, web: Any, ask: Any, clock: Clock) -> None:
    says(web, {"user": "alice", "expires_at": NOW + 5})
    webhook = await make(cache=30.0)
    await webhook.authenticate(ask("alice", "x"))
    clock.now += 4.9
    await webhook.authenticate(ask("alice", "x"))
    assert len(web.requests) == 1
    clock.now += 0.1
    with pytest.raises(AuthRefused, match="the answer has expired"):
        await webhook.authenticate(ask("alice", "x"))
    assert len(web.requests) == 2


async def test_nothing_is_kept_without_a_cache(make: Make, web: Any, ask: Any) -> None:
    says(web, {"user": "alice"})
    webhook = await make(cache=0.0)
    for _ in range(3):
        await webhook.authenticate(ask("alice", "x"))
    assert len(web.requests) == 3


async def test_reload_forgets(make: Make, web: Any, ask: Any) -> None:
    says(web, {"user": "alice"})
    webhook = await make()
    await webhook.authenticate(ask("alice", "x"))
    webhook.reload()
    await webhook.authenticate(ask("alice", "x"))
    assert len(web.requests) == 2


async def test_little_is_kept(monkeypatch: pytest.MonkeyPatch, make: Make, web: Any, ask: Any) -> None:
    monkeypatch.setattr(http, "REMEMBERED", 2)
    says(web, {"user": "alice"})
    webhook = await make()
    for number in range(5):
        await webhook.authenticate(ask(f"user-{number}", "secret"))
    assert len(webhook._answers) == 2
    assert b"secret" not in repr(webhook._answers._values).encode()


async def test_the_same_question_is_asked_once_at_a_time(make: Make, web: Any, ask: Any) -> None:
    says(web, {"user": "alice"})
    web.hold = True
    webhook = await make(cache=0.0)
    tasks = [asyncio.create_task(webhook.authenticate(ask("alice", "x"))) for _ in range(20)]
    await asyncio.wait_for(web.asked.wait(), 5)
    web.release()
    assert {identity.user for identity in await asyncio.gather(*tasks)} == {"alice"}
    assert len(web.requests) == 1


async def test_few_questions_at_a_time(monkeypatch: pytest.MonkeyPatch, make: Make, web: Any, ask: Any) -> None:
    monkeypatch.setattr(http, "AT_A_TIME", 2)
    monkeypatch.setattr(http, "WAITING", 3)
    says(web, {"user": "alice"})
    web.hold = True
    webhook = await make()
    tasks = [asyncio.create_task(webhook.authenticate(ask(f"user-{number}", "x"))) for number in range(9)]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=5)
    assert all(isinstance(task.exception(), AuthUnavailable) for task in done)
    assert (len(done), webhook.turned_away) == (4, 4)
    await asyncio.wait_for(web.asked.wait(), 5)
    assert web.connections <= 2
    web.release()
    assert len(await asyncio.wait_for(asyncio.gather(*waiting), 5)) == 5
    assert web.connections == 2


async def test_connections_are_used_again(make: Make, web: Any, ask: Any) -> None:
    says(web, {"user": "alice"})
    webhook = await make(cache=0.0)
    for _ in range(5):
        await webhook.authenticate(ask("alice", "x"))
    assert (web.connections, len(web.requests)) == (1, 5)


async def test_stopping_while_it_is_asked(make: Make, web: Any, ask: Any) -> None:
    web.hold = True
    webhook = await make()
    task = asyncio.create_task(webhook.authenticate(ask("alice", "x")))
    await asyncio.wait_for(web.asked.wait(), 5)
    await asyncio.wait_for(webhook.stop(), 5)
    with pytest.raises(AuthUnavailable, match="stopping"):
        await task


async def test_stopping_before_the_start() -> None:
    await WebhookAuthenticator(HttpAuth(url="http://127.0.0.1:9/")).stop()
