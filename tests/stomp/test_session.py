"""The session's state machine: connecting, subscriptions, receipts and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import Version
from stompbridge.stomp.heartbeat import HeartBeat
from stompbridge.stomp.session import (
    TRANSITIONS,
    AckMode,
    Connect,
    Disconnect,
    Done,
    Refused,
    Send,
    State,
    Subscribe,
    Unsubscribe,
)

MakePeer = Callable[..., Any]


def same(error: StompError, expected: StompError) -> bool:
    return (error.message, error.body, error.fatal, error.headers) == (
        expected.message,
        expected.body,
        expected.fatal,
        expected.headers,
    )


def assert_refused(event: object, expected: StompError, receipt: str | None = None) -> None:
    assert isinstance(event, Refused)
    assert same(event.error, expected), event.error
    assert event.receipt == receipt


# The table


CLIENT_FRAMES = {"SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT"}
"""STOMP 1.2, "Client Frames", without those of "Connecting"."""


def test_table_is_the_specification() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(TRANSITIONS[State.AWAITING_CONNECT]) == {"CONNECT", "STOMP"}
    assert set(TRANSITIONS[State.AWAITING_CONNECT].values()) == {State.CONNECTED}
    assert set(TRANSITIONS[State.CONNECTED]) == CLIENT_FRAMES
    for command, state in TRANSITIONS[State.CONNECTED].items():
        assert state is (State.DISCONNECTING if command == "DISCONNECT" else State.CONNECTED)
    assert not TRANSITIONS[State.DISCONNECTING]
    assert not TRANSITIONS[State.CLOSED]


@pytest.mark.parametrize("command", [*sorted(CLIENT_FRAMES), "CONNECTED", "MESSAGE", "FOO", "connect"])
def test_nothing_but_connect_comes_first(make_peer: MakePeer, command: str) -> None:
    peer = make_peer()
    assert_refused(peer.command(command, "destination:/queue/a", "receipt:r"), errors.illegal_command(), "r")
    assert peer.session.state == State.AWAITING_CONNECT
    assert not peer.session.closing
    peer.connect()
    assert peer.session.state == State.CONNECTED


@pytest.mark.parametrize("command", ["CONNECTED", "MESSAGE", "RECEIPT", "ERROR", "FOO", "send"])
def test_unknown_command(make_peer: MakePeer, command: str) -> None:
    peer = make_peer().connect()
    assert_refused(peer.command(command, "receipt:r"), errors.bad_command(command), "r")
    assert peer.command("BEGIN", "transaction:t") == Done(None)


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_second_connect(make_peer: MakePeer, command: str) -> None:
    peer = make_peer().connect()
    assert_refused(peer.command(command, "accept-version:1.2", "receipt:r"), errors.already_connected())
    assert peer.session.closing
    assert peer.send(b"SEND\ndestination:/queue/a\n\n\0") == []


# CONNECT


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_connect(make_peer: MakePeer, command: str) -> None:
    peer = make_peer()
    event = peer.command(command, "accept-version:1.0,1.1,1.2", "host:/", "heart-beat:500,2999")
    beat = HeartBeat(2.999, 1.0, "2000,1000")
    assert event == Connect({"accept-version": "1.0,1.1,1.2", "host": "/", "heart-beat": "500,2999"}, Version.V12, beat)
    assert peer.session.state == State.AWAITING_CONNECT
    assert peer.session.accept("stompbridge/1", [("user-name", "a:b")]) == (
        b"CONNECTED\nserver:stompbridge/1\nsession:session-1\nheart-beat:2000,1000\nversion:1.2\nuser-name:a:b\n\n\0\n"
    )
    assert peer.session.state == State.CONNECTED
    assert peer.session.version is Version.V12
    assert peer.session.heartbeat == beat


@pytest.mark.parametrize(
    ("header", "version"),
    [
        (None, Version.V10),
        ("1.0", Version.V10),
        ("1.1", Version.V11),
        ("1.2", Version.V12),
        ("1.0,1.1", Version.V11),
        ("1.2,1.1,1.0", Version.V12),
        ("3.0,1.1", Version.V11),
        # Spaces count, as in RabbitMQ.
        ("1.1, 1.2", Version.V11),
    ],
)
def test_version(make_peer: MakePeer, header: str | None, version: Version) -> None:
    peer = make_peer()
    event = peer.command("CONNECT", *([] if header is None else [f"accept-version:{header}"]))
    assert isinstance(event, Connect)
    assert event.version is version
    assert b"\nversion:%b\n" % version.encode() in peer.session.accept("x")
    assert peer.session.version is version


@pytest.mark.parametrize("header", ["", "1.3", "1", "1.2;1.1", " 1.2"])
def test_version_mismatch(make_peer: MakePeer, header: str) -> None:
    peer = make_peer()
    refused = peer.command("CONNECT", f"accept-version:{header}", "receipt:r")
    assert_refused(refused, errors.version_mismatch())
    peer.session.error(refused.error)
    peer.connect()


def test_version_rules_the_parser(make_peer: MakePeer) -> None:
    peer = make_peer().connect(Version.V10)
    assert peer.command("SEND", "destination: /queue/\\t").destination == "/queue/\\t"
    peer = make_peer().connect(Version.V11)
    (refused,) = peer.send(b"SEND\ndestination:\\t\n\n\0")
    assert refused.error.message == "Malformed frame"


def test_heart_beat_garbage(make_peer: MakePeer) -> None:
    peer = make_peer()
    refused = peer.command("CONNECT", "heart-beat:often")
    assert refused.error.message == "Processing error"
    peer.connect()


def test_frames_wait_until_connect_is_answered(make_peer: MakePeer) -> None:
    peer = make_peer()
    events = peer.send(b"CONNECT\n\n\0SEND\ndestination:/queue/a\n\n\0")
    assert [type(event) for event in events] == [Connect]
    assert peer.session.buffered
    assert peer.session.next_event() is None
    peer.session.accept("x")
    assert peer.session.next_event() == Send("/queue/a", {"destination": "/queue/a"}, b"", None)
    assert peer.session.next_event() is None


@pytest.mark.parametrize("answer", ["refuse", "error"])
def test_refused_client_may_try_again(make_peer: MakePeer, answer: str) -> None:
    peer = make_peer()
    peer.command("CONNECT", "host:v")
    frame = getattr(peer.session, answer)(errors.bad_host("v"))
    assert frame == (
        b"ERROR\nmessage:Bad CONNECT\ncontent-type:text/plain\nversion:1.0,1.1,1.2\ncontent-length:30\n\n"
        b"Virtual host 'v' access denied\0\n"
    )
    assert not peer.session.closing
    peer.connect()


def test_fatal_refusal(make_peer: MakePeer) -> None:
    peer = make_peer()
    peer.command("CONNECT")
    assert b"message:Connect timeout\n" in peer.session.refuse(errors.connect_timeout())
    assert peer.session.closing
    assert peer.send(b"CONNECT\n\n\0") == []


def test_a_server_without_a_name(make_peer: MakePeer) -> None:
    peer = make_peer()
    peer.command("CONNECT", "accept-version:1.2")
    assert peer.session.accept("").startswith(b"CONNECTED\nsession:")


def test_nothing_to_accept(make_peer: MakePeer) -> None:
    session = make_peer().session
    with pytest.raises(RuntimeError, match="no CONNECT"):
        session.accept("x")


def test_frame_limit_rises_with_connect(make_peer: MakePeer) -> None:
    large = b"SEND\ndestination:/queue/a\n\n" + b"x" * 200 + b"\0"
    peer = make_peer()
    (refused,) = peer.send(large)
    assert_refused(refused, errors.frame_too_large(200))
    peer = make_peer().connect()
    (send,) = peer.send(large)
    assert send.body == b"x" * 200
    (refused,) = peer.send(b"SEND\n\n" + b"x" * 1000)
    assert_refused(refused, errors.frame_too_large(1000))


# SEND


def test_send(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    event = peer.command("SEND", "destination:/queue/a", "x:y", "receipt:r", body=b"hello")
    assert event == Send("/queue/a", {"destination": "/queue/a", "x": "y", "receipt": "r"}, b"hello", "r")


@pytest.mark.parametrize("command", ["SEND", "SUBSCRIBE"])
def test_no_destination(make_peer: MakePeer, command: str) -> None:
    peer = make_peer().connect()
    assert_refused(peer.command(command, "id:1", "receipt:r"), errors.missing_destination(command), "r")
    assert not peer.session.subscriptions


# SUBSCRIBE


@pytest.mark.parametrize(
    ("header", "mode"),
    [
        ([], AckMode.AUTO),
        (["ack:auto"], AckMode.AUTO),
        (["ack:client"], AckMode.CLIENT),
        (["ack:client-individual"], AckMode.CLIENT_INDIVIDUAL),
    ],
)
def test_subscribe(make_peer: MakePeer, header: list[str], mode: AckMode) -> None:
    peer = make_peer().connect()
    event = peer.command("SUBSCRIBE", "destination:/queue/a", "id:1", "receipt:r", *header)
    assert isinstance(event, Subscribe)
    assert event.receipt == "r"
    subscription = event.subscription
    assert (subscription.id, subscription.destination, subscription.ack) == ("1", "/queue/a", mode)
    assert subscription.tag == "T_1"
    assert subscription.headers["receipt"] == "r"
    assert peer.session.subscriptions == {"T_1": subscription}


@pytest.mark.parametrize("version", Version)
def test_subscribe_without_id(make_peer: MakePeer, version: Version) -> None:
    peer = make_peer().connect(version)
    event = peer.command("SUBSCRIBE", "destination:/queue/a")
    assert event.subscription.id is None
    assert event.subscription.tag == "Q_/queue/a"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["ack:often"], errors.processing_error("'ack' must be auto, client or client-individual.")),
        (["id:/temp-queue/x"], errors.processing_error("'id' may not start with /temp-queue/.")),
        (["durable:true"], errors.durable_needs_id()),
        (["persistent:True"], errors.durable_needs_id()),
    ],
)
def test_bad_subscribe(make_peer: MakePeer, headers: list[str], expected: StompError) -> None:
    peer = make_peer().connect()
    assert_refused(peer.command("SUBSCRIBE", "destination:/topic/a", "receipt:r", *headers), expected, "r")
    assert not peer.session.subscriptions
    assert not peer.session.closing


@pytest.mark.parametrize(
    "headers",
    [["id:1", "durable:true"], ["id:1", "persistent:true"], ["durable:false", "persistent:False"], ["durable:maybe"]],
)
def test_durable_subscribe(make_peer: MakePeer, headers: list[str]) -> None:
    peer = make_peer().connect()
    assert isinstance(peer.command("SUBSCRIBE", "destination:/topic/a", *headers), Subscribe)


@pytest.mark.parametrize(("headers", "tag"), [(["id:1"], "T_1"), ([], "Q_/topic/a")])
def test_duplicate_subscription(make_peer: MakePeer, headers: list[str], tag: str) -> None:
    peer = make_peer().connect()
    peer.command("SUBSCRIBE", "destination:/topic/a", *headers)
    assert_refused(
        peer.command("SUBSCRIBE", "destination:/topic/a", "receipt:r", *headers),
        errors.duplicate_subscription(tag),
        "r",
    )
    assert peer.session.closing
    assert peer.send(b"SEND\ndestination:/queue/a\n\n\0") == []


def test_too_many_subscriptions(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    for id in "123":
        peer.command("SUBSCRIBE", "destination:/topic/a", f"id:{id}")
    refused = peer.command("SUBSCRIBE", "destination:/topic/a", "id:4")
    assert_refused(refused, errors.limit("subscriptions", 3, fatal=False))
    peer.command("UNSUBSCRIBE", "id:2")
    assert isinstance(peer.command("SUBSCRIBE", "destination:/topic/a", "id:4"), Subscribe)


# UNSUBSCRIBE


@pytest.mark.parametrize("headers", [["id:1"], []])
def test_unsubscribe(make_peer: MakePeer, headers: list[str]) -> None:
    peer = make_peer().connect()
    subscription = peer.command("SUBSCRIBE", "destination:/topic/a", "ack:client", *headers).subscription
    other = peer.command("SUBSCRIBE", "destination:/topic/b", "id:2", "ack:client").subscription
    first = peer.session.track("m1", subscription, 1)
    kept = peer.session.track("m2", other, 2)
    second = peer.session.track("m3", subscription, 3)
    event = peer.command("UNSUBSCRIBE", "destination:/topic/a", "receipt:r", *headers)
    assert isinstance(event, Unsubscribe)
    assert event.subscription is subscription
    assert event.released == [first, second]
    assert event.receipt == "r"
    assert event.headers["destination"] == "/topic/a"
    assert peer.session.subscriptions == {"T_2": other}
    assert peer.session.unacked == {"m2": kept}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], errors.missing_destination_or_id()),
        (["id:x"], errors.no_subscription(id="x")),
        (["destination:/topic/x"], errors.no_subscription(destination="/topic/x")),
        (["id:x", "destination:/topic/a"], errors.no_subscription(id="x")),
        (["id:/temp-queue/x"], errors.invalid_unsubscribe_id()),
        (["destination:/topic/a", "durable:true"], errors.durable_needs_id()),
    ],
)
def test_bad_unsubscribe(make_peer: MakePeer, headers: list[str], expected: StompError) -> None:
    peer = make_peer().connect()
    peer.command("SUBSCRIBE", "destination:/topic/a")
    peer.command("SUBSCRIBE", "destination:/topic/a", "id:1")
    assert_refused(peer.command("UNSUBSCRIBE", "receipt:r", *headers), expected, "r")
    assert set(peer.session.subscriptions) == {"Q_/topic/a", "T_1"}
    assert not peer.session.closing


def test_forget(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    subscription = peer.command("SUBSCRIBE", "destination:/queue/a", "id:1", "ack:client").subscription
    delivery = peer.session.track("m1", subscription, None)
    assert peer.session.forget("T_1") == [delivery]
    assert not peer.session.subscriptions
    assert not peer.session.unacked
    assert peer.session.forget("T_1") == []


# DISCONNECT


@pytest.mark.parametrize(("headers", "receipt"), [([], None), (["receipt:r"], "r")])
def test_disconnect(make_peer: MakePeer, headers: list[str], receipt: str | None) -> None:
    peer = make_peer().connect()
    assert peer.command("DISCONNECT", *headers) == Disconnect(receipt)
    assert peer.session.state == State.DISCONNECTING
    assert not peer.session.closing


def test_frames_after_disconnect_are_ignored(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    events = peer.send(b"DISCONNECT\n\n\0SEND\ndestination:/queue/a\n\n\0" + b"\xff" * 100)
    assert events == [Disconnect(None)]
    assert peer.send(b"garbage" * 1000) == []
    assert peer.session.buffered < 1000


def test_error_while_disconnecting(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    peer.command("DISCONNECT")
    peer.session.error(errors.message_rejected("The queue is full."))
    assert peer.session.state == State.DISCONNECTING


def test_the_end_of_the_connection(make_peer: MakePeer) -> None:
    """Nothing of what came or was sent is held any longer."""
    peer = make_peer().connect()
    subscribe = peer.command("SUBSCRIBE", "destination:/queue/a", "id:1", "ack:client")
    assert isinstance(subscribe, Subscribe)
    peer.command("BEGIN", "transaction:t")
    peer.session.track("m", subscribe.subscription, None)
    peer.session.feed(b"SEND\ndestination:/queue/a\n\n" + b"x" * 500)
    assert peer.session.next_event() is None
    peer.session.end()
    assert peer.session.closing
    assert peer.session.buffered == 0
    assert not peer.session.unacked
    assert peer.send(b"\0COMMIT\ntransaction:t\n\n\0") == []


# Answers


def test_receipt(make_peer: MakePeer) -> None:
    session = make_peer().session
    assert session.receipt("a:b\\c\nd") == b"RECEIPT\nreceipt-id:a\\cb\\\\c\\nd\n\n\0\n"


def test_error(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    error = errors.server_cancelled("é:1", "id='é:1'")
    body = error.body.encode()
    assert peer.session.error(error, "r:1") == (
        b"ERROR\nmessage:Server cancelled subscription\ncontent-type:text/plain\nversion:1.0,1.1,1.2\n"
        + "subscription:é\\c1\n".encode()
        + b"receipt-id:r\\c1\ncontent-length:%d\n\n%b\0\n" % (len(body), body)
    )
    assert not peer.session.closing


def test_fatal_error(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    assert peer.session.error(errors.broker_error("not_found", "NOT_FOUND - no exchange", True)).startswith(
        b"ERROR\nmessage:not_found\n"
    )
    assert peer.session.closing
    left = peer.session.buffered
    assert peer.session.state == State.CLOSED
    assert peer.send(b"SEND\ndestination:/queue/a\n\n\0") == []
    assert peer.session.buffered == left


def test_close_on_error(make_peer: MakePeer) -> None:
    peer = make_peer(close_on_error=True).connect()
    assert_refused(peer.command("SEND"), errors.missing_destination("SEND"))
    assert peer.session.closing
    peer = make_peer(close_on_error=True).connect()
    peer.session.error(errors.message_rejected("The queue is full."))
    assert peer.session.closing


@pytest.mark.parametrize(
    "wire",
    [
        b"SEND\nbroken\n\n\0",
        b"SEND\ncontent-length:x\n\n\0",
        b"SEND\n\xff:\n\n\0",
        b"\rSEND",
        b"x" * 1000,
        b"\x16\x03\x01\x02\x00" + b"\x01" * 600,
    ],
)
def test_garbage(make_peer: MakePeer, wire: bytes) -> None:
    for peer in (make_peer(), make_peer().connect()):
        (refused,) = peer.send(wire)
        assert isinstance(refused, Refused)
        assert refused.error.fatal
        assert refused.error.__traceback__ is None
        assert refused.receipt is None
        assert peer.session.closing
        assert peer.send(b"CONNECT\n\n\0") == []


def test_what_comes_before_garbage_is_served(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    events = peer.send(b"BEGIN\ntransaction:t\n\n\0garbage\0")
    assert [type(event) for event in events] == [Done, Refused]


def test_frames_are_shown_to_who_looks(make_peer: MakePeer) -> None:
    peer = make_peer()
    shown: list[tuple[str, dict[str, str], bytes]] = []
    peer.session.on_frame = lambda frame: shown.append((frame.command, frame.headers, frame.body))
    peer.connect()
    peer.command("SEND", "destination:/queue/a", body=b"hello")
    peer.command("NONSENSE")
    peer.session.on_frame = None
    peer.command("BEGIN", "transaction:1")
    assert [command for command, _, _ in shown] == ["CONNECT", "SEND", "NONSENSE"]
    assert shown[1] == ("SEND", {"destination": "/queue/a"}, b"hello")
