from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stompbridge.brokers.base import Failure, Message
from stompbridge.config import Settings, Stomp
from stompbridge.gateway.closing import CloseReason
from stompbridge.stomp.errors import bad_command
from tests.gateway.world import LIMITS, World, acks, frame


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(Settings(limits=LIMITS, stomp=Stomp(hosts=("chat.example",))), in_flight_max=2)
    await world.broker.start(world)  # type: ignore[arg-type]
    yield world
    await world.broker.stop()


async def test_a_host_that_is_not_served_is_refused_and_the_client_may_try_again(world: World) -> None:
    client, connection = world.client(b"")
    client.on_data(frame("CONNECT", accept_version="1.2", host="elsewhere"))
    assert connection.commands() == ["ERROR"]
    client.on_data(frame("CONNECT", accept_version="1.2", host="chat.example"))
    assert connection.commands() == ["ERROR", "CONNECTED"]


async def test_nothing_longer_than_a_connect_is_taken_before_it(world: World) -> None:
    _, connection = world.client(b"")
    assert connection.max_message == LIMITS.frame_before_connect
    _, connection = world.client()
    assert connection.max_message == LIMITS.frame


async def test_a_client_that_never_connects_is_told_and_closed(world: World) -> None:
    client, connection = world.client(b"")
    client.on_check(4.9)
    assert connection.closed is None
    client.on_check(5.0)
    assert connection.commands() == ["ERROR"]
    assert connection.closed == (CloseReason.CONNECT_TIMEOUT, "Connect timeout")


async def test_heart_beats_go_out_when_the_server_is_silent(world: World) -> None:
    client, connection = world.client(frame("CONNECT", accept_version="1.2", heart_beat="0,10000"))
    assert connection.ping
    client.on_check(8.9)
    assert connection.sent == []
    client.on_check(9.0)
    assert connection.sent == ["\n"]
    connection.last_write = 17.5
    client.on_check(26.0)
    assert connection.sent == ["\n"]
    client.on_check(26.5)
    assert connection.sent == ["\n", "\n"]


async def test_a_client_whose_heart_beats_stop_is_closed(world: World) -> None:
    client, connection = world.client(frame("CONNECT", accept_version="1.2", heart_beat="10000,0"))
    assert not connection.ping
    client.on_check(24.0)
    assert connection.closed is None
    client.on_check(26.0)
    assert connection.closed == (CloseReason.HEARTBEAT_LOST, "")


async def test_later_frames_wait_for_a_binding_of_their_own_session_only(world: World) -> None:
    world.broker.hold_binds = True
    client, connection = world.client()
    _, other = other_pair = world.client()
    subscribe = frame("SUBSCRIBE", id="s", destination="/exchange/chat/k", receipt="sub")
    client.on_data(subscribe + frame("SEND", "hello", destination="/exchange/chat/k", receipt="sent"))
    assert connection.sent == []
    other_pair[0].on_data(frame("SEND", "from another", destination="/exchange/chat/other", receipt="r"))
    assert other.receipts() == ["r"]
    world.broker.binds.pop()(None)
    assert connection.receipts() == ["sub", "sent"]
    assert connection.bodies() == ["hello"]


async def test_a_client_that_sends_on_behind_a_held_frame_is_not_read(world: World) -> None:
    world.broker.hold_binds = True
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/exchange/chat/k"))
    big = frame("SEND", "x" * 70_000, destination="/exchange/chat/k", receipt="r")
    client.on_data(big[:10])
    assert connection.pauses == 0
    client.on_data(big[10:])
    assert connection.reading_paused
    world.broker.binds.pop()(None)
    assert not connection.reading_paused
    assert connection.receipts() == ["r"]


async def test_a_binding_that_comes_after_the_client_left_is_nobodys(world: World) -> None:
    world.broker.hold_binds = True
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/exchange/chat/k", receipt="r"))
    client.on_lost(CloseReason.CLIENT_LOST)
    world.broker.binds.pop()(None)
    assert connection.sent == []


async def test_a_refused_subscription_leaves_its_id_free(world: World) -> None:
    world.broker.hold_binds = True
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/exchange/chat/k", receipt="r"))
    world.broker.binds.pop()(Failure("rejected", "not now", fatal=False))
    assert connection.commands() == ["ERROR"]
    assert "receipt-id:r" in connection.sent[0]
    client.on_data(frame("SUBSCRIBE", id="s", destination="/nonsense/chat", receipt="r2"))
    client.on_data(frame("SUBSCRIBE", id="s", destination="/exchange/chat/k", receipt="r3"))
    world.broker.binds.pop()(None)
    assert connection.receipts() == ["r3"]


