"""``/user`` as a client of the process sees it: acknowledgement, prefetch, redelivery, errors, versions."""

from __future__ import annotations

from typing import Any

import pytest

from stompbridge.auth.base import Identity
from stompbridge.brokers.base import Message
from stompbridge.config import Limits, Settings
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.routing.users import EXCHANGE
from tests.gateway.world import CONNECT, Connection, World, acks, frame

V10 = b"CONNECT\n\n\0"


@pytest.fixture
async def world() -> World:
    made = World(Settings(limits=Limits(unacked=5, backlog=2)))
    await made.broker.start(made)
    return made


def client_of(world: World, user: str, connect: bytes = CONNECT, **subscribe: Any) -> tuple[Client, Connection]:
    """A client that has been identified, and subscribed to its own ``/user/queue/x``."""
    client, connection = world.client(connect)
    client.identity, client.user = Identity(user), user
    client.on_data(frame("SUBSCRIBE", **{"destination": "/user/queue/x", "id": 1} | subscribe))
    assert connection.sent == []
    return client, connection


def publish(world: World, body: str, key: str = "joe.queue.x", **properties: Any) -> None:
    """As another program does it."""
    world.broker.publish(Message(EXCHANGE, key, body.encode(), **properties), lambda failure: None)


def test_a_backend_notifies_a_user(world: World) -> None:
    _, first = client_of(world, "joe")
    _, second = client_of(world, "joe")
    _, other = client_of(world, "jim")
    publish(world, "paid", headers={"order": 7}, content_type="text/plain")
    assert first.bodies() == second.bodies() == ["paid"]
    assert other.sent == []
    head = first.sent[0].split("\n\n")[0].split("\n")
    assert head[0] == "MESSAGE"
    assert {"subscription:1", "destination:/user/queue/x", "order:7", "content-type:text/plain"} < set(head)
    assert first.sent == second.sent


def test_acknowledgement_prefetch_and_nack(world: World) -> None:
    client, connection = client_of(world, "joe", ack="client-individual", prefetch_count=2)
    for number in range(4):
        publish(world, str(number))
    assert connection.bodies() == ["0", "1"]
    client.on_data(frame("ACK", id=acks(connection)[0]))
    assert connection.bodies() == ["0", "1", "2"]
    client.on_data(frame("NACK", id=acks(connection)[1]))
    assert connection.bodies()[3:] == ["1"]
    assert "\nredelivered:true\n" in connection.sent[3]
    assert "\ndestination:/user/queue/x\n" in connection.sent[3]
    for ack_id in acks(connection)[2:]:
        client.on_data(frame("ACK", id=ack_id))
    assert connection.bodies()[4:] == ["3"]
    client.on_data(frame("NACK", id=acks(connection)[-1], requeue="false"))
    assert len(connection.sent) == 5


def test_cumulative_acknowledgement(world: World) -> None:
    client, connection = client_of(world, "joe", ack="client")
    for number in range(3):
        publish(world, str(number))
    client.on_data(frame("ACK", id=acks(connection)[2], receipt="all"))
    assert connection.receipts() == ["all"]
    assert not client.session.unacked


def test_a_slow_consumer_is_the_only_one_to_suffer(world: World) -> None:
    _, slow = client_of(world, "joe", ack="client", prefetch_count=1)
    _, quick = client_of(world, "joe")
    for number in range(4):
        publish(world, str(number))
    assert slow.closed is not None
    assert slow.closed[0] is CloseReason.STOMP_ERROR
    assert quick.bodies() == ["0", "1", "2", "3"]


def test_an_old_client_without_ids(world: World) -> None:
    client, connection = world.client(V10)
    client.on_data(frame("SUBSCRIBE", destination="/user/queue/x", ack="client"))
    publish(world, "hello", f"{client.sender_id}.queue.x")
    assert "\nsubscription:" not in connection.sent[0]
    assert "\ndestination:/user/queue/x\n" in connection.sent[0]
    assert "message-id:Q_/user/queue/x@@boot@@" in connection.sent[0]
    message_id = connection.sent[0].split("message-id:")[1].split("\n")[0]
    client.on_data(frame("ACK", message_id=message_id, receipt="r"))
    assert connection.receipts() == ["r"]


def test_one_session_by_its_header(world: World) -> None:
    first, here = client_of(world, "joe", ack="client")
    _, there = client_of(world, "joe")
    sender, _ = world.client()
    sender.on_data(frame("SEND", "you", destination="/user/joe/queue/x", session=first.sender_id))
    assert here.bodies() == ["you"]
    assert there.sent == []


def test_a_named_client_gets_it_once_over_its_sessions(world: World) -> None:
    named = b"CONNECT\naccept-version:1.2\nclient-id:tab\n\n\0"
    message = Message(EXCHANGE, "joe.queue.x", b"once", message_id="m1")
    first, one = client_of(world, "joe", named)
    world.on_mailbox_messages(EXCHANGE, [message])
    assert one.bodies() == ["once"]
    first.on_lost(CloseReason.CLIENT_LOST)
    _, two = client_of(world, "joe", named)
    world.hub._mailboxes[EXCHANGE].seen = type(world.hub._mailboxes[EXCHANGE].seen)(64, 60.0)
    world.on_mailbox_messages(EXCHANGE, [message])
    publish(world, "next")
    assert two.bodies() == ["next"]


def test_what_can_not_be_subscribed_to(world: World) -> None:
    client, connection = world.client()
    for destination in ("/user/queue/*", "/user/", "/exchange/stompbridge.user/#"):
        client.on_data(frame("SUBSCRIBE", destination=destination, id=1, receipt="r"))
        assert "message:Invalid destination\n" in connection.sent[-1]
        assert "receipt-id:r\n" in connection.sent[-1]
    assert connection.closed is None
    client.on_data(frame("SUBSCRIBE", destination="/user/queue/x", id=1, receipt="ok"))
    assert connection.receipts()[-1] == "ok"


def test_nothing_stays_behind(world: World) -> None:
    clients = [client_of(world, "joe")[0] for _ in range(2)]
    clients[0].on_data(frame("UNSUBSCRIBE", id=1))
    clients[1].on_lost(CloseReason.CLIENT_LOST)
    assert not world.broker._exchanges[EXCHANGE]._bindings
    assert not world.broker._queues
