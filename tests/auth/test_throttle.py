from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from stompbridge.auth import throttle
from stompbridge.auth.base import AuthRefused, AuthUnavailable, Credentials, Identity, access_refused
from stompbridge.auth.throttle import Throttled, network


class Backend:
    """Knows one password, and answers when ``gate`` lets it."""

    def __init__(self) -> None:
        self.asked: list[Credentials] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.most = 0
        self.expected = 1
        self.full = asyncio.Event()
        self.down = False
        self.events: list[str] = []

    async def start(self) -> None:
        self.events.append("start")

    async def stop(self) -> None:
        self.events.append("stop")

    def reload(self) -> None:
        self.events.append("reload")

    def counters(self) -> dict[str, int]:
        return {"asked": len(self.asked)}

    async def until_running(self, number: int) -> None:
        self.expected = number
        await asyncio.wait_for(self.full.wait(), 5)

    async def authenticate(self, credentials: Credentials) -> Identity:
        self.asked.append(credentials)
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == self.expected:
            self.full.set()
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if self.down:
            raise AuthUnavailable("down")
        if credentials.passcode != "right":
            raise access_refused(credentials.login, "wrong password")
        return Identity(credentials.login or "nobody")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def backend() -> Backend:
    return Backend()


@pytest.fixture
def guarded(backend: Backend, clock: Clock) -> Throttled:
    return Throttled(backend, 3, 60.0, clock)


async def refused(guarded: Throttled, credentials: Credentials) -> AuthRefused:
    with pytest.raises(AuthRefused) as info:
        await guarded.authenticate(credentials)
    return info.value


async def test_an_address_is_refused_unseen(guarded: Throttled, backend: Backend, clock: Clock, ask: Any) -> None:
    for number in range(3):
        assert (await refused(guarded, ask(f"user-{number}", "wrong"))).cause == "wrong password"
        clock.now += 10
    unseen = await refused(guarded, ask("alice", "right"))
    assert unseen.text == "Access refused for user 'alice'\n"
    assert unseen.cause == "refused unseen: too many refusals of this address"
    assert (len(backend.asked), guarded.throttle.refused_addresses, guarded.throttle.refused_logins) == (3, 1, 0)
    assert (await guarded.authenticate(ask("alice", "right", address="192.0.2.2"))).user == "alice"
    clock.now += 29.9
    await refused(guarded, ask("alice", "right"))
    clock.now += 0.1
    assert (await guarded.authenticate(ask("alice", "right"))).user == "alice"


async def test_a_login_is_refused_unseen(guarded: Throttled, backend: Backend, ask: Any) -> None:
    for number in range(3):
        await refused(guarded, ask("alice", "wrong", address=f"192.0.2.{number}"))
    unseen = await refused(guarded, ask("alice", "right", address="192.0.2.9"))
    assert unseen.text == (await refused(guarded, ask("alice", "wrong", address="192.0.2.8"))).text
    assert unseen.cause == "refused unseen: too many refusals of this login"
    assert (len(backend.asked), guarded.throttle.refused_logins, guarded.throttle.refused_addresses) == (3, 2, 0)
    # What was refused unseen is held against nobody: the address may go on.
    for _ in range(9):
        await refused(guarded, ask("alice", "right", address="192.0.2.9"))
    assert (await guarded.authenticate(ask("bob", "right", address="192.0.2.9"))).user == "bob"


async def test_a_success_clears_the_login_alone(guarded: Throttled, ask: Any) -> None:
    await refused(guarded, ask("alice", "wrong"))
    await refused(guarded, ask("alice", "wrong"))
    await guarded.authenticate(ask("alice", "right"))
    await refused(guarded, ask("alice", "wrong", address="192.0.2.2"))
    await guarded.authenticate(ask("alice", "right", address="192.0.2.2"))
    await refused(guarded, ask("alice", "wrong"))
    assert "this address" in (await refused(guarded, ask("alice", "right"))).cause


async def test_an_authenticator_out_of_reach_refuses_nobody(guarded: Throttled, backend: Backend, ask: Any) -> None:
    backend.down = True
    for _ in range(9):
        with pytest.raises(AuthUnavailable):
            await guarded.authenticate(ask("alice", "wrong"))
    backend.down = False
    assert (await guarded.authenticate(ask("alice", "right"))).user == "alice"


async def test_without_a_login_the_address_counts(guarded: Throttled, ask: Any) -> None:
    for _ in range(3):
        assert (await refused(guarded, ask())).text == "Access refused\n"
    assert "this address" in (await refused(guarded, ask())).cause


