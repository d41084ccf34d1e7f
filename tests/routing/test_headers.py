from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.brokers.base import Message
from stompbridge.routing.headers import SharedPart, message_from_send, message_head, shared_part
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import Version, unescape


def sent(**headers: str) -> Message:
    return message_from_send({name.replace("_", "-"): value for name, value in headers.items()}, b"body", "e", "k")


def test_properties() -> None:
    message = sent(
        destination="/exchange/e/k",
        content_type="text/plain",
        content_encoding="gzip",
        persistent="true",
        priority="3",
        correlation_id="c",
        reply_to="/queue/answers",
        amqp_message_id="m",
        timestamp="1700000000",
        type="t",
        user_id="guest",
        app_id="a",
        expiration="60000",
    )
    assert message == Message(
        "e",
        "k",
        b"body",
        content_type="text/plain",
        content_encoding="gzip",
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="/queue/answers",
        message_id="m",
        timestamp=1700000000,
        type="t",
        user_id="guest",
        app_id="a",
        expiration="60000",
    )


def test_other_headers_travel() -> None:
    message = sent(id="1", foo="bar", x_message_ttl="5", ack="a", subscription="s", redelivered="true")
    assert message.headers == {
        "id": "1",
        "foo": "bar",
        "x-message-ttl": "5",
        "ack": "a",
        "subscription": "s",
        "redelivered": "true",
    }


def test_headers_for_the_server_stay_here() -> None:
    message = sent(
        destination="/queue/a",
        receipt="r",
        transaction="t",
        content_length="4",
        x_stompbridge_sender="me",
        x_stompbridge_seq="1",
        x_stompbridge_other="1",
    )
    assert message == Message("e", "k", b"body")


def test_transient() -> None:
    assert sent(persistent="false").delivery_mode is None


def test_expiration_is_normalised() -> None:
    assert sent(expiration=" 007").expiration == "7"
    assert sent(expiration=str(2**32 - 1)).expiration == "4294967295"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("persistent", "yes"),
        ("priority", "high"),
        ("priority", "256"),
        ("priority", "-1"),
        ("timestamp", "now"),
        ("timestamp", "-1"),
        ("timestamp", str(2**63)),
        ("expiration", "1s"),
        ("expiration", "-1"),
        ("expiration", str(2**32)),
        ("CC", "a"),
        ("BCC", "a"),
        ("content-type", "x" * 256),
        ("reply-to", "é" * 128),
    ],
)
def test_bad_values(name: str, value: str) -> None:
    with pytest.raises(StompError, match=f"header '{name}'") as caught:
        message_from_send({name: value}, b"", "e", "k")
    assert caught.value.message == "Processing error"
    assert not caught.value.fatal


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128])
def test_long_name(name: str) -> None:
    with pytest.raises(StompError, match="a header's name is longer than 255 bytes"):
        message_from_send({name: "v"}, b"", "e", "k")
    assert message_from_send({name[:127]: "v" * 1000}, b"", "e", "k").headers == {name[:127]: "v" * 1000}


def test_long_key() -> None:
    with pytest.raises(StompError, match="the routing key is longer than 255 bytes"):
        message_from_send({}, b"", "e", "k" * 256)


def test_message_id_is_not_the_clients() -> None:
    with pytest.raises(StompError) as caught:
        sent(message_id="1")
    assert caught.value.message == "Invalid header"
    assert caught.value.body == "'message-id' is not allowed on 'SEND'.\n"


def test_head() -> None:
    shared = SharedPart("destination:/topic/t\n", "redelivered:false\n", b"", False)
    assert message_head("s0", "T_s0@@1", False, shared) == (
        b"MESSAGE\nsubscription:s0\ndestination:/topic/t\nmessage-id:T_s0@@1\nredelivered:false\n"
    )
    assert message_head(None, "Q_a@@1", False, shared) == (
        b"MESSAGE\ndestination:/topic/t\nmessage-id:Q_a@@1\nredelivered:false\n"
    )
    assert message_head("a:b", "T_a:b", True, shared) == (
        b"MESSAGE\nsubscription:a\\cb\ndestination:/topic/t\nmessage-id:T_a\\cb\nredelivered:false\nack:T_a\\cb\n"
    )


def test_shared_part() -> None:
    message = Message("amq.topic", "t", b"hello", {"foo": "bar"}, content_type="text/plain")
    assert shared_part(message, "/topic/t:") == (
        "destination:/topic/t\\c\n",
        "redelivered:false\n",
        b"foo:bar\ncontent-type:text/plain\ncontent-length:5\n\nhello\0\n",
        False,
    )


def test_shared_part_without_body() -> None:
    message = Message("", "q", b"", redelivered=True)
    assert shared_part(message, "/queue/q") == ("destination:/queue/q\n", "redelivered:true\n", b"\n\0\n", False)


def lines_of(message: Message, destination: str = "/queue/q") -> list[str]:
    head = shared_part(message, destination).rest.partition(b"\n\n")[0]
    return head.decode().split("\n") if head.strip(b"\n\0") else []


