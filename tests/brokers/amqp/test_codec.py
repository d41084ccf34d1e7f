"""Messages on the wire, against pamqp."""

from __future__ import annotations

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, header
from pamqp.body import ContentBody

from stompbridge.brokers.amqp import codec
from stompbridge.brokers.amqp.codec import SENDER_HEADER, SEQ_HEADER, decode_message, encode_publish
from stompbridge.brokers.base import Message

SHORT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
OPTIONAL = st.none() | SHORT
HEADERS = st.dictionaries(SHORT, SHORT | st.integers(-(2**63), 2**63 - 1) | st.booleans(), max_size=5)
MESSAGES = st.builds(
    Message,
    exchange=SHORT,
    routing_key=SHORT,
    body=st.binary(max_size=300),
    headers=HEADERS,
    content_type=OPTIONAL,
    content_encoding=OPTIONAL,
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    correlation_id=OPTIONAL,
    reply_to=OPTIONAL,
    expiration=OPTIONAL,
    message_id=OPTIONAL,
    timestamp=st.none() | st.integers(0, 4_000_000_000),
    type=OPTIONAL,
    user_id=OPTIONAL,
    app_id=OPTIONAL,
    sender=st.none() | st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60),
    seq=st.integers(0, 2**63 - 1),
)
PROPERTIES = (
    "content_type",
    "content_encoding",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "app_id",
    "user_id",
)


def frames(data: bytes) -> list[object]:
    """Whole frames, unmarshalled by pamqp."""
    result: list[object] = []
    while data:
        size, _, frame = pamqp.frame.unmarshal(data)
        result.append(frame)
        data = data[size:]
    return result


def header_payload(data: bytes) -> bytes:
    """The payload of the second frame."""
    first = 8 + int.from_bytes(data[3:7], "big")
    return data[first + 7 : first + 7 + int.from_bytes(data[first + 3 : first + 7], "big")]


@given(MESSAGES, st.integers(1, 65535), st.sampled_from([0, 4096]), st.booleans())
def test_pamqp_reads_what_we_publish(message: Message, channel: int, frame_max: int, mandatory: bool) -> None:
    data = encode_publish(channel, message, frame_max, mandatory)
    assert pamqp.frame.unmarshal(data)[1] == channel
    method, content, *bodies = frames(data)
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == (
        message.exchange,
        message.routing_key,
        mandatory,
    )
    assert isinstance(content, header.ContentHeader)
    assert content.body_size == len(message.body)
    properties = content.properties
    assert properties is not None
    for name in PROPERTIES:
        assert getattr(properties, name) == getattr(message, name), name
    assert properties.message_type == message.type
    assert (properties.timestamp and int(properties.timestamp.timestamp())) == message.timestamp
    expected = dict(message.headers)
    if message.sender is not None:
        expected |= {SENDER_HEADER: message.sender, SEQ_HEADER: message.seq}
    assert (properties.headers or {}) == expected
    assert b"".join(body.value for body in bodies if isinstance(body, ContentBody)) == message.body


@given(MESSAGES, st.booleans())
def test_round_trip(message: Message, redelivered: bool) -> None:
    data = header_payload(encode_publish(1, message, 0, False))
    decoded = decode_message(message.exchange, message.routing_key, redelivered, data, message.body)
    message.redelivered = redelivered
    if message.sender is None:
        message.seq = 0
    assert decoded == message


@pytest.mark.parametrize("size", [0, 1, 91, 92, 93, 184, 185, 1000])
def test_bodies_are_cut_to_the_frame_size(size: int) -> None:
    data = encode_publish(1, Message("e", "k", bytes(size)), 100, False)
    bodies = [body for body in frames(data)[2:] if isinstance(body, ContentBody)]
    assert sum(len(body.value) for body in bodies) == size
    assert all(len(body.value) <= 92 for body in bodies)
    assert len(bodies) == -(-size // 92)


@pytest.mark.parametrize(
    "message",
    [
        Message("e" * 256, "k", b""),
        Message("e", "k" * 256, b""),
        Message("e", "k", b"", headers={"n" * 256: 1}),
        Message("e", "k", b"", headers={"n": object()}),
        Message("e", "k", b"", headers={"n": "x" * 5000}),
        Message("e", "k", b"", content_type="x" * 256),
        Message("e", "k", b"", priority=256),
        Message("e", "k", b"", delivery_mode=-1),
        Message("e", "k", b"", timestamp=-1),
        Message("e", "k", b"", timestamp=2**64),
        Message("e", "k\ud800", b""),
        Message("e", "k", b"", sender="s", seq=2**63),
    ],
)
def test_what_cannot_be_sent(message: Message) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode_publish(1, message, 4096, False)


def test_headers_of_our_own_are_not_doubled() -> None:
    message = Message("e", "k", b"", headers={SENDER_HEADER: "forged", "a": "b"}, sender="true", seq=5)
    decoded = decode_message("e", "k", False, header_payload(encode_publish(1, message, 0, False)), b"")
    assert (decoded.sender, decoded.seq, decoded.headers) == ("true", 5, {"a": "b"})


@pytest.mark.parametrize(
    "headers",
    [
        {SENDER_HEADER: "s"},
        {SEQ_HEADER: 1},
        {SENDER_HEADER: "", SEQ_HEADER: 1},
        {SENDER_HEADER: 7, SEQ_HEADER: 1},
        {SENDER_HEADER: "s", SEQ_HEADER: "1"},
        {SENDER_HEADER: "s", SEQ_HEADER: -1},
        {SENDER_HEADER: "s", SEQ_HEADER: True},
    ],
)
def test_identities_that_are_none(headers: dict[str, object]) -> None:
    message = Message("e", "k", b"", headers=headers)
    decoded = decode_message("e", "k", False, header_payload(encode_publish(1, message, 0, False)), b"")
    assert (decoded.sender, decoded.seq, decoded.headers) == (None, 0, headers)


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_message_is_not_lost_for_its_properties(cut: int) -> None:
    message = Message("e", "k", b"body", headers={"a": "b"}, content_type="text/plain", message_id="m", timestamp=7)
    data = header_payload(encode_publish(1, message, 0, False))
    decoded = decode_message("e", "k", True, data[:cut], b"body")
    assert (decoded.exchange, decoded.routing_key, decoded.body, decoded.redelivered) == ("e", "k", b"body", True)


def test_tables_nested_without_end() -> None:
    nested = b""
    for _ in range(5000):
        nested = b"\x01kF" + len(nested).to_bytes(4, "big") + nested
    data = bytes(12) + b"\x20\x00" + len(nested).to_bytes(4, "big") + nested
    assert decode_message("e", "k", False, data, b"body").body == b"body"


def test_acknowledgements() -> None:
    (ack,) = frames(codec.encode_ack(7, 2**40, True))
    assert isinstance(ack, commands.Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2**40, True)
    for multiple in (False, True):
        for requeue in (False, True):
            (nack,) = frames(codec.encode_nack(7, 3, multiple, requeue))
            assert isinstance(nack, commands.Basic.Nack)
            assert (nack.delivery_tag, nack.multiple, nack.requeue) == (3, multiple, requeue)


def test_the_cache_of_routes_is_bounded() -> None:
    for number in range(codec.CACHED + 5):
        encode_publish(1, Message("e", str(number), b""), 0, False)
    assert len(codec._routes) <= codec.CACHED