async def test_a_login_that_proves_nothing_is_not_counted(backend: Backend, clock: Clock, ask: Any) -> None:
    guarded = Throttled(backend, 1, 60.0, clock, by_login=False)
    await refused(guarded, ask("alice", "wrong"))
    assert (await guarded.authenticate(ask("alice", "right", address="192.0.2.2"))).user == "alice"


async def test_guesses_at_the_same_time_are_no_more(guarded: Throttled, backend: Backend, ask: Any) -> None:
    backend.gate.clear()
    tasks = [asyncio.create_task(guarded.authenticate(ask("alice", f"{number}"))) for number in range(50)]
    await backend.until_running(3)
    backend.gate.set()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert all(isinstance(outcome, AuthRefused) for outcome in outcomes)
    assert len(backend.asked) == 3
    assert guarded.throttle.refused_addresses == 47
    assert guarded.counters() == {"throttled_addresses": 47, "throttled_logins": 0, "asked": 3}


async def test_a_storm_of_honest_clients_gets_in(guarded: Throttled, backend: Backend, ask: Any) -> None:
    backend.gate.clear()
    tasks = [asyncio.create_task(guarded.authenticate(ask("alice", "right"))) for _ in range(50)]
    await backend.until_running(3)
    # One gives up while it waits.
    tasks[20].cancel()
    backend.gate.set()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Identity)] == [outcomes[20]]
    assert isinstance(outcomes[20], asyncio.CancelledError)
    assert (len(backend.asked), backend.most) == (49, 3)
    assert len(guarded.throttle._addresses) == len(guarded.throttle._logins) == 0


async def test_a_turn_that_comes_too_late_goes_to_the_next(backend: Backend, clock: Clock, ask: Any) -> None:
    guarded = Throttled(backend, 1, 60.0, clock)
    backend.gate.clear()
    tasks = [asyncio.create_task(guarded.authenticate(ask(f"user-{number}", "right"))) for number in range(3)]
    await backend.until_running(1)
    backend.gate.set()
    # After the first has ended: the second has its turn then, and has not noticed yet.
    asyncio.get_running_loop().call_soon(tasks[1].cancel)
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [getattr(outcome, "user", None) for outcome in outcomes] == ["user-0", None, "user-2"]
    assert len(backend.asked) == 2
    assert len(guarded.throttle._addresses) == 0


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch, backend: Backend, clock: Clock, ask: Any) -> None:
    monkeypatch.setattr(throttle, "PATIENCE", 0.01)
    guarded = Throttled(backend, 1, 60.0, clock)
    backend.gate.clear()
    first = asyncio.create_task(guarded.authenticate(ask("alice", "right")))
    await backend.until_running(1)
    with pytest.raises(AuthUnavailable, match="too many attempts"):
        await guarded.authenticate(ask("alice", "right"))
    backend.gate.set()
    assert (await first).user == "alice"
    assert (await guarded.authenticate(ask("alice", "right"))).user == "alice"


async def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch, guarded: Throttled, ask: Any) -> None:
    monkeypatch.setattr(throttle, "TABLE_SIZE", 4)
    for number in range(20):
        await refused(guarded, ask(f"user-{number}", "wrong", address=f"192.0.2.{number}"))
    assert len(guarded.throttle._addresses) == len(guarded.throttle._logins) == 4


async def test_an_attempt_outlives_its_place_in_the_table(
    monkeypatch: pytest.MonkeyPatch, guarded: Throttled, backend: Backend, ask: Any
) -> None:
    monkeypatch.setattr(throttle, "TABLE_SIZE", 1)
    backend.gate.clear()
    credentials = ask("alice", "right")
    tasks = [
        asyncio.create_task(guarded.authenticate(replace(credentials, login=f"user-{n}", address=f"192.0.2.{n}")))
        for n in range(3)
    ]
    await backend.until_running(3)
    backend.gate.set()
    assert [identity.user for identity in await asyncio.gather(*tasks)] == ["user-0", "user-1", "user-2"]
    assert len(guarded.throttle._addresses) == 0


async def test_the_rest_is_passed_on(guarded: Throttled, backend: Backend) -> None:
    await guarded.start()
    guarded.reload()
    await guarded.stop()
    assert backend.events == ["start", "reload", "stop"]


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "20010db800000000/64"),
        ("2001:db8::ffff:1:2:3", "20010db800000000/64"),
        ("2001:db8:0:1::1", "20010db800000001/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80000000000000/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_what_counts_as_one_address(address: str, counted: str) -> None:
    assert network(address) == counted
