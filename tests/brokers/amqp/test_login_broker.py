"""A login's broker against a fake one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pamqp import commands

from stompbridge.brokers.amqp import AmqpLoginBroker, Login, backoff, broker
from stompbridge.brokers.base import Failure, LoginRefused, QueueSpec, Unreachable
from stompbridge.config import BrokerSettings, Exchange
from tests.brokers.amqp.fake import Calls, FakeBroker, Inbox, News, Peer, ignore, refuse, until, within

ANN = Login("ann", "s3cret", "/")
LOGIN_REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."
LIMITS = [
    "NOT_ALLOWED - access to vhost '/' refused for user 'ann': connection limit (5) is reached",
    "NOT_ALLOWED - connection refused for user 'ann': user connection limit (5) is reached",
]
Answer = Callable[[Peer, int, Any], bool]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "TICK", 0.02)
    monkeypatch.setattr(backoff, "BACKOFF", 0.01)
    monkeypatch.setattr(backoff, "MIN_PAUSE", 0.01)


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    fake = FakeBroker()
    await fake.start()
    yield fake
    await fake.stop()


class Bridge:
    """A login's broker with its listener."""

    def __init__(self, url: str, login: Login = ANN, **settings: Any) -> None:
        exchanges = (Exchange(name="e"), Exchange(name="a", bind="all"), Exchange(name="f", type="fanout"))
        fields: dict[str, Any] = {"kind": "rabbitmq", "urls": (url,), "exchange": exchanges, "connect_timeout": 2.0}
        self.refused: list[LoginRefused] = []
        self.broker = AmqpLoginBroker(
            BrokerSettings(**(fields | settings)), "node", [Exchange(name="x")], login, self.refused.append
        )
        self.calls = Calls(self.broker)
        self.news = News()

    async def up(self) -> Bridge:
        await within(self.broker.open(self.news))
        return self


@pytest.fixture
async def start(fake: FakeBroker) -> AsyncIterator[Callable[..., Bridge]]:
    bridges: list[Bridge] = []

    def make(*args: Any, **settings: Any) -> Bridge:
        bridges.append(Bridge(settings.pop("url", fake.url), *args, **settings))
        return bridges[-1]

    yield make
    for bridge in bridges:
        await within(bridge.broker.stop())


def close(code: int, text: str) -> Answer:
    """An answer that closes the connection."""

    def answer(peer: Peer, channel: int, frame: Any) -> bool:
        peer.send(0, commands.Connection.Close(code, text, 10, 40))
        return True

    return answer


def drop(peer: Peer, channel: int, frame: Any) -> bool:
    """An answer without a word."""
    peer.drop()
    return True


# The address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://guest:guest@h:5672/%2F", "amqp://a%3A%40b:%2F%3F%23%25@h:5672/"),
        ("amqps://h/v?cafile=/ca.pem&auth=external", "amqps://a%3A%40b:%2F%3F%23%25@h/?cafile=%2Fca.pem"),
        ("amqp://u@[::1]:1/", "amqp://a%3A%40b:%2F%3F%23%25@[::1]:1/"),
    ],
)
def test_the_address_of_a_login(url: str, address: str) -> None:
    """Never with the bridge's certificate in place of the passcode."""
    login = Login("a:@b", "/?#%", "v")
    assert login.address(url) == address
    assert "/?#%" not in repr(login)


@pytest.mark.parametrize("virtual_host", ["/", "v", "..", "%2F", "", "a b/é"])
async def test_the_virtual_host_is_taken_as_it_is(
    start: Callable[..., Bridge], fake: FakeBroker, virtual_host: str
) -> None:
    bridge = await start(Login("a b", "é:/", virtual_host)).up()
    assert {frame.virtual_host for frame in fake.of(commands.Connection.Open)} == {virtual_host}
    assert {frame.response for frame in fake.of(commands.Connection.StartOk)} == {"\0a b\0é:/"}
    assert bridge.broker.virtual_host == virtual_host
    assert bridge.broker.user == "a b"


# Being let in


