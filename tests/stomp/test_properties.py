"""What holds for every input."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import Frame, Version, encode, escape, unescape
from stompbridge.stomp.heartbeat import negotiate, parse
from stompbridge.stomp.parser import FrameParser
from stompbridge.stomp.session import (
    AckMode,
    Connect,
    Delivery,
    Event,
    Keep,
    Refused,
    ServerSession,
    SessionSettings,
    Settle,
    State,
    Subscription,
    frame_counts,
)

CALM = settings(deadline=None, max_examples=150)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
names = texts.filter(lambda name: name not in ("", "content-length"))
commands = st.sampled_from(
    ["SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT", "CONNECT", "FOO"]
)
# What parsers stumble over.
scraps = st.sampled_from(
    [
        b"\n", b"\r\n", b"\r", b"\0", b"\n\n", b"\n\0", b":", b"a:b\n", b"a:\\", b"\\t", b"\\n", b"\xff", "é".encode(),
        b"SEND\n", b"CONNECT\n", b"content-length:", b"content-length:3\n", b"content-length:70\n", b"-1", b"abc",
        b"x" * 30,
    ]
)  # fmt: skip
streams = st.lists(scraps | st.binary(max_size=5), max_size=25).map(b"".join)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def parse_all(pieces: Sequence[bytes], version: Version) -> list[object]:
    """All frames and, last, the error."""
    parser = FrameParser(max_frame=64, max_headers=3, max_header_bytes=40)
    parser.version = version
    found: list[object] = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while (frame := parser.next_frame()) is not None:
                found.append(frame)
        except StompError as error:
            return [*found, (error.message, error.body, error.fatal)]
    return found


@CALM
@given(texts, st.sampled_from(Version))
def test_escape_round_trip(text: str, version: Version) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("\r\n:")
    assert unescape(escaped, version) == text


@CALM
@given(st.dictionaries(names, texts, max_size=5), st.binary(max_size=50), st.sampled_from(Version))
def test_frame_round_trip(headers: dict[str, str], body: bytes, version: Version) -> None:
    if version is Version.V10:
        headers = {name: value.lstrip(" ") for name, value in headers.items()}
    headers["content-length"] = str(len(body))
    parser = FrameParser(10_000, 100, 10_000)
    parser.version = version
    parser.feed(encode("MESSAGE", headers.items(), body) * 2)
    for _ in range(2):
        assert parser.next_frame() == Frame("MESSAGE", headers, body)
    assert parser.next_frame() is None


@CALM
@given(streams, st.lists(st.integers(0, 10_000), max_size=8), st.sampled_from(Version))
def test_any_chunking_gives_the_same_frames(stream: bytes, places: list[int], version: Version) -> None:
    whole = parse_all([stream], version)
    assert all(isinstance(each, Frame) for each in whole[:-1])
    assert not whole or isinstance(whole[-1], Frame) or whole[-1][2]  # type: ignore[index]
    assert parse_all(cut(stream, places), version) == whole
    assert parse_all([stream[at : at + 1] for at in range(len(stream))], version) == whole


@CALM
@given(st.text(max_size=30) | st.from_regex(r"[+-]?[0-9]{1,16},[+-]?[0-9]{1,16}", fullmatch=True))
def test_heart_beats_are_two_numbers_or_an_error(text: str) -> None:
    try:
        client = parse(text)
    except StompError:
        return
    assert client == tuple(int(number) for number in text.split(","))


@CALM
@given(*[st.integers(-(10**15), 10**15)] * 2, *[st.integers(0, 100_000)] * 2)
def test_agreed_heart_beats_suit_both(can_send: int, wants: int, send_floor: int, receive_floor: int) -> None:
    agreed = negotiate((can_send, wants), send_floor, receive_floor)
    send, receive = (int(number) for number in agreed.header.split(","))
    for asked, floor, offer, interval in (
        (wants, send_floor, send, agreed.send),
        (can_send, receive_floor, receive, agreed.receive),
    ):
        if asked <= 0:
            assert offer == interval == 0
        else:
            assert offer >= max(floor, 1000)
            assert interval == max(offer, asked) / 1000


headers_of_clients = st.lists(
    st.sampled_from(
        [
            "destination:/queue/a", "destination:", "id:1", "id:2", "id:/temp-queue/x", "ack:client",
            "ack:client-individual", "ack:x", "receipt:r", "transaction:t", "transaction:u", "durable:true",
            "requeue:false", "requeue:x", "id:T_1@@s@@1", "id:T_1@@s@@2", "id:T_2@@s@@3", "id:a@@b@@c",
            "message-id:T_1@@s@@1", "accept-version:1.2", "accept-version:1.1", "accept-version:9", "heart-beat:1,2",
            "heart-beat:x", "content-length:0", "a\\tb:c", "broken",
        ]
    ),
    max_size=4,
)  # fmt: skip
client_frames = st.builds(
    lambda command, headers, body: "\n".join([command, *headers, "", ""]).encode() + body + b"\0",
    commands,
    headers_of_clients,
    st.sampled_from([b"", b"body"]),
)
conversations = st.builds(
    lambda start, frames: start + b"".join(frames),
    st.sampled_from([b"", b"CONNECT\naccept-version:1.2\n\n\0", b"STOMP\naccept-version:1.1\n\n\0", b"CONNECT\n\n\0"]),
    st.lists(client_frames | client_frames | client_frames | streams, max_size=15),
)


def converse(pieces: Sequence[bytes], close_on_error: bool) -> tuple[list[str], ServerSession]:
    session = ServerSession(
        SessionSettings(
            send_floor_ms=1000,
            receive_floor_ms=1000,
            close_on_error=close_on_error,
            max_frame=200,
            max_frame_before_connect=100,
            max_headers=5,
            max_header_bytes=100,
            max_subscriptions=2,
            max_transactions=1,
            max_transaction_frames=2,
            max_transaction_bytes=100,
        ),
        "s",
        frame_counts(),
    )
    log = []
    for piece in pieces:
        session.feed(piece)
        while (event := session.next_event()) is not None:
            log.append(describe(event))
            if isinstance(event, Connect):
                session.accept("stompbridge")
            elif isinstance(event, Keep):
                with suppress(StompError):
                    session.keep(event)
            elif isinstance(event, Refused):
                was_closing = session.closing
                assert session.error(event.error, event.receipt).endswith(b"\0\n")
                assert session.closing is was_closing is (event.error.fatal or close_on_error)
            for number, subscription in enumerate(session.subscriptions.values(), 1):
                session.track(f"{subscription.tag}@@s@@{number}", subscription, number)
    return log, session


def describe(event: Event) -> str:
    if isinstance(event, Refused):
        return f"{event.error} {event.receipt}"
    if isinstance(event, Settle):
        return f"{[delivery.ack_id for delivery in event.deliveries]} {event.ack} {event.requeue} {event.receipt}"
    return type(event).__name__


@CALM
@given(conversations, st.lists(st.integers(0, 10_000), max_size=8), st.booleans())
def test_sessions_never_raise_and_do_not_mind_chunks(data: bytes, places: list[int], close_on_error: bool) -> None:
    whole, session = converse([data], close_on_error)
    assert session.next_event() is None
    assert len(session.subscriptions) <= 2
    assert (session.state is State.AWAITING_CONNECT) <= (not session.subscriptions)
    assert converse(cut(data, places), close_on_error)[0] == whole
    assert converse([data[at : at + 1] for at in range(len(data))], close_on_error)[0] == whole


@CALM
@given(st.lists(st.sampled_from([AckMode.CLIENT, AckMode.CLIENT_INDIVIDUAL]), max_size=12), st.randoms())
def test_acknowledgement_against_a_list(modes: list[AckMode], random: object) -> None:
    """Every delivery is settled once, and in ``client`` mode together with all before it."""
    _, session = converse([b"CONNECT\naccept-version:1.2\n\n\0"], False)
    subscriptions = {mode: Subscription(mode.value, "/queue/a", mode, f"T_{mode.value}", {}) for mode in modes}
    session.subscriptions.update((subscription.tag, subscription) for subscription in subscriptions.values())
    waiting: list[Delivery] = [
        session.track(f"{subscriptions[mode].tag}@@s@@{number}", subscriptions[mode], number)
        for number, mode in enumerate(modes)
    ]
    while waiting:
        at = random.randrange(len(waiting))  # type: ignore[attr-defined]
        named = waiting[at]
        expected = waiting[: at + 1] if named.subscription.ack is AckMode.CLIENT else [named]
        session.feed(f"ACK\nid:{named.ack_id}\n\n\0".encode())
        assert session.next_event() == Settle(expected, True, False, None)
        waiting = [delivery for delivery in waiting if delivery not in expected]
        assert list(session.unacked.values()) == waiting