def test_order_of_properties() -> None:
    message = Message(
        "",
        "q",
        b"",
        {"z": "1", "a": "2"},
        content_type="ct",
        content_encoding="ce",
        delivery_mode=2,
        priority=0,
        correlation_id="c",
        reply_to="/queue/r",
        expiration="5",
        message_id="m",
        timestamp=0,
        type="t",
        user_id="u",
        app_id="a",
    )
    assert lines_of(message) == [
        "z:1",
        "a:2",
        "app-id:a",
        "user-id:u",
        "type:t",
        "timestamp:0",
        "amqp-message-id:m",
        "expiration:5",
        "reply-to:/queue/r",
        "correlation-id:c",
        "priority:0",
        "persistent:true",
        "content-encoding:ce",
        "content-type:ct",
    ]


def test_transient_shows_as_absent() -> None:
    assert lines_of(Message("", "q", b"", delivery_mode=1)) == []


@pytest.mark.parametrize(
    ("reply_to", "expected"),
    [
        ("amq.gen-x", "/reply-queue/amq.gen-x"),
        ("/temp-queue/x", "/reply-queue//temp-queue/x"),
        ("/queue/x", "/queue/x"),
        ("/topic/x", "/topic/x"),
        ("/exchange/x", "/exchange/x"),
        ("/amq/queue/x", "/amq/queue/x"),
        ("/reply-queue/x", "/reply-queue/x"),
    ],
)
def test_reply_to(reply_to: str, expected: str) -> None:
    assert lines_of(Message("", "q", b"", reply_to=reply_to)) == [f"reply-to:{expected}"]


DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "text"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (-5, "-5"),
        (1.5, "1.5"),
        (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "1700000000"),
        (Decimal("1E+2"), "100"),
        (Decimal("-1.10"), "-1.10"),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"x"), "x"),
        (["a", 1, None, True], '["a",1,null,true]'),
        ({"é": {"t": datetime(1970, 1, 1, tzinfo=UTC), "b": b"\xff", "d": Decimal("1.0")}}, None),
    ],
)
def test_types_of_amqp_headers(value: object, shown: str | None) -> None:
    if shown is None:
        shown = '{"é"\\c{"t"\\c0,"b"\\c"�","d"\\c"1.0"}}'
    assert lines_of(Message("", "q", b"", {"h": value})) == [f"h:{shown}"]


@pytest.mark.parametrize("value", [None, b"\xff", [float("nan")], DEEP])
def test_what_has_no_text_is_left_out(value: object) -> None:
    assert lines_of(Message("", "q", b"", {"h": value, "i": "1"})) == ["i:1"]


def test_an_unknown_type_is_shown_as_text() -> None:
    assert lines_of(Message("", "q", b"", {"h": 1j})) == ["h:1j"]


def test_server_headers_come_once() -> None:
    headers: dict[str, object] = {
        "destination": "x",
        "message-id": "x",
        "subscription": "x",
        "redelivered": "x",
        "ack": "x",
        "content-length": "99",
        "x-stompbridge-sender": "x",
        "x-stompbridge-seq": 4,
        "content-type": "x",
        "type": "kept",
    }
    shared = shared_part(Message("", "q", b"b", headers, content_type="text/plain"), "/queue/q")
    assert shared.rest == b"content-type:text/plain\ntype:kept\ncontent-length:1\n\nb\0\n"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("a:b", "c", "a\\cb:c"),
        ("a", "b:c", "a:b\\cc"),
        ("a", "b\nc", "a:b\\nc"),
        ("a", "b\rc", "a:b\\rc"),
        ("a", "b\\c", "a:b\\\\c"),
        ("a", "b\0c", "a:bc"),
        ("a\n", "", "a\\n:"),
    ],
)
def test_escapes(name: str, value: str, line: str) -> None:
    assert lines_of(Message("", "q", b"", {name: value})) == [line]


@pytest.mark.parametrize(
    ("body", "binary"), [(b"", False), (b"abc\0", False), ("é😀".encode(), False), (b"\xff\xfe", True)]
)
def test_binary(body: bytes, binary: bool) -> None:
    shared = shared_part(Message("", "q", body), "/queue/q")
    assert shared.binary is binary
    assert shared.rest.endswith(b"\n" + body + b"\0\n")


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.dictionaries(TEXT.map("h".__add__), TEXT, max_size=5), st.binary(max_size=40))
def test_user_headers_come_out_as_they_went_in(headers: dict[str, str], body: bytes) -> None:
    message = message_from_send({"destination": "/queue/q", **headers}, body, "", "q")
    head, _, rest = (b"first:\n" + shared_part(message, "/queue/q").rest).partition(b"\n\n")
    assert rest == body + b"\0\n"
    shown = {}
    for line in head.decode().split("\n"):
        name, _, value = line.partition(":")
        shown[unescape(name, Version.V12)] = unescape(value, Version.V12)
    expected = {"first": "", **headers}
    if body:
        expected["content-length"] = str(len(body))
    assert shown == expected
