from __future__ import annotations

import pytest

from stompbridge.brokers.base import Done, Failure, Message, QueueSpec
from stompbridge.config import App, Route
from stompbridge.dedup.memory import MemoryStore
from stompbridge.dedup.store import StoreOptions
from stompbridge.routing.application import Application
from stompbridge.routing.hub import INTERNAL, Hub
from stompbridge.routing.once import Once
from stompbridge.routing.router import MailboxPlan, QueuePlan, Router, failure_to_error
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.session import AckMode, Send, Subscription


class ScriptedBroker:
    """Keeps what it is asked, and answers as the test says."""

    def __init__(self) -> None:
        self.published: list[tuple[Message, Done]] = []
        self.declared: list[tuple[QueueSpec, Done]] = []

    def exchange_type(self, exchange: str) -> str | None:
        return {"amq.topic": "topic", "chat": "topic", "amq.headers": "headers"}.get(exchange)

    def publish(self, message: Message, done: Done) -> None:
        self.published.append((message, done))

    def declare_queue(self, spec: QueueSpec, done: Done) -> None:
        self.declared.append((spec, done))


class Client:
    def __init__(self) -> None:
        self.sender_id = "session-x"
        self.user = "session-x"
        self.scope = ""
        self.permissions = None
        self.next_seq = 0
        self.answers: list[Failure | None] = []
        self.resumed: list[bool] = []


ROUTE = Route(
    destination="/app/message/{roomId}",
    exchange="chat",
    routing_key="roomId.{roomId}",
    persistent=True,
    stamp={"roomId": "{roomId:int}", "senderSessionId": "{session}", "n": "{sequence}"},
)


ONCE = Once(MemoryStore(StoreOptions(window=64, history_ttl=60.0, lock_ttl=10.0, idempotency_window=60.0)), hold=False)


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def router(broker: ScriptedBroker) -> Router:
    hub = Hub(broker, lambda frame, binary: frame, "boot", 1024, 60.0)  # type: ignore[arg-type]
    application = Application(App(route=(ROUTE,)))
    return Router(broker, hub, application, ONCE, default_prefetch=100, window=1024, history_ttl=60.0)  # type: ignore[arg-type]


@pytest.fixture
def client() -> Client:
    return Client()


def send(router: Router, client: Client, destination: str, body: bytes = b"{}", **headers: str) -> bool:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    event = Send(destination, {"destination": destination, **named}, body, None)
    return router.send(client, event, client.answers.append, lambda: client.resumed.append(True))


def subscription(destination: str, **headers: str) -> Subscription:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Subscription("s", destination, AckMode.AUTO, "T_s", {"destination": destination, "id": "s", **named})


def test_a_send_is_stamped_with_its_sender_and_a_number_without_gaps(
    router: Router, broker: ScriptedBroker, client: Client
) -> None:
    send(router, client, "/topic/a")
    with pytest.raises(StompError):
        send(router, client, "/nowhere/a")
    send(router, client, "/exchange/chat/b")
    first, second = (message for message, _ in broker.published)
    assert (first.exchange, first.routing_key, first.sender, first.seq) == ("amq.topic", "a", "session-x", 0)
    assert (second.exchange, second.routing_key, second.sender, second.seq) == ("chat", "b", "session-x", 1)
    assert first.message_id == "session-x:0"
    assert router.sends == 2


def test_a_message_id_of_the_client_is_kept(router: Router, broker: ScriptedBroker, client: Client) -> None:
    send(router, client, "/topic/a", amqp_message_id="mine")
    assert broker.published[0][0].message_id == "mine"


def test_an_application_send_becomes_what_its_route_says(
    router: Router, broker: ScriptedBroker, client: Client
) -> None:
    send(router, client, "/app/message/7", b'{"message":"hi"}')
    message = broker.published[0][0]
    assert (message.exchange, message.routing_key, message.delivery_mode) == ("chat", "roomId.7", 2)
    assert message.body == b'{"message":"hi","roomId":7,"senderSessionId":"session-x","n":0}'


def test_a_route_without_persistence_leaves_the_choice_to_the_client(
    broker: ScriptedBroker, client: Client, router: Router
) -> None:
    route = Route(destination="/app/x", exchange="chat", routing_key="x")
    router = Router(
        router.broker,
        router.hub,
        Application(App(route=(route,))),
        ONCE,
        default_prefetch=1,
        window=64,
        history_ttl=1.0,
    )
    send(router, client, "/app/x")
    send(router, client, "/app/x", persistent="true")
    assert [message.delivery_mode for message, _ in broker.published] == [None, 2]


def test_a_queue_is_declared_before_its_first_send_only(router: Router, broker: ScriptedBroker, client: Client) -> None:
    assert send(router, client, "/queue/q")
    assert broker.published == []
    assert broker.declared[0][0].name == "q"
    assert client.resumed == []
    broker.declared[0][1](None)
    assert client.resumed == [True]
    assert len(broker.published) == 1
    assert not send(router, client, "/queue/q")
    assert len(broker.published) == 2
    assert not send(router, client, "/queue/q", durable="false")
    assert len(broker.declared) == 1


