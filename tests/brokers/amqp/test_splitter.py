"""The splitter, against frames that pamqp made."""

from __future__ import annotations

import random

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, header
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.heartbeat import Heartbeat

from stompbridge.brokers.amqp import methods
from stompbridge.brokers.amqp.splitter import (
    MAX_FRAME,
    Blocked,
    Confirm,
    ConnectionClosing,
    Delivery,
    Event,
    Method,
    Returned,
    Splitter,
    StreamError,
)

OURS = (1, 2, 7)


def marshal(frame: Frame | Heartbeat, channel: int) -> bytes:
    return pamqp.frame.marshal(frame, channel)


def content(channel: int, method: Frame, body: bytes, parts: int = 1) -> bytes:
    properties = commands.Basic.Properties(message_id="m", headers={"n": len(body)})
    data = marshal(method, channel) + pamqp.frame.marshal(header.ContentHeader(0, len(body), properties), channel)
    size = -(-len(body) // parts) or 1
    for start in range(0, len(body), size):
        data += pamqp.frame.marshal(ContentBody(body[start : start + size]), channel)
    return data


def delivery(channel: int, tag: int, body: bytes, parts: int = 1, redelivered: bool = False) -> bytes:
    return content(channel, commands.Basic.Deliver(f"c{channel}", tag, redelivered, "ex", "a.b"), body, parts)


def whole_frames(data: bytes) -> list[bytes]:
    frames = []
    while data:
        size = 8 + int.from_bytes(data[3:7], "big")
        frames.append(data[:size])
        data = data[size:]
    return frames


def shown(event: Event) -> tuple[object, ...]:
    """An event as a value that can be compared."""
    match event:
        case Delivery():
            message = event.message
            return (
                *("delivery", event.channel, event.consumer, event.tag, message.exchange, message.routing_key),
                *(message.body, message.redelivered, message.message_id, message.headers),
            )
        case Confirm():
            return ("confirm", event.channel, event.tag, event.multiple, event.ack)
        case Returned():
            message = event.message
            return ("returned", event.channel, event.code, event.text, message.routing_key, message.body)
        case Method():
            return ("method", event.channel, event.payload)
        case Blocked():
            return ("blocked", event.channel, event.reason)
        case ConnectionClosing():
            return ("closing", event.channel, event.close.code, event.close.text)


def split(chunks: list[bytes]) -> tuple[bytes, list[tuple[object, ...]]]:
    splitter = Splitter()
    splitter.channels.update(OURS)
    passed, events = b"", []
    for chunk in chunks:
        some, more = splitter.feed(chunk)
        passed += some
        events += map(shown, more)
    return passed, events


class Stream:
    """Frames of a broker and what must come of them."""

    def __init__(self, seed: int, count: int = 30) -> None:
        self.random = random.Random(seed)
        self.data = b""
        self.passed = b""
        self.events: list[tuple[object, ...]] = []
        for number in range(count):
            self.random.choice((self.deliver, self.confirm, self.give_back, self.reply, self.other, self.control))(
                number
            )

    def deliver(self, number: int) -> None:
        channel, again = self.random.choice(OURS), self.random.random() < 0.5
        body = self.random.randbytes(self.random.choice((0, 1, 10, 300)))
        self.data += delivery(channel, number, body, self.random.choice((1, 1, 3)), again)
        self.events.append(
            ("delivery", channel, f"c{channel}", number, "ex", "a.b", body, again, "m", {"n": len(body)})
        )

    def confirm(self, number: int) -> None:
        multiple = self.random.random() < 0.5
        self.data += marshal(commands.Basic.Ack(number, multiple), 2)
        self.data += marshal(commands.Basic.Nack(number, multiple, False), 2)
        self.events += [("confirm", 2, number, multiple, True), ("confirm", 2, number, multiple, False)]

    def give_back(self, number: int) -> None:
        body = self.random.randbytes(5)
        self.data += content(1, commands.Basic.Return(312, "NO_ROUTE", "", f"q{number}"), body)
        self.events.append(("returned", 1, 312, "NO_ROUTE", f"q{number}", body))

    def reply(self, number: int) -> None:
        self.data += marshal(commands.Queue.BindOk(), 7)
        self.events.append(("method", 7, methods.QUEUE_BIND_OK))

    def other(self, number: int) -> None:
        data = delivery(5, number, self.random.randbytes(20)) + marshal(commands.Channel.OpenOk(), 9)
        self.data += data
        self.passed += data

    def control(self, number: int) -> None:
        data = marshal(Heartbeat(), 0)
        data += marshal(commands.Connection.Blocked("low on memory"), 0)
        data += marshal(commands.Connection.Unblocked(), 0)
        data += marshal(commands.Connection.Close(320, "shutdown", 0, 0), 0)
        self.data += data
        self.passed += data
        self.events += [("blocked", 0, "low on memory"), ("blocked", 0, None), ("closing", 0, 320, "shutdown")]


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_random_streams_in_random_pieces(seed: int, cuts: int) -> None:
    stream = Stream(seed)
    places = sorted(stream.random.randrange(len(stream.data) + 1) for _ in range(cuts))
    chunks = [stream.data[a:b] for a, b in zip([0, *places], [*places, len(stream.data)], strict=True)]
    assert split(chunks) == (stream.passed, stream.events)


@pytest.mark.parametrize("seed", range(5))
def test_byte_by_byte(seed: int) -> None:
    stream = Stream(seed)
    assert split([stream.data[at : at + 1] for at in range(len(stream.data))]) == (stream.passed, stream.events)


def test_contents_of_several_channels_mixed() -> None:
    pairs = zip(whole_frames(delivery(1, 1, b"aaaa", 2)), whole_frames(delivery(2, 9, b"bbbb", 2)), strict=True)
    mixed = b"".join(first + second for first, second in pairs)
    assert [event[6] for event in split([mixed])[1]] == [b"aaaa", b"bbbb"]


def test_a_body_in_pieces_is_not_copied_over_and_over() -> None:
    body = bytes(2_000_000)
    data = delivery(1, 1, body)
    splitter = Splitter()
    splitter.channels.add(1)
    for start in range(0, len(data) - 100, 100):
        assert splitter.feed(data[start : start + 100]) == (b"", [])
    # Joined once, when it is whole.
    assert len(splitter._chunks) > 1000


def test_another_protocol_version_is_the_librarys() -> None:
    answer = b"AMQP\x00\x01\x00\x00"
    assert split([answer[:3], answer[3:], b"more"]) == (answer + b"more", [])


def test_only_the_start_can_be_another_version() -> None:
    with pytest.raises(StreamError):
        split([marshal(Heartbeat(), 0), b"AMQP\x00\x00\x09\x01"])


def test_closed_channels_are_forgotten() -> None:
    splitter = Splitter()
    splitter.channels.add(1)
    data = delivery(1, 1, b"body")
    assert splitter.feed(data[: len(data) - 12]) == (b"", [])
    splitter.forget(1)
    splitter.channels.add(1)
    with pytest.raises(StreamError, match="without its header"):
        splitter.feed(data[len(data) - 12 :])


BODY = pamqp.frame.marshal(ContentBody(b"body"), 1)
HEADER = pamqp.frame.marshal(header.ContentHeader(0, 4, commands.Basic.Properties()), 1)
DELIVER = marshal(commands.Basic.Deliver("c", 1, False, "e", "k"), 1)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x01\x00\x01" + (MAX_FRAME + 1).to_bytes(4, "big") + b"x",
        marshal(Heartbeat(), 0)[:-1] + b"\x00",
        BODY,
        DELIVER + BODY,
        HEADER,
        DELIVER + b"\x02\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x00\xce" + BODY,
        DELIVER + HEADER[:-1] + b"\x00" + BODY,
        DELIVER + HEADER + BODY[:-1] + b"\x00",
    ],
)
def test_what_is_no_amqp(data: bytes) -> None:
    with pytest.raises(StreamError):
        split([data])
    with pytest.raises(StreamError):
        split([data[at : at + 1] for at in range(len(data))] + [bytes(8)])


@pytest.mark.parametrize("size", range(4, 12))
def test_a_method_that_is_cut_short(size: int) -> None:
    short = marshal(commands.Basic.Ack(1, True), 1)[7 : 7 + size]
    with pytest.raises(StreamError):
        split([b"\x01\x00\x01" + len(short).to_bytes(4, "big") + short + b"\xce"])