async def test_it_is_up_when_it_says_so(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    bridge = await start().up()
    assert bridge.broker.up
    assert bridge.news.up.is_set()
    assert bridge.refused == []
    assert fake.of(commands.Exchange.Declare) == []


@pytest.mark.parametrize("text", ["NOT_ALLOWED - vhost limit not found", *LIMITS])
async def test_the_virtual_host_is_refused(start: Callable[..., Bridge], fake: FakeBroker, text: str) -> None:
    fake.answers[commands.Connection.Open] = close(530, text)
    bridge = start()
    with pytest.raises(LoginRefused) as refused:
        await bridge.up()
    assert (str(refused.value), refused.value.virtual_host) == (text, True)
    assert bridge.refused == []


async def test_the_login_is_refused(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    """The first answer decides: further addresses are those of the same cluster."""
    fake.answers[commands.Connection.StartOk] = close(403, LOGIN_REFUSED)
    bridge = start(urls=("amqp://127.0.0.1:1/", fake.url, fake.url))
    with pytest.raises(LoginRefused) as refused:
        await bridge.up()
    assert (str(refused.value), refused.value.virtual_host) == (LOGIN_REFUSED, False)
    assert len(fake.peers) == 1
    assert "s3cret" not in bridge.broker.down_reason


async def test_the_login_is_refused_without_a_word(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    fake.answers[commands.Connection.StartOk] = drop
    with pytest.raises(LoginRefused):
        await start().up()


@pytest.mark.parametrize(
    "answer", [drop, close(541, "INTERNAL_ERROR - vhost '/' is down"), close(320, "CONNECTION_FORCED - going down")]
)
async def test_no_answer_about_the_login(start: Callable[..., Bridge], fake: FakeBroker, answer: Answer) -> None:
    fake.answers[commands.Connection.Open] = answer
    with pytest.raises(Unreachable):
        await start().up()


async def test_out_of_reach(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    with pytest.raises(Unreachable, match="connection refused"):
        await start(urls=("http://nonsense", "amqp://127.0.0.1:1/")).up()


async def test_who_waits_may_give_up(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    fake.answers[commands.Connection.StartOk] = ignore
    bridge = start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await bridge.broker.open(bridge.news)
    await within(bridge.broker.stop())


# Being let in again


async def test_the_link_comes_back(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    """Through limits that the dead connections count for, and a broker that dies in the middle."""
    bridge = await start().up()
    answers = [close(530, text) for text in LIMITS] + [drop]
    fake.answers[commands.Connection.Open] = lambda *call: bool(answers) and answers.pop()(*call)
    starts = [drop]
    fake.answers[commands.Connection.StartOk] = lambda *call: bool(starts) and starts.pop()(*call)
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())
    assert answers == starts == bridge.refused == []


async def test_the_login_is_refused_after_a_loss(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    bridge = await start().up()
    fake.answers[commands.Connection.StartOk] = close(403, LOGIN_REFUSED)
    fake.peer("publish").drop()
    await until(lambda: bridge.refused)
    peers = len(fake.peers)
    waiting = bridge.calls.publish("e", "k")
    await asyncio.sleep(0.1)
    assert (len(bridge.refused), len(fake.peers)) == (1, peers)
    await within(bridge.broker.stop())
    assert (await within(waiting)).code == "broker_unavailable"


# Asking anew


async def test_verify(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    bridge = await start(urls=("http://nonsense", fake.url)).up()
    await within(bridge.broker.verify())
    fake.answers[commands.Connection.StartOk] = close(403, LOGIN_REFUSED)
    with pytest.raises(LoginRefused):
        await within(bridge.broker.verify())
    assert bridge.refused == []
    fake.answers[commands.Connection.StartOk] = drop
    with pytest.raises(Unreachable):
        await within(bridge.broker.verify())
    del fake.answers[commands.Connection.StartOk]
    fake.answers[commands.Connection.Open] = close(530, LIMITS[1])
    await within(bridge.broker.verify())
    assert bridge.broker.up


# What it does


async def test_mailboxes(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    """Names that the plugin's permissions fit and nobody guesses; every key for itself."""
    bridge = await start().up()
    for exchange in ("e", "a", "f"):
        assert await within(bridge.calls.bind(exchange, "k")) is None
    queues = [frame.queue for frame in fake.of(commands.Queue.Declare)]
    prefix = "stomp-subscription-stompbridge.node."
    assert [queue.rpartition(".")[2] for queue in queues] == ["e", "a", "f"]
    assert all(queue.startswith(prefix) and len(queue) == len(prefix) + 24 + 2 for queue in queues)
    bound = [(frame.exchange, frame.routing_key) for frame in fake.of(commands.Queue.Bind)]
    assert bound == [("e", "k"), ("a", "k"), ("f", "")]


async def test_a_storm_is_bound_key_by_key(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    bridge = await start().up()
    keys = [f"k{number}" for number in range(300)]
    answers = [bridge.calls.bind("e", key) for key in keys]
    assert {await within(answer) for answer in answers} == {None}
    assert [frame.routing_key for frame in fake.of(commands.Queue.Bind)] == keys


async def test_exchanges_of_another_virtual_host(start: Callable[..., Bridge]) -> None:
    """What the configuration says about exchanges is about those that the bridge declares."""
    assert start(Login("ann", "s", "/")).broker.exchange_type("e") == "topic"
    other = start(Login("ann", "s", "other")).broker
    assert other.exchange_type("e") is other.exchange_type("x") is None
    assert other.exchange_type("amq.fanout") == "fanout"


async def test_what_a_subscription_needs_is_taken_back(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    bridge = await start().up()
    assert await within(bridge.calls.bind("e", "k")) is None
    text = "ACCESS_REFUSED - access to exchange 'e' in vhost '/' refused for user 'ann'"
    fake.answers[commands.Queue.Bind] = refuse(403, text)
    refused: Failure = await within(bridge.calls.bind("e", "other"))
    assert refused.text == text
    assert bridge.refused == []
    fake.peer("consume").drop()
    await until(lambda: bridge.refused)
    assert (str(bridge.refused[0]), bridge.refused[0].virtual_host) == (text, False)


async def test_a_binding_that_lingers_is_nobodys(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    bridge = await start().up()
    assert await within(bridge.calls.bind("e", "k")) is None
    bridge.broker.unbind("e", "k")
    fake.answers[commands.Queue.Bind] = refuse(403, "ACCESS_REFUSED - access to exchange 'e' in vhost '/' refused")
    bridge.news.up.clear()
    fake.peer("consume").drop()
    await within(bridge.news.up.wait())
    assert bridge.refused == []


async def test_an_exclusive_queue_whose_session_ends_too_soon(start: Callable[..., Bridge], fake: FakeBroker) -> None:
    """It was declared for nobody, and goes."""
    bridge = await start().up()
    fake.answers[commands.Basic.Consume] = ignore
    consumer = bridge.broker.consume(QueueSpec("q", exclusive=True), 1, Inbox(), lambda result: None)
    await until(lambda: fake.of(commands.Basic.Consume))
    consumer.cancel()
    fake.peer("consume").send(fake.channel_of(commands.Basic.Consume), commands.Basic.ConsumeOk(""))
    await until(lambda: fake.of(commands.Queue.Delete))
