from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stompbridge.brokers.base import Failure, Message
from stompbridge.brokers.memory import MemoryBroker
from stompbridge.brokers.topics import TopicTrie
from stompbridge.config import App, BrokerSettings, Exchange
from stompbridge.dedup.memory import MemoryStore
from stompbridge.dedup.store import StoreOptions
from stompbridge.routing.application import Application
from stompbridge.routing.destinations import Destination, Kind, parse
from stompbridge.routing.hub import INTERNAL, FrameKey, Hub
from stompbridge.routing.once import Once
from stompbridge.routing.router import MailboxPlan, Router
from stompbridge.routing.users import EXCHANGE, routing_key
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.session import AckMode, Send, Subscription

HOSTILE = [
    "a.b",
    "*",
    "#",
    "a/b",
    "%2E",
    "a%",
    "é.ü",
    "a b",
    "queue",
    "..",
    "#.#",
    "\N{GRINNING FACE}",
    "a\0b",
    "n" * 200,
]
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
hostile_names = names | st.text(".*#/%2EeAa", min_size=1, max_size=8)


class Who:
    """A client, as far as the router sees it."""

    numbers = count()

    def __init__(self, user: str = "", scope: str = "") -> None:
        self.sender_id = f"session-{next(self.numbers)}"
        self.user = user or self.sender_id
        self.scope = scope
        self.next_seq = 0
        self.permissions = None
        self.answers: list[Failure | None] = []


class Listener:
    """One subscription."""

    def __init__(self, session: str, shown: str, tag: str = "T_s", direct: bool = True) -> None:
        self.session = session
        self.frame_key = FrameKey(tag, tag[2:], not direct, direct, shown)
        self.frames: list[str] = []
        self.messages: list[Message] = []

    def write(self, frame: bytes) -> None:
        self.frames.append(frame.decode())

    def deliver(self, frame: bytes, ack_id: str, message: Message) -> None:
        self.write(frame)
        self.messages.append(message)

    @property
    def bodies(self) -> list[str]:
        return [frame.partition("\n\n")[2].removesuffix("\0\n") for frame in self.frames]

    @property
    def destinations(self) -> list[str]:
        return [line[12:] for frame in self.frames for line in frame.split("\n") if line.startswith("destination:")]


