"""Clients that name themselves, and senders that try again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from stompbridge.brokers.base import Failure, Message, QueueListener
from stompbridge.brokers.queues import MemoryConsumer
from stompbridge.config import Dedup, Limits, Settings
from stompbridge.dedup.store import Settled
from stompbridge.gateway.admission import CLIENT_ID_MAX
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from tests.gateway.world import Connection, World, acks, frame

NAMED = frame("CONNECT", accept_version="1.2", client_id="alice")


@asynccontextmanager
async def a_world(
    on_doubt: Literal["redeliver", "drop"] = "redeliver",
    on_store_failure: Literal["deliver", "hold"] = "deliver",
    limits: Limits | None = None,
) -> AsyncIterator[World]:
    dedup = Dedup(on_doubt=on_doubt, on_store_failure=on_store_failure)
    world = World(Settings(dedup=dedup, limits=limits or Limits()))
    await world.broker.start(world)  # type: ignore[arg-type]
    yield world
    await world.broker.stop()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture
async def dropping() -> AsyncIterator[World]:
    """On doubt, messages are dropped."""
    async with a_world(on_doubt="drop") as world:
        yield world


@pytest.fixture
async def holding() -> AsyncIterator[World]:
    """Without the store, messages wait."""
    async with a_world(on_store_failure="hold", limits=Limits(backlog=2)) as world:
        yield world


async def turns() -> None:
    """Lets the embedded broker hand out what it has, and take what is acknowledged."""
    for _ in range(5):
        await asyncio.sleep(0)


def subscribe(client: Client, destination: str, ack: str = "auto", id: str = "s", **headers: str) -> None:
    client.on_data(frame("SUBSCRIBE", id=id, destination=destination, ack=ack, **headers))


def message(seq: int, body: str = "", redelivered: bool = False) -> Message:
    """One of a sender's messages to the topic or the queue ``a``."""
    return Message("amq.topic", "a", (body or f"m{seq}").encode(), sender="bob", seq=seq, redelivered=redelivered)


def publish(world: World, *messages: Message) -> None:
    """As if the mailbox of another process, which knows nothing of earlier copies, had got them."""
    mailbox = world.hub._mailboxes["amq.topic"]
    mailbox.seen = type(mailbox.seen)(1024, 60.0)
    world.hub.on_mailbox_messages("amq.topic", list(messages))


def queue_listener(world: World) -> QueueListener:
    """The newest consumer; its queue is one that this process knows nothing about yet."""
    world.router._histories.clear()
    listener = world.broker.listener
    assert listener is not None
    return listener


def leave(client: Client, connection: Connection) -> None:
    client.on_lost(CloseReason.CLIENT_LOST)
    connection.reason = CloseReason.CLIENT_LOST


# The name


