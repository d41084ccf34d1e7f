"""The links of the clients' logins, over brokers that do as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stompbridge import upstream
from stompbridge.auth.base import AuthRefused, AuthUnavailable, Identity
from stompbridge.brokers.base import BrokerListener, LoginRefused, Message, Unreachable
from stompbridge.config import Auth
from stompbridge.upstream import Lease, Upstreams

LIMIT = 5.0


class FakeBroker:
    """One login's broker."""

    def __init__(self, site: Site, login: str, passcode: str, virtual_host: str, on_refused: Any) -> None:
        self.site = site
        self.name = (login, passcode, virtual_host)
        self.on_refused: Callable[[LoginRefused], None] = on_refused
        self.listener: BrokerListener | None = None
        self.up = False
        self.verified = 0
        self.stopped = 0

    async def open(self, listener: BrokerListener) -> None:
        self.listener = listener
        await self.site.answer(self)
        self.up = True
        listener.on_broker_up()

    async def verify(self) -> None:
        self.verified += 1
        await self.site.answer(self)

    async def stop(self) -> None:
        self.up = False
        self.stopped += 1

    def counters(self) -> dict[str, int]:
        return {"published": 2 + self.stopped}

    def gauges(self) -> dict[str, int]:
        return {"held": 1}


class FakeRouter:
    """A router, and its hub."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.hub = self
        self.swept = 0
        self.messages: list[Message] = []

    def sweep(self, now: float) -> None:
        self.swept += 1

    def counters(self) -> dict[str, int]:
        return {"mailbox_suppressed": 10}

    def on_mailbox_messages(self, exchange: str, messages: list[Message]) -> None:
        self.messages += messages


class Site:
    """What the brokers answer: whether a passcode is right, and when."""

    def __init__(self) -> None:
        self.brokers: list[FakeBroker] = []
        self.passcodes = {"s", "t"}
        self.problem: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.now = 1000.0
        self.waiting = 0

    async def answer(self, broker: FakeBroker) -> None:
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        if self.problem is not None:
            raise self.problem
        if broker.name[1] not in self.passcodes:
            raise LoginRefused("ACCESS_REFUSED - Login was refused")

    def make_broker(self, *call: Any) -> Any:
        self.brokers.append(FakeBroker(self, *call))
        return self.brokers[-1]

    async def waits(self, count: int) -> None:
        async with asyncio.timeout(LIMIT):
            while self.waiting < count:  # noqa: ASYNC110
                await asyncio.sleep(0)


@pytest.fixture
async def site() -> Site:
    return Site()


@pytest.fixture
async def make(site: Site) -> AsyncIterator[Callable[..., Upstreams]]:
    made: list[Upstreams] = []

    def build(timeout: float = LIMIT, **auth: Any) -> Upstreams:
        router: Any = FakeRouter
        made.append(Upstreams(Auth(**auth), timeout, site.make_broker, router, lambda: site.now))
        return made[-1]

    yield build
    for upstreams in made:
        await upstreams.stop()
    assert all(broker.stopped == 1 for broker in site.brokers)


@pytest.fixture
def upstreams(make: Callable[..., Upstreams]) -> Upstreams:
    return make()


def who(login: str = "ann", passcode: str = "s", virtual_host: str = "/") -> Identity:
    return Identity(login, virtual_host=virtual_host, passcode=passcode)


async def acquire(upstreams: Upstreams, *name: str, revoked: list[str] | None = None) -> Lease:
    return await upstreams.acquire(who(*name), [].append if revoked is None else revoked.append)


async def test_sessions_of_a_login_share_a_link(upstreams: Upstreams, site: Site) -> None:
    await upstreams.check("ann", "s", "/")
    one, two = await acquire(upstreams), await acquire(upstreams)
    assert one.router is two.router
    assert len(site.brokers) == len(upstreams) == upstreams.opened == 1


async def test_anything_else_is_another_link(upstreams: Upstreams, site: Site) -> None:
    """Even another passcode: it may be a token that grants something else."""
    names = [("ann", "s", "/"), ("ann", "t", "/"), ("ann", "s", "v"), ("bob", "s", "/")]
    for name in names:
        await acquire(upstreams, *name)
    assert [broker.name for broker in site.brokers] == names
    assert len(upstreams) == 4


async def test_those_who_come_together_share_the_attempt(upstreams: Upstreams, site: Site) -> None:
    site.open.clear()
    attempts = [asyncio.create_task(acquire(upstreams)) for _ in range(3)]
    await site.waits(1)
    # One who gives up does not spoil it for the others.
    attempts[0].cancel()
    site.open.set()
    first, *others = await asyncio.gather(*attempts, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert len({id(lease.router) for lease in others if isinstance(lease, Lease)}) == 1
    assert len(site.brokers) == 1


async def test_all_who_waited_may_have_given_up(upstreams: Upstreams, site: Site) -> None:
    site.open.clear()
    site.passcodes.clear()
    attempt = asyncio.create_task(acquire(upstreams))
    await site.waits(1)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    site.open.set()
    async with asyncio.timeout(LIMIT):
        while not site.brokers[0].stopped:  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (LoginRefused("broker's text"), "Access refused for user 'ann'\n"),
        (LoginRefused("broker's text", virtual_host=True), "Virtual host 'v' access denied"),
    ],
)
async def test_who_is_not_let_in(upstreams: Upstreams, site: Site, refused: LoginRefused, text: str) -> None:
    site.problem = refused
    with pytest.raises(AuthRefused) as error:
        await acquire(upstreams, "ann", "s", "v")
    assert (error.value.text, error.value.cause) == (text, "broker's text")
    assert (upstreams.refused, len(upstreams), site.brokers[0].stopped) == (1, 0, 1)


async def test_nobody_answers(make: Callable[..., Upstreams], site: Site) -> None:
    upstreams = make(timeout=0.02)
    site.problem = Unreachable("connection refused")
    with pytest.raises(AuthUnavailable, match="connection refused"):
        await acquire(upstreams)
    site.open.clear()
    with pytest.raises(AuthUnavailable, match=r"within 0\.02 s"):
        await acquire(upstreams)
    await asyncio.sleep(0.03)
    site.problem = None
    site.open.set()
    await acquire(upstreams)


async def test_an_attempt_that_takes_too_long_ends(make: Callable[..., Upstreams], site: Site) -> None:
    """Though there is nobody left who waits for it."""
    upstreams = make(timeout=0.02)
    site.open.clear()
    with pytest.raises(AuthUnavailable):
        await acquire(upstreams)
    async with asyncio.timeout(LIMIT):
        while not site.brokers[0].stopped:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_no_more_than_so_many_attempts_at_a_time(upstreams: Upstreams, site: Site) -> None:
    site.open.clear()
    attempts = [asyncio.create_task(acquire(upstreams, f"u{number}")) for number in range(upstream.OPENING + 5)]
    await site.waits(upstream.OPENING)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(site.brokers) == upstream.OPENING
    site.open.set()
    await asyncio.gather(*attempts)
    assert len(upstreams) == upstream.OPENING + 5


async def test_an_identity_from_elsewhere(upstreams: Upstreams) -> None:
    for identity in (Identity("ann"), Identity("ann", virtual_host="/"), Identity("ann", passcode="s")):
        with pytest.raises(AuthUnavailable):
            await upstreams.acquire(identity, [].append)


async def test_a_link_outlives_its_last_session_for_a_while(make: Callable[..., Upstreams], site: Site) -> None:
    upstreams = make(link_linger=30.0)
    one, two = await acquire(upstreams), await acquire(upstreams)
    one.release()
    one.release()
    site.now += 100
    upstreams.sweep(site.now)
    assert len(upstreams) == 1
    two.release()
    site.now += 30
    upstreams.sweep(site.now)
    three = await acquire(upstreams)
    three.release()
    site.now += 30.1
    upstreams.sweep(site.now)
    assert len(upstreams) == 0
    await acquire(upstreams)
    assert len(site.brokers) == 2


async def test_what_is_counted_outlives_its_link(make: Callable[..., Upstreams], site: Site) -> None:
    upstreams = make(link_linger=30.0)
    for login in ("ann", "bob"):
        (await acquire(upstreams, login)).release()
    assert upstreams.counters() == {"published": 4, "mailbox_suppressed": 20}
    assert upstreams.gauges() == {"held": 2}
    site.now += 31
    upstreams.sweep(site.now)
    assert upstreams.gauges() == {}
    assert upstreams.counters()["mailbox_suppressed"] == 20
    await upstreams.stop()
    # What is published and confirmed while a link ends is counted, too.
    assert upstreams.counters() == {"published": 6, "mailbox_suppressed": 20}


async def test_a_link_waits_for_the_client_that_opened_it(make: Callable[..., Upstreams], site: Site) -> None:
    upstreams = make(link_linger=0.0)
    await upstreams.check("ann", "s", "/")
    site.now += 0.5
    upstreams.sweep(site.now)
    await acquire(upstreams)
    assert len(site.brokers) == 1


async def test_histories_are_swept(upstreams: Upstreams, site: Site) -> None:
    lease: Any = await acquire(upstreams)
    for _ in range(5):
        upstreams.sweep(site.now)
        site.now += 20
    assert lease.router.swept == 2


async def test_messages_go_to_the_links_own_hub(upstreams: Upstreams, site: Site) -> None:
    lease: Any = await acquire(upstreams)
    listener = site.brokers[0].listener
    assert listener is not None
    message = Message("e", "k", b"x")
    listener.on_broker_down("gone")
    listener.on_broker_up()
    listener.on_mailbox_messages("e", (message,))
    assert lease.router.messages == [message]


async def test_the_login_is_not_let_in_again(upstreams: Upstreams, site: Site) -> None:
    """Every session learns of it, though one of them fails over it."""
    revoked: list[str] = []

    def broken(text: str) -> None:
        raise RuntimeError(text)

    await upstreams.acquire(who(), broken)
    await acquire(upstreams, revoked=revoked)
    (await acquire(upstreams, revoked=revoked)).release()
    await acquire(upstreams, "bob", revoked=revoked)
    site.brokers[0].on_refused(LoginRefused("no"))
    site.brokers[0].on_refused(LoginRefused("no"))
    assert revoked == ["Access refused for user 'ann'\n"]
    assert (upstreams.revoked, len(upstreams)) == (1, 1)
    await acquire(upstreams)
    assert len(site.brokers) == 3


async def test_a_link_that_ends_as_it_begins(upstreams: Upstreams, site: Site) -> None:
    site.open.clear()
    attempt = asyncio.create_task(acquire(upstreams))
    await site.waits(1)
    broker = site.brokers[0]
    stand = broker.listener
    assert stand is not None
    site.open.set()
    # In the turn after the attempt's, and before that of the one who waits.
    asyncio.get_running_loop().call_soon(
        lambda: asyncio.get_running_loop().call_soon(broker.on_refused, LoginRefused("no"))
    )
    with pytest.raises(AuthUnavailable, match="ended"):
        await attempt
    assert len(upstreams) == 0


async def test_as_many_links_as_there_may_be(make: Callable[..., Upstreams], site: Site) -> None:
    upstreams = make(max_links=2)
    one, two = await acquire(upstreams, "a"), await acquire(upstreams, "b")
    with pytest.raises(AuthUnavailable) as error:
        await acquire(upstreams, "c")
    assert error.value.text == "Connection refused: connection limit reached\n"
    assert "max_links = 2" in str(error.value)
    assert (upstreams.overflowed, len(upstreams), site.brokers[2].stopped) == (1, 2, 1)
    two.release()
    site.now += 1
    one.release()
    await acquire(upstreams, "c")
    assert [broker.name[0] for broker in site.brokers if not broker.stopped] == ["a", "c"]


# Asking anew


async def aged(upstreams: Upstreams, site: Site) -> Lease:
    """A link of which RabbitMQ has not said for a while that its passcode is right."""
    lease = await acquire(upstreams)
    site.now += upstream.VERIFY_AFTER
    return lease


async def test_a_passcode_is_asked_about_again(upstreams: Upstreams, site: Site) -> None:
    await aged(upstreams, site)
    site.open.clear()
    attempts = [asyncio.create_task(acquire(upstreams)) for _ in range(3)]
    await site.waits(1)
    site.open.set()
    await asyncio.gather(*attempts)
    await acquire(upstreams)
    assert (len(site.brokers), site.brokers[0].verified) == (1, 1)


async def test_a_passcode_that_is_right_no_longer(upstreams: Upstreams, site: Site) -> None:
    """Nobody gets in with it, those who are in stay, and the link goes with the last of them."""
    lease = await aged(upstreams, site)
    site.passcodes.discard("s")
    for _ in range(2):
        with pytest.raises(AuthRefused):
            await acquire(upstreams)
    assert (len(upstreams), site.brokers[0].stopped) == (1, 0)
    site.passcodes.add("s")
    again = await acquire(upstreams)
    assert again.router is not lease.router
    lease.release()
    site.now += 31
    upstreams.sweep(site.now)
    assert (len(upstreams), site.brokers[0].stopped) == (1, 0)
    await asyncio.sleep(0)
    assert site.brokers[0].stopped == 1
    assert (await acquire(upstreams)).router is again.router


async def test_what_was_true_is_believed_while_nobody_answers(make: Callable[..., Upstreams], site: Site) -> None:
    upstreams = make(timeout=0.02)
    lease = await aged(upstreams, site)
    site.problem = Unreachable("gone")
    assert (await acquire(upstreams)).router is lease.router
    site.open.clear()
    assert (await acquire(upstreams)).router is lease.router
    assert site.brokers[0].verified == 2
    site.brokers[0].up = False
    assert (await acquire(upstreams)).router is lease.router
    assert site.brokers[0].verified == 2


async def test_the_link_ends_while_it_is_asked_about(upstreams: Upstreams, site: Site) -> None:
    await aged(upstreams, site)
    site.open.clear()
    attempt = asyncio.create_task(acquire(upstreams))
    await site.waits(1)
    site.brokers[0].on_refused(LoginRefused("no"))
    site.open.set()
    await attempt
    assert len(site.brokers) == 2


# The end


async def test_stopping(make: Callable[..., Upstreams], site: Site) -> None:
    upstreams = make()
    lease = await acquire(upstreams)
    site.open.clear()
    attempt = asyncio.create_task(acquire(upstreams, "bob"))
    await site.waits(1)
    await upstreams.stop()
    with pytest.raises((AuthUnavailable, asyncio.CancelledError)):
        await attempt
    with pytest.raises(AuthUnavailable, match="stopping"):
        await acquire(upstreams)
    lease.release()
    assert len(upstreams) == 0