class Site:
    """The embedded broker, a hub and a router."""

    def __init__(self, own: Router | None = None, exchanges: tuple[str, ...] = (EXCHANGE,)) -> None:
        self.wrapped = 0
        self.broker = MemoryBroker(BrokerSettings(exchange=tuple(Exchange(name=name) for name in exchanges)))
        self.hub = Hub(self.broker, self._wrap, "boot", 64, 60.0)
        store = MemoryStore(StoreOptions(window=64, history_ttl=60.0, lock_ttl=10.0, idempotency_window=60.0))
        once = Once(store, hold=False)
        self.router = Router(
            self.broker,
            self.hub,
            Application(App()),
            once,
            default_prefetch=1,
            window=64,
            history_ttl=60.0,
            own=own,
        )

    async def start(self) -> None:
        await self.broker.start(Ears(self.hub))

    def _wrap(self, frame: bytes, binary: bool) -> bytes:
        self.wrapped += 1
        return frame

    def subscribe(self, who: Who, destination: str = "/user/queue/x", **options: object) -> Listener:
        plan = self.router.plan(subscription(destination), who)
        assert isinstance(plan, MailboxPlan)
        assert plan.shown is not None
        listener = Listener(who.sender_id, plan.shown, **options)  # type: ignore[arg-type]
        answers: list[Failure | None] = []
        self.router.hub_of(plan).subscribe(plan.exchange, plan.key, listener, answers.append)
        assert answers == [None]
        return listener

    def send(self, who: Who, destination: str, body: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        event = Send(destination, {"destination": destination, **named}, body.encode(), None)
        assert not self.router.send(who, event, who.answers.append, lambda: None)
        assert who.answers.pop() is None


class Ears:
    def __init__(self, hub: Hub) -> None:
        self.on_mailbox_messages = hub.on_mailbox_messages

    def on_broker_up(self) -> None: ...

    def on_broker_down(self, reason: str) -> None: ...


def octets(name: str) -> str:
    """A name that is nothing but a name."""
    return "".join(f"%{octet:02X}" for octet in name.encode())


def subscription(destination: str, **headers: str) -> Subscription:
    return Subscription("s", destination, AckMode.AUTO, "T_s", {"destination": destination, "id": "s", **headers})


@pytest.fixture
async def site() -> Site:
    made = Site()
    await made.start()
    return made


# What a destination means


@pytest.mark.parametrize(
    ("text", "user", "key"),
    [
        ("/user/joe/queue/x", "joe", "queue.x"),
        ("/user/joe/notifications", "joe", "notifications"),
        ("/user/joe/exchange/amq.direct/x", "joe", "exchange.amq.direct.x"),
        ("/user/joe/topic/a%2Fb", "joe", "topic.a/b"),
        ("/user/a%2Fb/queue/x", "a/b", "queue.x"),
        ("/user/a.b/queue/x", "a.b", "queue.x"),
        ("/user/%2A/queue/x", "*", "queue.x"),
        ("/user/%23/queue/x", "#", "queue.x"),
        ("/user/%252E/queue/x", "%2E", "queue.x"),
        ("/user/%c3%a9/queue/x", "é", "queue.x"),
        ("/user/é/queue/x", "é", "queue.x"),
        ("/user/joe@example.com/queue/x", "joe@example.com", "queue.x"),
        ("/user/%71ueue/queue/x", "queue", "queue.x"),
        ("/user/queue/x", "", "queue.x"),
        ("/user/queue/queue/x", "", "queue.queue.x"),
        ("/user/topic/x", "", "topic.x"),
        ("/user/exchange/e/x", "", "exchange.e.x"),
        ("/user/amq/queue/x", "", "amq.queue.x"),
        ("/user/queue", "", "queue"),
    ],
)
def test_send_names_a_user_or_means_its_own(text: str, user: str, key: str) -> None:
    assert parse(text, "SEND") == Destination(Kind.USER, text, EXCHANGE, key, user=user)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("/user/queue/x", "queue.x"),
        ("/user/notifications", "notifications"),
        ("/user/joe/queue/x", "joe.queue.x"),
        ("/user/queue/a.b", "queue.a.b"),
        ("/user/queue/%2A", "queue.%2A"),
    ],
)
def test_subscribe_is_always_to_its_own(text: str, key: str) -> None:
    assert parse(text, "SUBSCRIBE") == Destination(Kind.USER, text, EXCHANGE, key)


@pytest.mark.parametrize(
    "rest",
    ["", "/", "//x", "/queue/", "/queue//x", "/queue/*", "/queue/#", "/queue/a*", "/#", "/*/queue/x"],
)
@pytest.mark.parametrize("command", ["SEND", "SUBSCRIBE"])
def test_what_is_no_user_destination(rest: str, command: str) -> None:
    with pytest.raises(StompError) as caught:
        parse(f"/user{rest}", command)  # type: ignore[arg-type]
    error = caught.value
    assert (error.message, error.body, error.fatal) == (
        "Invalid destination",
        f"'{rest}' is not a valid user destination\n",
        False,
    )


@pytest.mark.parametrize(
    "rest", ["/joe", "/joe/", "/joe//x", "/%/queue/x", "/100%/queue/x", "/%zz/queue/x", "/%ff/queue/x", "/a#/queue/x"]
)
def test_what_names_no_user(rest: str) -> None:
    with pytest.raises(StompError, match="is not a valid user destination"):
        parse(f"/user{rest}", "SEND")


@pytest.mark.parametrize("command", ["SEND", "SUBSCRIBE"])
@pytest.mark.parametrize("text", ["/exchange/stompbridge.user", "/exchange/stompbridge.user/#"])
def test_the_exchange_itself_is_out_of_reach(text: str, command: str) -> None:
    with pytest.raises(StompError, match="is not a valid exchange destination"):
        parse(text, command)  # type: ignore[arg-type]


# Keys


@settings(deadline=None)
@given(hostile_names)
def test_a_name_is_one_literal_word(user: str) -> None:
    name, _, rest = routing_key(user, "queue.x").partition(".")
    assert rest == "queue.x"
    assert not set(name) & set(".*#/")
    assert name