async def test_unconfirmed_sends_of_one_session_are_bounded(world: World) -> None:
    world.broker.hold_confirms = True
    client, connection = world.client()
    for number in range(4):
        client.on_data(frame("SEND", destination="/topic/a", receipt=number))
    assert len(world.broker.confirms) == 2
    world.broker.confirms.pop(0)(None)
    assert connection.receipts() == ["0"]
    assert len(world.broker.confirms) == 2
    while world.broker.confirms:
        world.broker.confirms.pop(0)(None)
    assert connection.receipts() == ["0", "1", "2", "3"]


async def test_a_congested_broker_stops_those_who_send(world: World) -> None:
    client, connection = world.client()
    world.broker.stuck = True
    client.on_data(frame("SEND", destination="/topic/a", receipt=1) + frame("SEND", destination="/topic/a", receipt=2))
    assert connection.receipts() == ["1"]
    world.broker.stuck = False
    world.broker.clear.pop()()
    assert connection.receipts() == ["1", "2"]


async def test_what_the_broker_refuses_is_told_with_the_receipt(world: World) -> None:
    world.broker.hold_confirms = True
    client, connection = world.client()
    client.on_data(frame("SEND", destination="/topic/a", receipt="r"))
    world.broker.confirms.pop()(Failure("rejected", "the queue is full", fatal=False))
    assert connection.commands() == ["ERROR"]
    assert "receipt-id:r" in connection.sent[0]
    assert connection.closed is None
    client.on_data(frame("SEND", destination="/topic/a", receipt="r"))
    world.broker.confirms.pop()(Failure("not_found", "NOT_FOUND - no exchange"))
    assert connection.closed == (CloseReason.STOMP_ERROR, "not_found")
    client.on_lost(CloseReason.STOMP_ERROR)


async def test_a_confirm_after_the_client_left_is_dropped(world: World) -> None:
    world.broker.hold_confirms = True
    client, connection = world.client()
    client.on_data(frame("SEND", destination="/topic/a", receipt="r"))
    client.on_lost(CloseReason.CLIENT_LOST)
    world.broker.confirms.pop()(None)
    assert connection.sent == []


async def test_disconnect_is_answered_when_all_before_it_is_done(world: World) -> None:
    world.broker.hold_confirms = True
    client, connection = world.client()
    client.on_data(frame("SEND", destination="/topic/a", receipt="sent") + frame("DISCONNECT", receipt="bye"))
    assert connection.sent == []
    world.broker.confirms.pop()(None)
    assert connection.receipts() == ["sent", "bye"]
    assert connection.closed == (CloseReason.CLIENT_DISCONNECT, "")


async def test_commit_is_answered_when_all_of_its_sends_are_confirmed(world: World) -> None:
    world.broker.hold_confirms = True
    client, connection = world.client()
    client.on_data(frame("BEGIN", transaction="t"))
    for number in range(2):
        client.on_data(frame("SEND", destination="/topic/a", transaction="t", receipt=number))
    client.on_data(frame("COMMIT", transaction="t", receipt="done") + frame("BEGIN", transaction="u", receipt="next"))
    assert connection.sent == []
    world.broker.confirms.pop(0)(None)
    assert connection.receipts() == ["0"]
    world.broker.confirms.pop(0)(None)
    assert sorted(connection.receipts()[1:3]) == ["1", "done"]
    assert connection.receipts()[3] == "next"


