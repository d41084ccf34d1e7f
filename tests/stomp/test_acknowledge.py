"""ACK, NACK and transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import Version
from stompbridge.stomp.session import Commit, Delivery, Done, Keep, Refused, Send, Settle, Subscription

MakePeer = Callable[..., Any]
TRANSACTION_COMMANDS = ["BEGIN", "COMMIT", "ABORT"]


def assert_refused(event: object, expected: StompError, receipt: str | None = None) -> None:
    assert isinstance(event, Refused)
    assert (event.error.message, event.error.body, event.error.fatal) == (
        expected.message,
        expected.body,
        expected.fatal,
    )
    assert event.receipt == receipt


def subscribe(peer: Any, id: str, ack: str) -> Subscription:
    subscription = peer.command("SUBSCRIBE", "destination:/queue/a", f"id:{id}", f"ack:{ack}").subscription
    assert isinstance(subscription, Subscription)
    return subscription


def deliver(peer: Any, subscription: Subscription, number: int) -> Delivery:
    delivery = peer.session.track(f"{subscription.tag}@@session-1@@{number}", subscription, number)
    assert isinstance(delivery, Delivery)
    assert (delivery.subscription, delivery.token) == (subscription, number)
    return delivery


@pytest.mark.parametrize(
    ("command", "headers", "ack", "requeue"),
    [
        ("ACK", [], True, False),
        ("ACK", ["requeue:true"], True, False),
        ("NACK", [], False, True),
        ("NACK", ["requeue:true"], False, True),
        ("NACK", ["requeue:perhaps"], False, True),
        ("NACK", ["requeue:false"], False, False),
        ("NACK", ["requeue:False"], False, False),
    ],
)
@pytest.mark.parametrize(
    ("version", "header"), [(Version.V10, "message-id"), (Version.V11, "message-id"), (Version.V12, "id")]
)
def test_settle(
    make_peer: MakePeer, version: Version, header: str, command: str, headers: list[str], ack: bool, requeue: bool
) -> None:
    peer = make_peer().connect(version)
    delivery = deliver(peer, subscribe(peer, "1", "client-individual"), 1)
    event = peer.command(command, f"{header}:{delivery.ack_id}", "receipt:r", *headers)
    assert event == Settle([delivery], ack, requeue, "r")
    assert not peer.session.unacked


def test_client_mode_is_cumulative_over_the_connection(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    client = subscribe(peer, "1", "client")
    other = subscribe(peer, "2", "client")
    individual = subscribe(peer, "3", "client-individual")
    a, b, c, d, e = (
        deliver(peer, subscription, number)
        for number, subscription in enumerate([individual, client, other, client, individual])
    )
    assert peer.command("ACK", f"id:{c.ack_id}") == Settle([a, b, c], True, False, None)
    assert peer.command("NACK", f"id:{d.ack_id}") == Settle([d], False, True, None)
    assert list(peer.session.unacked.values()) == [e]


def test_client_individual_mode_is_not(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    client = subscribe(peer, "1", "client")
    individual = subscribe(peer, "2", "client-individual")
    a, b, c = (deliver(peer, s, number) for number, s in enumerate([client, individual, client]))
    assert peer.command("ACK", f"id:{b.ack_id}") == Settle([b], True, False, None)
    assert peer.command("ACK", f"id:{c.ack_id}") == Settle([a, c], True, False, None)


@pytest.mark.parametrize("command", ["ACK", "NACK"])
@pytest.mark.parametrize(("version", "header"), [(Version.V10, "message-id"), (Version.V12, "id")])
def test_bad_identifiers(make_peer: MakePeer, command: str, version: Version, header: str) -> None:
    peer = make_peer().connect(version)
    subscribe(peer, "a@@b", "client")
    for headers, expected in [
        ([], errors.missing_ack_header(command, header)),
        ([f"{header}:"], errors.invalid_ack_header(command, header)),
        ([f"{header}:T_1@@x"], errors.invalid_ack_header(command, header)),
        ([f"{header}:T_1@@s@@x"], errors.processing_error(f"'{header}' must end with a number.")),
        ([f"{header}:T_1@@s@@-1"], errors.processing_error(f"'{header}' must end with a number.")),
        ([f"{header}:T_1@@s@@²"], errors.processing_error(f"'{header}' must end with a number.")),
        ([f"{header}:T_1@@s@@7"], errors.subscription_not_found("T_1@@s@@7")),
        ([f"{header}:T_a@@b@@s@@7"], errors.unknown_delivery_tag("7")),
    ]:
        assert_refused(peer.command(command, "receipt:r", *headers), expected, "r")
    assert peer.session.closing


def test_wrong_header_for_the_version(make_peer: MakePeer) -> None:
    peer = make_peer().connect(Version.V11)
    delivery = deliver(peer, subscribe(peer, "1", "client"), 1)
    assert_refused(peer.command("ACK", f"id:{delivery.ack_id}"), errors.missing_ack_header("ACK", "message-id"))


def test_second_ack(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    delivery = deliver(peer, subscribe(peer, "1", "client"), 1)
    peer.command("ACK", f"id:{delivery.ack_id}")
    assert_refused(peer.command("ACK", f"id:{delivery.ack_id}"), errors.unknown_delivery_tag("1"))


def test_ack_after_unsubscribe(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    delivery = deliver(peer, subscribe(peer, "1", "client"), 1)
    peer.command("UNSUBSCRIBE", "id:1")
    assert_refused(peer.command("ACK", f"id:{delivery.ack_id}"), errors.subscription_not_found(delivery.ack_id))
    assert not peer.session.closing


def test_late_ack_after_the_id_was_used_again(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    first = subscribe(peer, "s", "client")
    for number in (9, 10):
        deliver(peer, first, number)
    peer.command("UNSUBSCRIBE", "id:s")
    second = subscribe(peer, "s", "client")
    deliver(peer, second, 11)
    for late in ("9", "10"):
        ack_id = f"T_s@@session-1@@{late}"
        assert_refused(peer.command("ACK", f"id:{ack_id}"), errors.subscription_not_found(ack_id))
    assert_refused(peer.command("ACK", "id:T_s@@session-1@@12"), errors.unknown_delivery_tag("12"))


def test_the_memory_of_ended_subscriptions_is_bounded(make_peer: MakePeer) -> None:
    peer = make_peer(max_subscriptions=1).connect()
    for id in ("a", "b"):
        deliver(peer, subscribe(peer, id, "client"), 1)
        peer.command("UNSUBSCRIBE", f"id:{id}")
    subscribe(peer, "a", "client")
    assert_refused(peer.command("ACK", "id:T_a@@session-1@@1"), errors.unknown_delivery_tag("1"))


# Transactions


def test_commit(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    delivery = deliver(peer, subscribe(peer, "1", "client"), 1)
    assert peer.command("BEGIN", "transaction:t", "receipt:r1") == Done("r1")
    assert peer.command("SEND", "destination:/queue/a", "transaction:t", "receipt:r2", body=b"1") == Done(None)
    assert peer.command("NACK", f"id:{delivery.ack_id}", "transaction:t", "requeue:false", "receipt:r3") == Done("r3")
    assert peer.command("SEND", "destination:/queue/b", "transaction:t", body=b"2") == Done(None)
    assert peer.session.unacked
    assert peer.command("COMMIT", "transaction:t", "receipt:r4") == Commit(
        [
            Send("/queue/a", {"destination": "/queue/a", "transaction": "t", "receipt": "r2"}, b"1", "r2"),
            Settle([delivery], False, False, None),
            Send("/queue/b", {"destination": "/queue/b", "transaction": "t"}, b"2", None),
        ],
        "r4",
    )
    assert not peer.session.unacked
    assert_refused(peer.command("COMMIT", "transaction:t"), errors.bad_transaction("t"))


def test_commit_acknowledges_cumulatively(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    subscription = subscribe(peer, "1", "client")
    first, second = deliver(peer, subscription, 1), deliver(peer, subscription, 2)
    peer.command("BEGIN", "transaction:t")
    peer.command("ACK", f"id:{second.ack_id}", "transaction:t")
    assert peer.command("COMMIT", "transaction:t") == Commit([Settle([first, second], True, False, None)], None)


def test_commit_skips_what_is_gone(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    kept, gone = subscribe(peer, "1", "client-individual"), subscribe(peer, "2", "client-individual")
    first, second, third = deliver(peer, kept, 1), deliver(peer, gone, 2), deliver(peer, kept, 3)
    peer.command("BEGIN", "transaction:t")
    for delivery in (first, second, third):
        peer.command("ACK", f"id:{delivery.ack_id}", "transaction:t")
    peer.command("ACK", f"id:{first.ack_id}")
    peer.command("UNSUBSCRIBE", "id:2")
    # Another message under the identifier of one that is gone is another message.
    deliver(peer, kept, 1)
    assert peer.command("COMMIT", "transaction:t") == Commit([Settle([third], True, False, None)], None)


def test_acknowledgement_is_checked_at_once(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    peer.command("BEGIN", "transaction:t")
    refused = peer.command("ACK", "id:T_1@@s@@1", "transaction:t")
    assert_refused(refused, errors.subscription_not_found("T_1@@s@@1"))
    assert_refused(peer.command("SEND", "transaction:t"), errors.missing_destination("SEND"))
    assert peer.command("COMMIT", "transaction:t") == Commit([], None)


def test_abort(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    delivery = deliver(peer, subscribe(peer, "1", "client"), 1)
    peer.command("BEGIN", "transaction:t")
    peer.command("SEND", "destination:/queue/a", "transaction:t", "receipt:never")
    peer.command("ACK", f"id:{delivery.ack_id}", "transaction:t")
    assert peer.command("ABORT", "transaction:t", "receipt:r") == Done("r")
    assert list(peer.session.unacked.values()) == [delivery]
    assert_refused(peer.command("COMMIT", "transaction:t"), errors.bad_transaction("t"))


def test_transactions_are_apart(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    for id in ("a b", "é"):
        peer.command("BEGIN", f"transaction:{id}")
    for id in ("a b", "é", "a b"):
        peer.command("SEND", f"destination:/queue/{id}", f"transaction:{id}")
    commit = peer.command("COMMIT", "transaction:a b")
    assert [send.destination for send in commit.actions] == ["/queue/a b", "/queue/a b"]
    commit = peer.command("COMMIT", "transaction:é")
    assert [send.destination for send in commit.actions] == ["/queue/é"]


def test_second_begin_starts_over(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    for _ in range(3):
        assert peer.command("BEGIN", "transaction:t") == Done(None)
        peer.command("SEND", "destination:/queue/a", "transaction:t")
    assert len(peer.command("COMMIT", "transaction:t").actions) == 1


def test_a_send_that_cannot_be_served_is_not_kept(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    peer.command("BEGIN", "transaction:t")
    peer.session.feed(b"SEND\ndestination:/foo\ntransaction:t\nreceipt:r\n\nbody\0")
    kept = peer.session.next_event()
    assert kept == Keep(
        Send("/foo", {"destination": "/foo", "transaction": "t", "receipt": "r"}, b"body", "r"), "t", "r"
    )
    peer.session.error(errors.unknown_destination("/foo"), kept.receipt)
    assert peer.command("COMMIT", "transaction:t") == Commit([], None)


def test_the_identifier_is_judged_before_the_transaction(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    subscribe(peer, "1", "client")
    for ack_id, expected in [
        ("T_2@@s@@1", errors.subscription_not_found("T_2@@s@@1")),
        ("T_1@@s@@1", errors.bad_transaction("t")),
    ]:
        assert_refused(peer.command("ACK", f"id:{ack_id}", "transaction:t"), expected)
    peer.command("BEGIN", "transaction:t")
    assert_refused(peer.command("ACK", "id:T_1@@s@@1", "transaction:t"), errors.unknown_delivery_tag("1"))


@pytest.mark.parametrize("command", TRANSACTION_COMMANDS)
def test_missing_transaction(make_peer: MakePeer, command: str) -> None:
    peer = make_peer().connect()
    assert_refused(peer.command(command, "receipt:r"), errors.missing_transaction(command), "r")


@pytest.mark.parametrize("command", ["COMMIT", "ABORT", "SEND", "ACK", "NACK"])
def test_unknown_transaction(make_peer: MakePeer, command: str) -> None:
    peer = make_peer().connect()
    delivery = deliver(peer, subscribe(peer, "1", "client"), 1)
    refused = peer.command(command, "destination:/queue/a", f"id:{delivery.ack_id}", "transaction:t9", "receipt:r")
    assert_refused(refused, errors.bad_transaction("t9"), "r")
    assert peer.session.unacked
    assert not peer.session.closing


def test_too_many_transactions(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    for id in "12":
        peer.command("BEGIN", f"transaction:{id}")
    assert_refused(peer.command("BEGIN", "transaction:3"), errors.too_many_transactions(2))
    assert peer.command("BEGIN", "transaction:2") == Done(None)
    peer.command("ABORT", "transaction:1")
    assert peer.command("BEGIN", "transaction:3") == Done(None)


def test_too_many_frames_in_a_transaction(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    peer.command("BEGIN", "transaction:t")
    for _ in range(3):
        peer.command("SEND", "destination:a", "transaction:t")
    refused = peer.command("SEND", "destination:a", "transaction:t", "receipt:r")
    assert_refused(refused, errors.transaction_too_large(3, "frames"), "r")
    assert len(peer.command("COMMIT", "transaction:t").actions) == 3


def test_too_many_bytes_in_all_transactions(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    for id in "12":
        peer.command("BEGIN", f"transaction:{id}")
    headers = len("destination" + "a" + "transaction" + "1")
    peer.command("SEND", "destination:a", "transaction:1", body=b"x" * (100 - headers))
    peer.command("SEND", "destination:a", "transaction:2", body=b"x" * (100 - headers - 1))
    refused = peer.command("SEND", "destination:", "transaction:2")
    assert_refused(refused, errors.transaction_too_large(200, "bytes"))
    peer.command("ABORT", "transaction:1")
    assert peer.command("SEND", "destination:", "transaction:2") == Done(None)
    assert len(peer.command("COMMIT", "transaction:2").actions) == 2


def test_disconnect_drops_transactions(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    peer.send(b"BEGIN\ntransaction:t\n\n\0DISCONNECT\n\n\0COMMIT\ntransaction:t\n\n\0")
    assert peer.send(b"COMMIT\ntransaction:t\n\n\0") == []
