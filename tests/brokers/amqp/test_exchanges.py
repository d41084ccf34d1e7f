"""What is remembered of exchanges, and whom a refusal is about."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from stompbridge.brokers.amqp.exchanges import KNOWN, REFUSAL_AGE, Exchanges, blamed, named_in
from stompbridge.brokers.base import Failure, Message

VHOST = "in vhost '/'"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Held:
    message: Message


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def exchanges(clock: Clock) -> Exchanges:
    return Exchanges(clock)


def refusal(exchanges: Exchanges, exchange: str, key: str = "k") -> Failure | None:
    return exchanges.refusal(Message(exchange, key, b""))


def test_known(exchanges: Exchanges) -> None:
    assert exchanges.known("")
    assert exchanges.known("amq.topic")
    assert not exchanges.known("amq.other")
    exchanges.declared(["mine"])
    exchanges.found("theirs")
    assert exchanges.known("mine")
    assert exchanges.known("theirs")


def test_not_found(exchanges: Exchanges, clock: Clock) -> None:
    problem = Failure("not_found", "x")
    exchanges.declared(["mine"])
    exchanges.found("theirs")
    for name in ("mine", "theirs", "amq.topic"):
        exchanges.refused(name, None, problem)
        assert refusal(exchanges, name) == problem
    assert not exchanges.known("mine")
    assert not exchanges.known("theirs")
    assert exchanges.known("amq.topic")
    clock.now += REFUSAL_AGE
    assert refusal(exchanges, "mine") is None
    exchanges.sweep(clock.now)
    assert exchanges._refusals == {}


def test_access_refused_for_one_key(exchanges: Exchanges, clock: Clock) -> None:
    problem = Failure("access_refused", "x")
    exchanges.declared(["mine"])
    exchanges.refused("mine", "secret", problem)
    assert exchanges.known("mine")
    assert refusal(exchanges, "mine", "secret") == problem
    assert refusal(exchanges, "mine", "open") is None
    exchanges.sweep(clock.now)
    assert refusal(exchanges, "mine", "secret") == problem


def test_an_outage_is_no_refusal(exchanges: Exchanges) -> None:
    exchanges.refused("e", None, Failure("broker_unavailable", "x", fatal=False))
    assert refusal(exchanges, "e") is None


def test_memory_is_bounded(exchanges: Exchanges) -> None:
    exchanges.declared(["mine"])
    for number in range(KNOWN + 10):
        exchanges.found(f"found.{number}")
        exchanges.refused(f"refused.{number}", None, Failure("not_found", "x"))
    assert len(exchanges._found) == len(exchanges._refusals) == KNOWN
    assert exchanges.known("mine")
    assert not exchanges.known("found.0")
    assert exchanges.known(f"found.{KNOWN + 9}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"NOT_FOUND - no exchange 'x' {VHOST}", ("x", None)),
        (f"ACCESS_REFUSED - access to exchange 'x' {VHOST} refused for user 'u'", ("x", None)),
        (f"ACCESS_REFUSED - write access to exchange 'x' {VHOST} refused for user 'u'", ("x", None)),
        (f"ACCESS_REFUSED - cannot publish to internal exchange 'x' {VHOST}", ("x", None)),
        (f"ACCESS_REFUSED - access to topic 'k' in exchange 'x' {VHOST} refused for user 'u'", ("x", "k")),
        ("PRECONDITION_FAILED - invalid expiration 'x'", None),
        (f"NOT_FOUND - no queue 'x' {VHOST}", None),
        ("NOT_FOUND - no exchange 'a name that was cut of...", None),
        # Names that were made to look like somebody else's refusal.
        (f"NOT_FOUND - no exchange 'x' {VHOST} no exchange 'chat' {VHOST}", (f"x' {VHOST} no exchange 'chat", None)),
        (
            f"NOT_FOUND - no exchange 'ACCESS_REFUSED - access to topic 'k' in exchange 'chat' {VHOST}",
            ("ACCESS_REFUSED - access to topic 'k' in exchange 'chat", None),
        ),
        (f"NOT_FOUND - no exchange 'two\nlines' {VHOST}", ("two\nlines", None)),
    ],
)
def test_named_in(text: str, named: tuple[str, str | None] | None) -> None:
    assert named_in(text) == named


def test_blamed() -> None:
    held = [Held(Message(exchange, key, b"")) for exchange, key in [("x", "k"), ("x", "j"), ("y", "k")]]
    assert blamed(f"NOT_FOUND - no exchange 'x' {VHOST}", held) == held[:2]
    assert blamed(f"ACCESS_REFUSED - access to topic 'k' in exchange 'x' {VHOST} refused", held) == held[:1]
    assert blamed("INTERNAL_ERROR", held) == []