@settings(deadline=None)
@given(hostile_names, hostile_names, st.sampled_from(["queue.x", "x", "queue.a/b"]))
def test_nobody_hears_another(first: str, second: str, path: str) -> None:
    trie: TopicTrie[list[str]] = TopicTrie(list)
    trie.node(routing_key(first, path)).append(first)
    assert bool(trie.match(routing_key(second, path))) is (first == second)


@settings(deadline=None)
@given(hostile_names)
def test_any_name_can_be_written(user: str) -> None:
    assert parse(f"/user/{octets(user)}/queue/x", "SEND").user == user
    if user not in ("queue", "topic", "exchange", "amq"):
        assert parse(f"/user/{quote(user, safe='')}/queue/x", "SEND").user == user


def test_a_key_that_amqp_can_not_carry() -> None:
    assert routing_key("n" * 247, "queue.x")
    with pytest.raises(StompError) as caught:
        routing_key("n" * 248, "queue.x")
    assert (caught.value.message, caught.value.fatal) == ("Processing error", False)
    assert "the routing key is longer than 255 bytes" in caught.value.body
    with pytest.raises(StompError):
        routing_key("." * 83, "queue.x")


# The way there


@pytest.mark.parametrize("user", HOSTILE)
async def test_every_session_of_the_user_and_nobody_else(site: Site, user: str) -> None:
    mine = [site.subscribe(Who(user)) for _ in range(3)]
    others = [site.subscribe(Who(other)) for other in [*HOSTILE, "someone", ""] if other != user]
    site.send(Who(), f"/user/{octets(user)}/queue/x", "hello")
    assert [listener.bodies for listener in mine] == [["hello"]] * 3
    assert not any(listener.frames for listener in others)
    assert mine[0].destinations == ["/user/queue/x"]


async def test_a_program_needs_no_more_than_the_key(site: Site) -> None:
    listener = site.subscribe(Who("joe"))
    site.broker.publish(Message(EXCHANGE, "joe.queue.x", b"paid"), lambda failure: None)
    assert listener.bodies == ["paid"]
    assert "\nredelivered:false\n" in listener.frames[0]


async def test_a_client_speaks_to_its_own_sessions(site: Site) -> None:
    here, there = Who("joe"), Who("joe")
    listeners = [site.subscribe(here), site.subscribe(there), site.subscribe(Who("jim"))]
    site.send(here, "/user/queue/x", "hello")
    assert [listener.bodies for listener in listeners] == [["hello"], ["hello"], []]


async def test_without_authentication_the_user_is_the_session(site: Site) -> None:
    first, second = Who(), Who()
    listeners = [site.subscribe(first), site.subscribe(second)]
    site.send(second, f"/user/{first.sender_id}/queue/x", "hello")
    assert [listener.bodies for listener in listeners] == [["hello"], []]


async def test_one_session_of_the_user(site: Site) -> None:
    first, second = Who("joe"), Who("joe")
    listeners = [site.subscribe(first), site.subscribe(second, tag="T_t"), site.subscribe(second, tag="T_s")]
    site.send(Who(), "/user/joe/queue/x", "you", session=second.sender_id)
    site.send(Who(), "/user/joe/queue/x", "nobody", session="session-of-yesterday")
    assert [listener.bodies for listener in listeners] == [[], ["you"], ["you"]]
    assert f"\nsession:{second.sender_id}\n" in listeners[1].frames[0]
    assert site.hub.deliveries == 2


@pytest.mark.parametrize(("value", "bodies"), [(None, ["x"]), (7, []), ("", [])])
async def test_a_session_header_of_a_program(site: Site, value: object, bodies: list[str]) -> None:
    listener = site.subscribe(Who("joe"))
    site.broker.publish(Message(EXCHANGE, "joe.queue.x", b"x", {"session": value}), lambda failure: None)
    assert listener.bodies == bodies


async def test_sessions_share_a_frame_and_each_sees_what_it_asked_for(site: Site) -> None:
    tabs = [Who("joe") for _ in range(4)]
    listeners = [site.subscribe(tab, "/user/queue/a.b") for tab in tabs[:3]]
    other = site.subscribe(tabs[3], "/user/queue/a/b")
    site.send(tabs[0], "/user/queue/a.b", "hello")
    assert site.wrapped == 2
    assert len({listener.frames[0] for listener in listeners}) == 1
    assert listeners[0].destinations == ["/user/queue/a.b"]
    assert other.destinations == ["/user/queue/a/b"]