def test_what_one_session_has_declared_another_need_not(router: Router, broker: ScriptedBroker, client: Client) -> None:
    send(router, client, "/queue/q")
    broker.declared[0][1](None)
    other = Client()
    assert not send(router, other, "/queue/q")
    assert send(router, Client(), "/queue/q", x_max_length="10")
    assert [spec.arguments for spec, _ in broker.declared] == [{}, {"x-max-length": 10}]


def test_a_queue_that_can_not_be_declared_fails_its_send(
    router: Router, broker: ScriptedBroker, client: Client
) -> None:
    send(router, client, "/queue/q")
    refusal = Failure("precondition_failed", "PRECONDITION_FAILED - inequivalent arg")
    broker.declared[0][1](refusal)
    assert client.answers == [refusal]
    assert broker.published == []


def test_a_queue_deleted_meanwhile_is_declared_again(router: Router, broker: ScriptedBroker, client: Client) -> None:
    send(router, client, "/queue/q")
    broker.declared[0][1](None)
    broker.published[0][1](None)
    send(router, client, "/queue/q")
    broker.published[1][1](Failure("no_route", "NO_ROUTE", fatal=False))
    assert len(broker.declared) == 2
    broker.declared[1][1](None)
    assert broker.published[2][0] is broker.published[1][0]
    broker.published[2][1](None)
    assert client.answers == [None, None]


def test_other_answers_to_a_queue_send_reach_the_client(router: Router, broker: ScriptedBroker, client: Client) -> None:
    send(router, client, "/queue/q")
    broker.declared[0][1](None)
    broker.published[0][1](None)
    send(router, client, "/queue/q")
    rejected = Failure("rejected", "full", fatal=False)
    broker.published[1][1](rejected)
    assert client.answers == [None, rejected]


def test_a_message_for_a_queue_that_must_exist_is_dropped_without_it(
    router: Router, broker: ScriptedBroker, client: Client
) -> None:
    assert not send(router, client, "/amq/queue/q")
    broker.published[0][1](Failure("no_route", "NO_ROUTE", fatal=False))
    assert client.answers == [None]
    assert broker.declared == []


def test_the_memory_of_declared_queues_is_bounded(
    router: Router, broker: ScriptedBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stompbridge.routing.queues._DECLARED_MAX", 2)
    for name in ("a", "b", "c"):
        send(router, client, f"/queue/{name}")
        broker.declared[-1][1](None)
    assert not send(router, Client(), "/queue/c")
    assert send(router, Client(), "/queue/a")


def test_the_memory_of_a_sessions_queues_is_bounded(
    router: Router, broker: ScriptedBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stompbridge.routing.queues._USED_MAX", 2)
    for name in ("a", "b", "c"):
        send(router, client, f"/queue/{name}")
        broker.declared[-1][1](None)
    assert not send(router, client, "/queue/c", durable="false")
    assert send(router, client, "/queue/a", durable="false")


def test_exchange_subscriptions_share_mailboxes_where_they_can_be_matched(router: Router) -> None:
    assert router.plan(subscription("/exchange/chat/room.*"), Client()) == MailboxPlan("chat", "room.*", None)
    assert router.plan(subscription("/topic/a", prefetch_count="5"), Client()) == MailboxPlan("amq.topic", "a", 5)
    assert router.plan(subscription("/internal/healthcheck"), Client()) == MailboxPlan(INTERNAL, "healthcheck", None)


def test_other_subscriptions_get_a_queue(router: Router) -> None:
    shared = router.plan(subscription("/queue/q"), Client())
    assert isinstance(shared, QueuePlan)
    assert (shared.spec.name, shared.spec.durable, shared.prefetch) == ("q", True, 100)
    for destination in ("/exchange/unknown/k", "/exchange/amq.headers/k"):
        own = router.plan(subscription(destination, prefetch_count="7"), Client())
        assert isinstance(own, QueuePlan)
        assert own.spec.name.startswith("stomp-subscription-")
        assert own.prefetch == 7
    durable = router.plan(subscription("/topic/a", durable="true", auto_delete="false"), Client())
    assert isinstance(durable, QueuePlan)
    assert durable.spec.bindings == (("amq.topic", "a"),)


def test_histories_are_shared_by_queue_and_forgotten_when_empty(router: Router) -> None:
    history = router.history("q")
    assert router.history("q") is history
    history.suppressed, history.in_doubt = 2, 3
    router.hub.suppressed, router.hub.in_doubt = 1, 4
    counted = {"mailbox_suppressed": 1, "mailbox_in_doubt": 4, "queue_suppressed": 2, "queue_in_doubt": 3}
    assert router.counters() == counted
    router.sweep(0.0)
    assert router.history("q") is not history
    assert router.counters() == counted


@pytest.mark.parametrize(
    ("failure", "message", "fatal"),
    [
        (Failure("rejected", "full", fatal=False), "Message rejected", False),
        (Failure("broker_unavailable", "away", fatal=False), "Broker unavailable", False),
        (Failure("not_found", "NOT_FOUND - no exchange 'x' in vhost '/'"), "not_found", True),
    ],
)
def test_what_the_broker_refuses_becomes_an_error_frame(failure: Failure, message: str, fatal: bool) -> None:
    error = failure_to_error(failure)
    assert (error.message, error.fatal) == (message, fatal)
    assert failure.text in error.body