async def test_a_transaction_of_acknowledgements_is_answered_at_once(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/topic/a", ack="client"))
    client.on_data(frame("SEND", "x", destination="/topic/a"))
    client.on_data(frame("BEGIN", transaction="t") + frame("ACK", id=acks(connection)[0], transaction="t"))
    client.on_data(frame("COMMIT", transaction="t", receipt="done"))
    assert connection.receipts() == ["done"]
    assert not client.session.unacked


@pytest.mark.parametrize("wrong", [{"destination": "/nonsense/a"}, {"destination": "/queue/a", "durable": "maybe"}])
async def test_a_send_that_can_not_be_served_is_refused_before_the_commit(world: World, wrong: dict[str, str]) -> None:
    client, connection = world.client()
    client.on_data(frame("BEGIN", transaction="t") + frame("SEND", **wrong, transaction="t", receipt="never"))
    assert connection.commands() == ["ERROR"]
    client.on_data(frame("SEND", destination="/topic/a", transaction="t"))
    client.on_data(frame("COMMIT", transaction="t", receipt="done"))
    assert connection.receipts() == ["done"]
    assert connection.commands() == ["ERROR", "RECEIPT"]


async def test_a_commit_with_a_failed_send_has_no_receipt_but_the_error(world: World) -> None:
    client, connection = world.client()
    world.broker.hold_confirms = True
    client.on_data(frame("BEGIN", transaction="t") + frame("SEND", destination="/topic/a", transaction="t"))
    client.on_data(frame("COMMIT", transaction="t", receipt="done"))
    world.broker.confirms.pop()(Failure("rejected", "full", fatal=False))
    assert connection.commands() == ["ERROR"]
    assert connection.receipts() == []


async def test_prefetch_bounds_what_a_mailbox_subscription_holds(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/topic/a", ack="client-individual", prefetch_count=1))
    sender, _ = world.client()
    for number in range(3):
        sender.on_data(frame("SEND", str(number), destination="/topic/a"))
    assert connection.bodies() == ["0"]
    client.on_data(frame("ACK", id=acks(connection)[0]))
    assert connection.bodies() == ["0", "1"]
    client.on_data(frame("UNSUBSCRIBE", id="s"))
    assert connection.bodies() == ["0", "1"]


async def test_a_backlog_beyond_its_bound_ends_the_session(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/topic/a", ack="client", prefetch_count=1))
    sender, _ = world.client()
    for number in range(5):
        sender.on_data(frame("SEND", str(number), destination="/topic/a"))
    assert connection.bodies() == ["0"]
    assert connection.commands()[-1] == "ERROR"
    assert connection.closed is not None
    assert connection.closed[1] == "Slow consumer"


@pytest.mark.parametrize("destination", ["/topic/a", "/queue/a"])
async def test_too_many_unacknowledged_messages_end_the_session(world: World, destination: str) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination=destination, ack="client"))
    sender, _ = world.client()
    for number in range(5):
        sender.on_data(frame("SEND", str(number), destination=destination))
        await asyncio.sleep(0)
    assert connection.bodies() == ["0", "1", "2"]
    assert connection.closed == (CloseReason.SLOW_CONSUMER, "Too many unacknowledged messages")


async def test_the_receipt_of_a_nack_comes_before_the_message_comes_again(world: World) -> None:
    client, connection = world.client()
    client.on_data(
        frame("SUBSCRIBE", id="0", destination="/topic/a", ack="client") + frame("SEND", destination="/topic/a")
    )
    client.on_data(frame("NACK", id=acks(connection)[0], receipt="n"))
    assert connection.commands() == ["MESSAGE", "RECEIPT", "MESSAGE"]


async def test_the_receipt_of_an_ack_comes_before_what_waited_behind_it(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="0", destination="/topic/a", ack="client", prefetch_count="1"))
    client.on_data(2 * frame("SEND", destination="/topic/a"))
    client.on_data(frame("ACK", id=acks(connection)[0], receipt="a"))
    assert connection.commands() == ["MESSAGE", "RECEIPT", "MESSAGE"]