async def test_what_is_given_back_keeps_its_destination(site: Site) -> None:
    listener = site.subscribe(Who("joe"), direct=False)
    site.send(Who(), "/user/joe/queue/x", "hello")
    site.hub.redeliver(listener, listener.messages[0])
    assert listener.destinations == ["/user/queue/x"] * 2
    assert "\nredelivered:true\n" in listener.frames[1]


async def test_a_copy_is_suppressed(site: Site) -> None:
    listener = site.subscribe(Who("joe"))
    message = Message(EXCHANGE, "joe.queue.x", b"once", sender="session-far", seq=3)
    site.hub.on_mailbox_messages(EXCHANGE, [message, replace(message, redelivered=True)])
    assert listener.bodies == ["once"]
    assert site.hub.suppressed == 1


async def test_nothing_is_bound_for_who_has_gone(site: Site) -> None:
    who = Who("joe")
    listener = site.subscribe(who)
    assert site.broker._exchanges[EXCHANGE]._bindings
    site.hub.unsubscribe(EXCHANGE, "joe.queue.x", listener)
    assert not site.broker._exchanges[EXCHANGE]._bindings
    assert not site.broker._queues


def test_queue_headers_have_no_meaning(site: Site) -> None:
    asked = {"durable": "true", "auto-delete": "true", "x-queue-name": "q", "x-expires": "9", "prefetch-count": "5"}
    plan = site.router.plan(subscription("/user/queue/x", **asked), Who("joe"))
    assert plan == MailboxPlan(EXCHANGE, "joe.queue.x", 5, "/user/queue/x")


def test_too_long_for_either_command(site: Site) -> None:
    long = "n" * 250
    with pytest.raises(StompError, match="the routing key is longer"):
        site.router.plan(subscription("/user/queue/x"), Who(long))
    event = Send(f"/user/{long}/queue/x", {}, b"", None)
    with pytest.raises(StompError, match="the routing key is longer"):
        site.router.send(Who(), event, lambda failure: None, lambda: None)


async def test_a_retry_is_the_clients_own(site: Site) -> None:
    first, second = Who(), Who()
    listeners = [site.subscribe(first), site.subscribe(second)]
    for who in (first, second, first):
        site.send(who, "/user/queue/x", "order", idempotency_key="k")
    assert [listener.bodies for listener in listeners] == [["order"], ["order"]]
    named = Who("joe", scope="joe")
    listener = site.subscribe(named)
    for _ in range(2):
        site.send(named, "/user/queue/x", "order", idempotency_key="k")
    assert listener.bodies == ["order"]


# A login's own link


class Stuck(MemoryBroker):
    stuck = False

    def __init__(self) -> None:
        super().__init__(BrokerSettings())
        self.clear: list[Callable[[], None]] = []

    @property
    def congested(self) -> bool:
        return self.stuck

    def when_clear(self, callback: Callable[[], None]) -> None:
        self.clear.append(callback)


@pytest.fixture
async def login(site: Site) -> Site:
    made = Site(own=site.router, exchanges=())
    await made.start()
    return made


async def test_users_are_reached_over_the_bridges_own_link(site: Site, login: Site) -> None:
    who = Who("joe")
    own, foreign = site.subscribe(who), login.subscribe(who)
    login.send(who, "/user/joe/queue/x", "one")
    site.send(who, "/user/joe/queue/x", "two")
    assert own.bodies == foreign.bodies == ["one", "two"]
    assert site.router.hub_of(MailboxPlan(INTERNAL, "healthcheck", None)) is site.hub
    assert login.router.hub_of(MailboxPlan(INTERNAL, "healthcheck", None)) is site.hub
    assert login.router.hub_of(MailboxPlan("amq.topic", "a", None)) is login.hub


def test_either_link_may_ask_for_a_pause(site: Site, login: Site) -> None:
    site.router.broker, login.router.broker = mine, theirs = Stuck(), Stuck()
    assert not login.router.congested
    mine.stuck = True
    assert site.router.congested
    assert login.router.congested
    login.router.when_clear(str)
    assert (mine.clear, theirs.clear) == ([str], [])
    mine.stuck, theirs.stuck = False, True
    assert not site.router.congested
    assert login.router.congested
    login.router.when_clear(str)
    assert (mine.clear, theirs.clear) == ([str], [str])
