"""Who says who sent a message: RabbitMQ where the sender's login is its own, the bridge where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from stompbridge.brokers.base import Done, Message
from stompbridge.config import App, Route
from stompbridge.routing.application import Application
from stompbridge.routing.headers import shared_part
from stompbridge.routing.hub import Hub
from stompbridge.routing.router import Router
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.session import Send


class KeepingBroker:
    """Keeps what is published."""

    def __init__(self, user: str | None) -> None:
        self.user = user
        self.virtual_host = "/"
        self.published: list[Message] = []

    def publish(self, message: Message, done: Done) -> None:
        self.published.append(message)
        done(None)


class Client:
    def __init__(self, user: str = "", scope: str = "") -> None:
        self.sender_id = "session-x"
        self.user = user or self.sender_id
        self.scope = scope
        self.permissions = None
        self.next_seq = 0


def make_router(user: str | None, own: Router | None = None) -> tuple[Router, KeepingBroker]:
    broker: Any = KeepingBroker(user)
    hub = Hub(broker, lambda frame, binary: frame, "boot", 64, 60.0)
    application = Application(App(route=(Route(destination="/app/x", exchange="e", routing_key="k"),)))
    once: Any = None
    router = Router(broker, hub, application, once, default_prefetch=1, window=64, history_ttl=60.0, own=own)
    return router, broker


def send(router: Router, client: Client, user_id: str, destination: str = "/topic/x") -> None:
    event = Send(destination, {"destination": destination, "user-id": user_id}, b"{}", None)
    router.send(client, event, lambda failure: None, lambda: None)


def said(message: Message) -> tuple[str | None, object]:
    """The property and the header."""
    return message.user_id, message.headers.get("user-id")


@pytest.mark.parametrize("destination", ["/topic/x", "/app/x", "/user/bob/queue/x", "/amq/queue/x"])
def test_another_login_may_not_set_the_property(destination: str) -> None:
    router, broker = make_router("bridge")
    send(router, Client("ann", "ann"), "ann", destination)
    (message,) = broker.published
    assert said(message) == (None, "ann")
    assert b"user-id:ann\n" in shared_part(message, "/topic/x").rest


@pytest.mark.parametrize("user", ["ann", None])
def test_the_broker_vouches_for_its_own_login_or_asks_for_none(user: str | None) -> None:
    router, broker = make_router(user)
    send(router, Client("ann", "/\0ann"), "ann")
    assert said(broker.published[0]) == ("ann", None)


def test_what_goes_over_the_bridges_own_connection() -> None:
    own, shared = make_router("bridge")
    router, broker = make_router("ann", own)
    send(router, Client("ann", "/\0ann"), "ann", "/user/bob/queue/x")
    send(router, Client("ann", "/\0ann"), "ann", "/topic/x")
    assert said(shared.published[0]) == (None, "ann")
    assert said(broker.published[0]) == ("ann", None)


@pytest.mark.parametrize("destination", ["/topic/x", "/user/bob/queue/x"])
@pytest.mark.parametrize("user", ["bridge", "ann", None])
def test_nobody_is_another(user: str | None, destination: str) -> None:
    router, broker = make_router(user)
    with pytest.raises(StompError) as refused:
        send(router, Client("ann", "ann"), "bridge", destination)
    assert refused.value.message == "precondition_failed"
    assert refused.value.body == (
        "PRECONDITION_FAILED - user_id property set to 'bridge' but authenticated user was 'ann'"
    )
    assert refused.value.fatal
    assert broker.published == []


def test_where_nobody_authenticates_it_is_left_to_the_broker() -> None:
    router, broker = make_router("bridge")
    send(router, Client(), "anybody")
    assert said(broker.published[0]) == ("anybody", None)


def test_the_property_wins_over_the_header() -> None:
    """The broker vouches for the one only."""
    message = Message("e", "k", b"", headers={"user-id": "forged"}, user_id="ann")
    assert b"user-id:ann\n" in shared_part(message, "/topic/x").rest
    assert b"forged" not in shared_part(message, "/topic/x").rest
