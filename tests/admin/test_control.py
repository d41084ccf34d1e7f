from __future__ import annotations

import pytest

from stompbridge.admin import control
from stompbridge.admin.control import FAILURES, WINDOW, Access
from stompbridge.admin.server import Refusal, Request
from stompbridge.config import Admin

TOKEN = "0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def access(clock: Clock | None = None, **settings: object) -> Access:
    return Access(Admin(**{"token": TOKEN, **settings}), clock or Clock())  # type: ignore[arg-type]


def request(address: str = "127.0.0.1", **headers: str) -> Request:
    return Request("GET", "/", "", headers, b"", address)


def status_of(call: object, *arguments: object) -> int:
    with pytest.raises(Refusal) as refused:
        call(*arguments)  # type: ignore[operator]
    return refused.value.answer.status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8081",
        "10.1.2.3:8081",
        "[::1]",
        "[::1]:8081",
        "[fe80::1%25eth0]:8081",
        "localhost",
        "LocalHost:8081",
        "localhost.:8081",
        "admin.example",
        "ADMIN.example:443",
        "admin.example.",
        "bind.example:8081",
    ],
)
def test_hosts_that_are_its_own(host: str) -> None:
    access(host="bind.example", hosts=("Admin.example",)).check_site(request(host=host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8081",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "admin.example.evil.example",
        "xadmin.example",
        "127.0.0.1@evil.example",
        "0x7f000001",
        "2130706433",
        "",
        "[",
        "[::1",
        ":8081",
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    assert status_of(access(hosts=("admin.example",)).check_site, request(host=host)) == 421


def test_without_host() -> None:
    access().check_site(request())
    assert status_of(access().check_site, request(origin="http://127.0.0.1")) == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8081", "https://127.0.0.1:8081", "HTTP://127.0.0.1:8081"])
def test_its_own_origin(origin: str) -> None:
    access().check_site(request(host="127.0.0.1:8081", origin=origin))


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://127.0.0.1",
        "http://127.0.0.1:8080",
        "http://localhost:8081",
        "https://evil.example",
        "http://evil.example/127.0.0.1:8081",
        "http://[",
    ],
)
def test_other_origins(origin: str) -> None:
    assert status_of(access().check_site, request(host="127.0.0.1:8081", origin=origin)) == 403


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_the_token(given: str) -> None:
    guarded = access()
    guarded.check_control(request(authorization=given))
    assert guarded.may_control(request(authorization=given))
    assert not guarded.failures


@pytest.mark.parametrize("given", ["", "Bearer", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü", "Bearer \0"])
def test_another_token(given: str) -> None:
    guarded = access()
    with pytest.raises(Refusal) as refused:
        guarded.check_control(request(authorization=given))
    assert refused.value.answer.status == 401
    assert refused.value.answer.headers == (("WWW-Authenticate", "Bearer"),)
    assert guarded.failures == 1


def test_no_token_given() -> None:
    guarded = access()
    assert status_of(guarded.check_control, request()) == 401
    assert not guarded.may_control(request())
    # Nothing was tried.
    assert [status_of(guarded.check_control, request()) for _ in range(20)] == [401] * 20
    assert guarded.failures == 21


def test_no_token_configured() -> None:
    guarded = access(token="")
    assert not guarded.token_configured
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": f"Bearer {TOKEN}"}):
        assert status_of(guarded.check_control, request(**headers)) == 403
        assert not guarded.may_control(request(**headers))


def test_wrong_tokens_are_looked_at_only_so_often() -> None:
    clock = Clock()
    guarded = access(clock)
    wrong, right = request(authorization="Bearer wrong"), request(authorization=f"Bearer {TOKEN}")
    for _ in range(FAILURES):
        guarded.check_control(right)
        assert not guarded.may_control(wrong)
    for each in (wrong, right):
        with pytest.raises(Refusal) as refused:
            guarded.may_control(each)
        assert refused.value.answer.status == 429
        assert refused.value.answer.headers == (("Retry-After", "60"),)
    assert guarded.failures == FAILURES
    # Who comes from elsewhere is not kept out.
    guarded.check_control(request("192.0.2.1", authorization=f"Bearer {TOKEN}"))
    clock.now += WINDOW - 0.1
    assert status_of(guarded.may_control, right) == 429
    clock.now += 0.2
    guarded.check_control(right)


def test_addresses_that_failed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ADDRESSES", 3)
    guarded = access()
    for number in range(10):
        guarded.may_control(request(f"192.0.2.{number}", authorization="Bearer wrong"))
    assert list(guarded._tries) == ["192.0.2.7", "192.0.2.8", "192.0.2.9"]


def test_readers_need_the_token_where_others_reach_the_listener() -> None:
    access().check_reader(request())
    access(host="0.0.0.0", token="").check_reader(request())
    guarded = access(host="0.0.0.0")
    assert status_of(guarded.check_reader, request()) == 401
    guarded.check_reader(request(authorization=f"Bearer {TOKEN}"))