@pytest.mark.parametrize("name", ["a", "ü" * (CLIENT_ID_MAX // 2), "x" * CLIENT_ID_MAX])
async def test_a_name_is_accepted(world: World, name: str) -> None:
    client, _ = world.client(frame("CONNECT", accept_version="1.2", client_id=name))
    assert client.named is not None
    assert world.store.holds_open(name)


@pytest.mark.parametrize("name", ["", "x" * (CLIENT_ID_MAX + 1), "ü" * (CLIENT_ID_MAX // 2 + 1)])
async def test_a_name_that_is_empty_or_too_long_is_refused_and_the_client_may_try_again(
    world: World, name: str
) -> None:
    client, connection = world.client(b"")
    client.on_data(frame("CONNECT", accept_version="1.2", client_id=name))
    assert connection.commands() == ["ERROR"]
    assert "'client-id' must have 1 to 255 bytes" in connection.sent[0]
    client.on_data(NAMED)
    assert connection.commands() == ["ERROR", "CONNECTED"]


async def test_frames_behind_connect_wait_for_the_store(world: World) -> None:
    world.store.late = True
    client, connection = world.client(b"")
    client.on_data(NAMED + frame("SEND", destination="/topic/a", receipt="sent"))
    assert connection.sent == []
    client.on_data(frame("SEND", "x" * 70_000, destination="/topic/a", receipt="big"))
    assert connection.reading_paused
    world.store.catch_up()
    assert connection.commands() == ["CONNECTED", "RECEIPT", "RECEIPT"]
    assert not connection.reading_paused


# The history


@pytest.mark.parametrize("ack", ["auto", "client", "client-individual"])
async def test_a_mailbox_message_comes_once_to_all_sessions_of_a_name(world: World, ack: str) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/topic/a", ack)
    publish(world, message(1))
    assert connection.bodies() == ["m1"]
    if ack != "auto":
        client.on_data(frame("ACK", id=acks(connection)[0]))
    publish(world, message(1))
    assert connection.bodies() == ["m1"]
    leave(client, connection)
    client, connection = world.client(NAMED)
    subscribe(client, "/topic/a", ack, id="another")
    publish(world, message(1), message(0), message(2))
    assert connection.bodies() == ["m0", "m2"]
    assert "redelivered:true" not in "".join(connection.sent)
    assert world.idempotence.suppressed == 2


@pytest.mark.parametrize("ack", ["auto", "client", "client-individual"])
async def test_a_queues_message_comes_once_to_all_sessions_of_a_name(world: World, ack: str) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", ack)
    queue_listener(world).on_queue_message(message(1), 100)
    assert connection.bodies() == ["m1"]
    if ack != "auto":
        client.on_data(frame("ACK", id=acks(connection)[0]))
    leave(client, connection)
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", ack)
    listener = queue_listener(world)
    listener.on_queue_message(message(1, redelivered=True), 100)
    listener.on_queue_message(message(2), 101)
    assert connection.bodies() == ["m2"]
    # What it has already is settled, and this process knows from now on.
    history = world.router.history("a")
    assert [copy.tag for copy in history._held.values()] == ([] if ack == "auto" else [101])
    listener.on_queue_message(message(1, redelivered=True), 102)
    assert world.router.counters()["queue_suppressed"] == 1


async def test_what_a_name_has_is_taken_from_the_queue(world: World) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a")
    client.on_data(frame("SEND", "x", destination="/queue/a"))
    await turns()
    assert connection.bodies() == ["x"]
    leave(client, connection)
    await turns()
    assert world.queued("a") == 0


async def test_every_name_has_its_own_history(world: World) -> None:
    alice, alices = world.client(NAMED)
    bob, bobs = world.client(frame("CONNECT", accept_version="1.2", client_id="bob"))
    for client in (alice, bob):
        subscribe(client, "/topic/a")
    publish(world, message(1))
    assert alices.bodies() == bobs.bodies() == ["m1"]


async def test_two_subscriptions_to_one_destination_both_get_their_copy(world: World) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/topic/a", id="first")
    subscribe(client, "/topic/a", id="second")
    subscribe(client, "/topic/*", id="pattern")
    publish(world, message(1))
    assert connection.bodies() == ["m1", "m1", "m1"]
    publish(world, message(1))
    assert connection.bodies() == ["m1", "m1", "m1"]


async def test_a_subscription_that_follows_an_ended_one_takes_nothing_from_the_others(world: World) -> None:
    client, connection = world.client(NAMED)
    for id in ("first", "second"):
        subscribe(client, "/topic/a", id=id)
    client.on_data(frame("UNSUBSCRIBE", id="first"))
    subscribe(client, "/topic/a", id="third")
    publish(world, message(1))
    assert connection.bodies() == ["m1", "m1"]


async def test_two_consumers_of_a_queue_have_one_history(world: World) -> None:
    """Each message goes to one of them; after a reconnect it may be the other."""
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", id="first")
    listener = queue_listener(world)
    subscribe(client, "/queue/a", id="second")
    listener.on_queue_message(message(1), 100)
    queue_listener(world).on_queue_message(message(1, redelivered=True), 100)
    assert connection.bodies() == ["m1"]


async def test_every_consumer_of_a_stream_reads_all_of_it(world: World) -> None:
    client, connection = world.client(NAMED)
    listeners = []
    for id in ("first", "second"):
        subscribe(client, "/queue/a", "client", id=id)
        listeners.append(queue_listener(world))
    for listener in (*listeners, listeners[0]):
        read = Message("", "a", b"x", sender="bob", seq=1, headers={"x-stream-offset": 0})
        listener.on_queue_message(read, 100)
    assert connection.bodies() == ["x", "x"]
    assert world.router.counters()["queue_suppressed"] == 1


async def test_a_headers_exchange_has_a_queue_for_each_subscription(world: World) -> None:
    client, connection = world.client(NAMED)
    for id in ("first", "second"):
        subscribe(client, "/exchange/amq.headers/a", id=id)
    client.on_data(frame("SEND", "x", destination="/exchange/amq.headers/a"))
    await turns()
    assert connection.bodies() == ["x", "x"]


async def test_notices_of_the_process_need_no_history(world: World) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/internal/news")
    client.on_check(0.0)
    world.hub.publish_internal("news", b"x", "text/plain")
    world.hub.publish_internal("news", b"x", "text/plain")
    assert connection.bodies() == ["x", "x"]


async def test_messages_of_other_programs_are_recognised_by_their_id(world: World) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/topic/a")
    foreign = Message("amq.topic", "a", b"x", message_id="order-7")
    world.hub.on_mailbox_messages("amq.topic", [foreign])
    world.hub.on_mailbox_messages("amq.topic", [foreign])
    assert connection.bodies() == ["x"]
    assert world.hub.suppressed == 1
    leave(client, connection)
    client, connection = world.client(NAMED)
    subscribe(client, "/topic/a")
    publish(world, foreign)
    assert connection.bodies() == []


@pytest.mark.parametrize("connect", [NAMED, frame("CONNECT", accept_version="1.2")])
async def test_a_queues_messages_of_other_programs_are_recognised_by_their_id(world: World, connect: bytes) -> None:
    client, connection = world.client(connect)
    subscribe(client, "/queue/a")
    listener = queue_listener(world)
    foreign = Message("", "a", b"x", message_id="order-7")
    listener.on_queue_message(foreign, 100)
    listener.on_queue_message(foreign, 101)
    assert connection.bodies() == ["x"]
    assert world.router.counters()["queue_suppressed"] == 1


@pytest.mark.parametrize("ack", ["auto", "client"])
@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_what_nothing_tells_from_another_passes_as_the_broker_marked_it(
    world: World, destination: str, ack: str
) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, destination, ack)
    first, again = Message("", "a", b"x"), Message("", "a", b"x", redelivered=True)
    if destination == "/topic/a":
        publish(world, first, again)
    else:
        listener = queue_listener(world)
        listener.on_queue_message(first, 100)
        listener.on_queue_message(again, 101)
    assert connection.bodies() == ["x", "x"]
    assert ["redelivered:true" in sent for sent in connection.sent] == [False, True]
    if ack == "client":
        client.on_data(frame("ACK", id=acks(connection)[1], receipt="done"))
        assert connection.receipts() == ["done"]


# Take-over


async def test_the_newer_session_takes_over(world: World) -> None:
    older, olders = world.client(NAMED)
    subscribe(older, "/topic/a")
    newer, newers = world.client(NAMED)
    assert "message:Session taken over" in olders.sent[0]
    assert "A newer session connected as 'alice'." in olders.sent[0]
    assert olders.closed == (CloseReason.TAKEN_OVER, "Session taken over")
    older.on_lost(CloseReason.TAKEN_OVER)
    subscribe(newer, "/topic/a")
    publish(world, message(1))
    world.client(NAMED)
    assert len(olders.sent) == 1
    assert newers.bodies() == ["m1"]
    assert world.store.holds_open("alice")


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_what_the_older_session_holds_is_the_newers_in_doubt(world: World, destination: str) -> None:
    older, olders = world.client(NAMED)
    subscribe(older, destination, "client")
    if destination == "/topic/a":
        publish(world, message(1))
    else:
        queue_listener(world).on_queue_message(message(1), 100)
    assert olders.bodies() == ["m1"]
    newer, newers = world.client(NAMED)
    subscribe(newer, destination, "client")
    if destination == "/topic/a":
        publish(world, message(1))
    else:
        queue_listener(world).on_queue_message(message(1), 100)
    assert newers.bodies() == ["m1"]
    assert "redelivered:true" in newers.sent[0]
    newer.on_data(frame("ACK", id=acks(newers)[0]))
    assert world.store.locks("alice") == 0


# In doubt


@pytest.mark.parametrize("end", ["lost", "disconnect"])
async def test_what_was_not_acknowledged_comes_to_the_next_session_marked(world: World, end: str) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", "client")
    client.on_data(frame("SEND", "x", destination="/queue/a"))
    await turns()
    assert connection.bodies() == ["x"]
    if end == "disconnect":
        client.on_data(frame("DISCONNECT", receipt="bye"))
        assert connection.receipts() == ["bye"]
    leave(client, connection)
    assert not world.store.holds_open("alice")
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", "client")
    await turns()
    assert connection.bodies() == ["x"]
    assert "redelivered:true" in connection.sent[0]
    assert world.idempotence.in_doubt == 1
    client.on_data(frame("ACK", id=acks(connection)[0]))
    leave(client, connection)
    await turns()
    assert world.queued("a") == 0
    assert world.store.locks("alice") == 0


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_what_was_not_acknowledged_is_dropped_where_the_settings_say_so(
    dropping: World, destination: str
) -> None:
    world = dropping
    client, connection = world.client(NAMED)
    subscribe(client, destination, "client")
    for _ in range(2):
        if destination == "/topic/a":
            publish(world, message(1))
        else:
            queue_listener(world).on_queue_message(message(1), 100)
        if client.session.unacked:
            assert connection.bodies() == ["m1"]
            leave(client, connection)
            client, connection = world.client(NAMED)
            subscribe(client, destination, "client")
    assert connection.bodies() == []
    assert world.idempotence.in_doubt == 1
    assert world.store.locks("alice") == 0


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_what_is_given_back_comes_again_and_is_not_in_doubt(dropping: World, destination: str) -> None:
    world = dropping
    client, connection = world.client(NAMED)
    subscribe(client, destination, "client")
    client.on_data(frame("SEND", "x", destination=destination))
    await turns()
    client.on_data(frame("NACK", id=acks(connection)[0]))
    await turns()
    assert connection.bodies() == ["x", "x"]
    assert "redelivered:true" in connection.sent[1]
    client.on_data(frame("NACK", id=acks(connection)[1], requeue="false"))
    await turns()
    assert connection.bodies() == ["x", "x"]
    assert world.store.locks("alice") == 0
    assert world.idempotence.in_doubt == 0


async def test_what_goes_back_with_its_subscription_comes_to_the_next_at_once(dropping: World) -> None:
    world = dropping
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", "client")
    client.on_data(frame("SEND", "x", destination="/queue/a"))
    await turns()
    client.on_data(frame("UNSUBSCRIBE", id="s"))
    assert world.store.locks("alice") == 0
    subscribe(client, "/queue/a", "client")
    await turns()
    assert connection.bodies() == ["x", "x"]
    assert world.idempotence.in_doubt == 0


async def test_what_a_mailbox_subscription_still_holds_back_is_not_in_doubt(world: World) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/topic/a", "client", prefetch_count="1")
    publish(world, message(1), message(2), Message("amq.topic", "a", b"anonymous"))
    assert connection.bodies() == ["m1"]
    assert world.store.locks("alice") == 2
    client.on_data(frame("UNSUBSCRIBE", id="s"))
    assert world.store.locks("alice") == 0


async def test_a_message_of_a_dead_session_is_busy_for_nobody(world: World) -> None:
    """Busy is what the same session holds: it is asked for again, and granted in doubt after the deadline."""
    client, connection = world.client(NAMED)
    subscribe(client, "/topic/a", "client")
    publish(world, message(1))
    publish(world, message(1), message(2))
    client.on_check(0.0)
    assert connection.bodies() == ["m1"]
    world.store.now += 10.1
    client.on_check(0.5)
    assert connection.bodies() == ["m1", "m1", "m2"]
    assert "redelivered:true" in connection.sent[1]


async def test_a_queue_asks_again_for_what_is_busy(world: World) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", "client")
    listener = queue_listener(world)
    listener.on_queue_message(message(1), 100)
    world.router.history("a")._held.clear()
    listener.on_queue_message(message(1, redelivered=True), 101)
    assert connection.bodies() == ["m1"]
    client.on_data(frame("ACK", id=acks(connection)[0]))
    client.on_check(0.5)
    assert connection.bodies() == ["m1"]
    assert world.idempotence.suppressed == 1


# Limits


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_the_message_that_is_one_too_many_is_not_claimed(destination: str) -> None:
    async with a_world(limits=Limits(unacked=1)) as world:
        client, connection = world.client(NAMED)
        subscribe(client, destination, "client")
        client.on_data(frame("SEND", "x", destination=destination))
        client.on_data(frame("SEND", "y", destination=destination))
        await turns()
        assert connection.bodies() == ["x"]
        assert connection.closed == (CloseReason.SLOW_CONSUMER, "Too many unacknowledged messages")
        assert world.store.locks("alice") == 1


async def test_what_waits_for_the_store_is_bounded_at_a_mailbox(holding: World) -> None:
    client, connection = holding.client(NAMED)
    subscribe(client, "/topic/a")
    holding.store.away = True
    publish(holding, message(1), message(2))
    assert connection.closed is None
    publish(holding, message(3))
    assert connection.closed == (CloseReason.STOMP_ERROR, "Slow consumer")
    assert "2 messages wait for the deduplication store" in connection.sent[0]


async def test_what_waits_for_the_store_at_a_queue_is_bounded_by_its_prefetch(holding: World) -> None:
    client, connection = holding.client(NAMED)
    subscribe(client, "/queue/a", prefetch_count="3")
    listener = queue_listener(holding)
    holding.store.away = True
    for seq in range(3):
        listener.on_queue_message(message(seq), 100 + seq)
    assert connection.closed is None
    holding.store.away = False
    client.on_check(0.5)
    assert connection.bodies() == ["m0", "m1", "m2"]


# Without the store


async def test_without_the_store_a_client_has_no_name(world: World) -> None:
    world.store.away = True
    client, connection = world.client(NAMED)
    assert client.named is None
    assert world.idempotence.bypassed == 1
    subscribe(client, "/topic/a")
    publish(world, message(1))
    assert connection.bodies() == ["m1"]


async def test_without_the_store_a_client_is_refused_where_the_settings_say_so(holding: World) -> None:
    holding.store.away = True
    client, connection = holding.client(b"")
    client.on_data(NAMED + NAMED)
    assert connection.commands() == ["ERROR", "ERROR"]
    assert "message:Store unavailable" in connection.sent[0]
    holding.store.away = False
    client.on_data(NAMED)
    assert connection.commands()[2:] == ["CONNECTED"]
    assert holding.idempotence.bypassed == 0


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_a_store_that_goes_away_is_bypassed(world: World, destination: str) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, destination, "client")
    world.store.away = True
    client.on_data(frame("SEND", "x", destination=destination))
    await turns()
    assert connection.bodies() == ["x"]
    assert world.idempotence.bypassed == 1
    client.on_data(frame("ACK", id=acks(connection)[0], receipt="done"))
    assert connection.receipts() == ["done"]


# The client is gone when the store answers


async def test_a_session_that_is_opened_too_late_is_closed(world: World) -> None:
    world.store.late = True
    client, connection = world.client(b"")
    client.on_data(NAMED)
    client.on_lost(CloseReason.CLIENT_LOST)
    world.store.catch_up()
    assert not world.store.holds_open("alice")
    assert connection.sent == []


async def test_a_session_that_is_opened_while_the_connection_closes_is_closed(world: World) -> None:
    world.store.late = True
    client, connection = world.client(b"")
    client.on_data(NAMED)
    connection.close(CloseReason.PING_LOST)
    world.store.catch_up()
    assert not world.store.holds_open("alice")
    assert connection.sent == []


async def test_a_refusal_to_open_comes_too_late(holding: World) -> None:
    holding.store.late = holding.store.away = True
    client, connection = holding.client(b"")
    client.on_data(NAMED)
    client.on_check(10.0)
    assert connection.closed == (CloseReason.CONNECT_TIMEOUT, "Connect timeout")
    holding.store.catch_up()
    assert connection.commands() == ["ERROR"]


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
@pytest.mark.parametrize("ack", ["auto", "client"])
async def test_a_claim_that_is_answered_too_late_is_given_back(world: World, destination: str, ack: str) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, destination, ack)
    world.store.late = True
    client.on_data(frame("SEND", "x", destination=destination))
    await turns()
    assert world.store.locks("alice") == 1
    leave(client, connection)
    world.store.catch_up()
    assert connection.bodies() == []
    assert world.store.locks("alice") == 0
    if destination == "/queue/a":
        assert not world.router.history("a")._held
        assert world.queued("a") == 1


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_a_claim_that_is_answered_while_the_connection_closes_is_given_back(
    world: World, destination: str
) -> None:
    """What would be written now is lost, and must not be settled as if it had arrived."""
    client, connection = world.client(NAMED)
    subscribe(client, destination)
    world.store.late = True
    client.on_data(frame("SEND", "x", destination=destination))
    client.on_data(frame("SEND", "y", destination=destination))
    await turns()
    connection.close(CloseReason.PING_LOST)
    world.store.catch_up()
    assert connection.bodies() == []
    client.on_lost(CloseReason.PING_LOST)
    await turns()
    assert world.store.locks("alice") == 0
    if destination == "/queue/a":
        assert not world.router.history("a")._held
        assert world.queued("a") == 2


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_what_waited_for_the_store_is_not_written_to_a_connection_that_closes(
    holding: World, destination: str
) -> None:
    client, connection = holding.client(NAMED)
    subscribe(client, destination)
    holding.store.late = True
    anonymous = Message("amq.topic", "a", b"anonymous")
    if destination == "/topic/a":
        publish(holding, message(1), anonymous)
    else:
        listener = queue_listener(holding)
        for tag, each in enumerate([message(1), anonymous]):
            listener.on_queue_message(each, 100 + tag)
    connection.close(CloseReason.PING_LOST)
    holding.store.catch_up()
    assert connection.bodies() == []
    client.on_lost(CloseReason.PING_LOST)
    assert holding.store.locks("alice") == 0


async def test_what_is_asked_for_when_a_subscription_ends_goes_on_where_it_came_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a broker loss the message that the first waits to be granted came to another's consumer, too."""
    first, connection = world.client(NAMED)
    subscribe(first, "/queue/a", "client")
    first_listener = queue_listener(world)
    second, others = world.client(frame("CONNECT", accept_version="1.2", client_id="bob"))
    subscribe(second, "/queue/a", "client")
    second_listener = world.broker.listener
    assert second_listener is not None
    refused: list[tuple[tuple[int, ...], bool]] = []
    monkeypatch.setattr(MemoryConsumer, "nack", lambda _, tags, requeue: refused.append((tags, requeue)))
    world.store.late = True
    first_listener.on_queue_message(message(1), 100)
    second_listener.on_queue_message(message(1, redelivered=True), 200)
    leave(first, connection)
    world.store.catch_up()
    assert refused == [((200,), True)]
    world.store.late = False
    second_listener.on_queue_message(message(1, redelivered=True), 201)
    assert others.bodies() == ["m1"]


# Senders


def send(body: str = "x", key: str = "k", destination: str = "/queue/a", **headers: str) -> bytes:
    return frame("SEND", body, destination=destination, idempotency_key=key, **headers)


async def test_a_send_with_a_key_is_published_once(world: World) -> None:
    client, connection = world.client()
    client.on_data(send(receipt="1"))
    await turns()
    other, others = world.client()
    other.on_data(send(receipt="2") + send("y", receipt="3"))
    assert connection.receipts() == ["1"]
    assert others.commands() == ["RECEIPT", "ERROR"]
    assert "message:Idempotency key reused" in others.sent[1]
    assert "receipt-id:3" in others.sent[1]
    assert world.queued("a") == 1
    assert world.once.repeated == 1


async def test_a_repetition_waits_for_what_is_in_flight_and_so_do_the_frames_behind_it(world: World) -> None:
    first, firsts = world.client()
    second, seconds = world.client()
    first.on_data(frame("SEND", "warm", destination="/queue/a"))
    await turns()
    world.broker.hold_confirms = True
    first.on_data(send(receipt="1"))
    second.on_data(send(receipt="2") + frame("BEGIN", transaction="t", receipt="3"))
    assert firsts.sent == seconds.sent == []
    world.broker.confirms.pop(0)(None)
    assert firsts.receipts() == ["1"]
    assert seconds.receipts() == ["2", "3"]
    assert world.queued("a") == 2


async def test_a_repetition_takes_the_place_of_what_failed(world: World) -> None:
    first, firsts = world.client()
    second, seconds = world.client()
    world.broker.hold_confirms = True
    first.on_data(send(destination="/topic/a", receipt="1"))
    second.on_data(send(destination="/topic/a", receipt="2"))
    world.broker.confirms.pop(0)(Failure("rejected", "full", fatal=False))
    assert firsts.commands() == ["ERROR"]
    assert seconds.sent == []
    world.broker.confirms.pop(0)(None)
    assert seconds.receipts() == ["2"]


@pytest.mark.parametrize("header", [{"durable": "perhaps"}, {"x_max_length": "many"}])
async def test_a_bad_frame_leaves_its_key_free(world: World, header: dict[str, str]) -> None:
    client, connection = world.client()
    world.store.late = True
    client.on_data(send(receipt="1", **header))
    world.store.catch_up()
    assert connection.commands() == ["ERROR"]
    assert "receipt-id:1" in connection.sent[0]
    world.store.late = False
    client.on_data(send(receipt="2"))
    await turns()
    assert connection.receipts() == ["2"]


async def test_a_bad_key_is_told_with_the_receipt(world: World) -> None:
    client, connection = world.client()
    client.on_data(send(key="", receipt="1") + send(receipt="2"))
    await turns()
    assert connection.commands() == ["ERROR", "RECEIPT"]
    assert "receipt-id:1" in connection.sent[0]


async def test_without_the_store_a_send_with_a_key_is_refused_where_the_settings_say_so(holding: World) -> None:
    client, connection = holding.client()
    holding.store.away = True
    client.on_data(send(receipt="1") + frame("SEND", destination="/topic/a", receipt="2"))
    assert connection.commands() == ["ERROR", "RECEIPT"]
    assert "message:Store unavailable" in connection.sent[0]


async def test_an_attempt_goes_on_when_its_sender_has_left(world: World) -> None:
    client, connection = world.client()
    world.store.late = True
    client.on_data(send(destination="/topic/a", receipt="1"))
    leave(client, connection)
    world.store.catch_up()
    assert connection.sent == []
    world.store.late = False
    other, others = world.client()
    other.on_data(send(destination="/topic/a", receipt="2"))
    assert others.receipts() == ["2"]
    assert world.once.repeated == 1


# Transactions whose SENDs wait


async def test_a_commits_receipt_comes_after_all_of_its_sends_that_had_to_wait(world: World) -> None:
    client, connection = world.client()
    world.store.late = True
    client.on_data(frame("BEGIN", transaction="t"))
    for number in range(3):
        client.on_data(send(str(number), f"k{number}", "/topic/a", transaction="t", receipt=str(number)))
    client.on_data(
        frame("COMMIT", transaction="t", receipt="done") + frame("SEND", destination="/topic/a", receipt="9")
    )
    for number in range(3):
        assert connection.receipts() == [str(earlier) for earlier in range(number)]
        assert len(world.store.answers) == 1
        world.store.answers.pop()()
    assert connection.receipts() == ["0", "1", "2", "done", "9"]


async def test_a_commits_sends_to_new_queues_keep_their_order(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("BEGIN", transaction="t"))
    for number, destination in enumerate(["/queue/a", "/queue/b", "/queue/a", "/topic/a"]):
        client.on_data(frame("SEND", str(number), destination=destination, transaction="t", receipt=str(number)))
    client.on_data(frame("COMMIT", transaction="t", receipt="done"))
    await turns()
    assert connection.receipts() == ["0", "1", "2", "3", "done"]
    subscribe(client, "/queue/a")
    await turns()
    assert connection.bodies() == ["0", "2"]


async def test_a_commit_with_a_send_that_failed_late_has_no_receipt(world: World) -> None:
    client, connection = world.client()
    client.on_data(send(destination="/topic/a", key="used"))
    world.store.late = True
    client.on_data(frame("BEGIN", transaction="t"))
    client.on_data(send("other body", "used", "/topic/a", transaction="t", receipt="1"))
    client.on_data(send("fine", "new", "/topic/a", transaction="t", receipt="2"))
    client.on_data(frame("COMMIT", transaction="t", receipt="done") + frame("BEGIN", transaction="u", receipt="next"))
    while world.store.answers:
        world.store.catch_up()
    assert connection.commands() == ["ERROR", "RECEIPT", "RECEIPT"]
    assert connection.receipts() == ["2", "next"]
    # The failure of one transaction is not the next one's.
    client.on_data(frame("COMMIT", transaction="u", receipt="also done"))
    assert connection.receipts()[-1] == "also done"


async def test_a_send_before_the_transaction_does_not_fail_it(world: World) -> None:
    client, connection = world.client()
    world.broker.hold_confirms = True
    client.on_data(frame("SEND", destination="/topic/a", receipt="before"))
    client.on_data(frame("BEGIN", transaction="t") + frame("SEND", destination="/topic/a", transaction="t"))
    client.on_data(frame("COMMIT", transaction="t", receipt="done"))
    world.broker.confirms.pop(0)(Failure("rejected", "full", fatal=False))
    assert connection.commands() == ["ERROR"]
    world.broker.confirms.pop(0)(None)
    assert connection.receipts() == ["done"]


@pytest.mark.parametrize("connect", [NAMED, frame("CONNECT", accept_version="1.2")])
async def test_what_a_commit_did_not_come_to_acknowledge_goes_back(world: World, connect: bytes) -> None:
    client, connection = world.client(connect)
    subscribe(client, "/queue/a", "client")
    client.on_data(frame("SEND", "x", destination="/queue/a"))
    await turns()
    world.store.late = True
    client.on_data(frame("BEGIN", transaction="t") + send(destination="/topic/a", transaction="t"))
    client.on_data(frame("ACK", id=acks(connection)[0], transaction="t") + frame("COMMIT", transaction="t"))
    leave(client, connection)
    other, others = world.client()
    subscribe(other, "/queue/a", "client")
    await turns()
    assert others.bodies() == ["x"]
    assert "redelivered:true" in others.sent[0]


async def test_what_a_commit_did_not_come_to_acknowledge_goes_back_with_its_subscription(world: World) -> None:
    client, connection = world.client(NAMED)
    subscribe(client, "/queue/a", "client")
    client.on_data(frame("SEND", "x", destination="/queue/a"))
    await turns()
    world.store.late = True
    client.on_data(frame("BEGIN", transaction="t") + send(destination="/topic/a", transaction="t"))
    client.on_data(frame("ACK", id=acks(connection)[0], transaction="t"))
    client.on_data(frame("COMMIT", transaction="t", receipt="done"))
    listener = world.broker.listener
    assert listener is not None
    listener.on_queue_cancelled(None)
    assert not world.router.history("a")._held
    assert world.store.locks("alice") == 0
    world.store.catch_up()
    assert connection.commands()[1:] == ["ERROR", "RECEIPT"]


async def test_the_receipt_of_an_ack_waits_for_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Settled] = []
    monkeypatch.setattr("stompbridge.dedup.memory._MemoryLock.commit", lambda _lock, done: kept.append(done))
    client, connection = world.client(NAMED)
    client.on_data(frame("SUBSCRIBE", id="s", destination="/topic/a", ack="client"))
    client.on_data(frame("SEND", "x", destination="/topic/a"))
    client.on_data(frame("ACK", id=acks(connection)[0], receipt="r"))
    assert connection.receipts() == []
    kept.pop()(True)
    assert connection.receipts() == ["r"]