async def test_nack_gives_a_mailbox_message_back_to_its_subscription(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/topic/a", ack="client"))
    client.on_data(frame("SEND", "x", destination="/topic/a"))
    client.on_data(frame("NACK", id=acks(connection)[0]))
    assert connection.bodies() == ["x", "x"]
    assert "redelivered:true" in connection.sent[-1]
    client.on_data(frame("NACK", id=acks(connection)[1], requeue="false"))
    assert connection.bodies() == ["x", "x"]


async def test_an_auto_queue_subscription_owes_its_acks_while_the_client_does_not_read(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/queue/a"))
    sender, _ = world.client()
    listener = world.broker.listener
    connection.writing_paused = True
    sender.on_data(frame("SEND", "x", destination="/queue/a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert connection.bodies() == ["x"]
    assert listener is not None
    owed = listener._acks  # type: ignore[attr-defined]
    assert len(owed) == 1
    connection.writing_paused = False
    client.on_writable()
    assert owed == []


async def test_after_a_restored_link_what_was_written_is_recognised(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/queue/a"))
    listener = world.broker.listener
    assert listener is not None
    message = Message("", "a", b"x", sender="someone", seq=1)
    listener.on_queue_message(message, 1)
    listener.on_queue_restored()
    listener.on_queue_message(message, 2)
    assert connection.bodies() == ["x"]
    assert world.router.counters()["queue_suppressed"] == 1


async def test_what_is_held_is_settled_where_it_came_last(world: World) -> None:
    """Two consumers of one queue: after a broker loss the message that the first client holds comes to the second."""
    first, first_connection = world.client()
    first.on_data(frame("SUBSCRIBE", id="s", destination="/queue/a", ack="client"))
    first_listener = world.broker.listener
    second, second_connection = world.client()
    second.on_data(frame("SUBSCRIBE", id="s", destination="/queue/a", ack="client"))
    second_listener = world.broker.listener
    assert first_listener is not None
    assert second_listener is not None
    messages = [Message("", "a", b"x", sender="someone", seq=seq) for seq in range(2)]
    for message in messages:
        first_listener.on_queue_message(message, 100)
    for message in messages:
        second_listener.on_queue_message(message, 200)
    assert first_connection.bodies() == ["x", "x"]
    assert second_connection.bodies() == []
    first.on_data(frame("ACK", id=acks(first_connection)[0]))
    first.on_lost(CloseReason.CLIENT_LOST)
    for message in messages:
        second_listener.on_queue_message(message, 300)
    assert second_connection.bodies() == ["x"]


async def test_a_subscription_that_the_broker_ends_is_told(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/queue/a"))
    listener = world.broker.listener
    assert listener is not None
    listener.on_queue_cancelled(None)
    assert "message:Server cancelled subscription" in connection.sent[0]
    assert "subscription:s" in connection.sent[0]
    assert connection.closed is None
    client.on_data(frame("SUBSCRIBE", destination="/queue/a"))
    listener = world.broker.listener
    assert listener is not None
    listener.on_queue_cancelled(None)
    assert "subscription:/queue/a" in connection.sent[1]
    client.on_lost(CloseReason.CLIENT_LOST)
    listener.on_queue_cancelled(None)
    assert len(connection.sent) == 2


async def test_nothing_is_answered_after_the_end(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/topic/a", ack="client"))
    client.on_lost(CloseReason.CLIENT_LOST)
    client.on_lost(CloseReason.CLIENT_LOST)
    client.fail(bad_command("NONSENSE"))
    world.hub.on_mailbox_messages("amq.topic", [Message("amq.topic", "a", b"x")])
    assert connection.sent == []


async def test_a_frame_that_is_refused_is_told_with_its_receipt(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("ACK", id="nonsense", receipt="r"))
    assert connection.commands() == ["ERROR"]
    assert "receipt-id:r" in connection.sent[0]


async def test_a_queue_that_does_not_exist_ends_the_session(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/amq/queue/none", receipt="r"))
    assert connection.commands() == ["ERROR"]
    assert "receipt-id:r" in connection.sent[0]
    assert connection.closed == (CloseReason.STOMP_ERROR, "not_found")


async def test_a_queues_message_is_not_taken_for_a_connection_that_closes(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/queue/a"))
    client.on_writable()
    client.on_data(frame("SEND", "x", destination="/queue/a"))
    connection.close(CloseReason.PING_LOST)
    for _ in range(3):
        await asyncio.sleep(0)
    client.on_lost(CloseReason.PING_LOST)
    assert connection.bodies() == []
    assert world.queued("a") == 1


async def test_consumers_of_a_queue_that_was_silent_for_long_have_one_history_again(world: World) -> None:
    clients = [world.client() for _ in range(2)]
    listeners = []
    for client, _ in clients:
        client.on_data(frame("SUBSCRIBE", id="s", destination="/queue/a"))
        assert world.broker.listener is not None
        listeners.append(world.broker.listener)
    for seq in range(2):
        listeners[0].on_queue_message(Message("", "a", b"x", sender="someone", seq=seq), seq)
        if seq == 0:
            world.router.sweep(float("inf"))
    listeners[1].on_queue_message(Message("", "a", b"x", sender="someone", seq=1, redelivered=True), 2)
    assert [connection.bodies() for _, connection in clients] == [["x", "x"], []]
