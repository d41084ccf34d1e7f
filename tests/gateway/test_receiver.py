from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from stompbridge.gateway.receiver import Receiver
from tests.gateway.harness import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_payload, frame, frame_head

MAX_SIZE = 300
DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Reference:
    """ServerProtocol alone."""

    def __init__(self) -> None:
        self.protocol = ServerProtocol(state=State.OPEN, max_size=MAX_SIZE)
        self.payloads: list[bytes] = []
        self.messages: list[tuple[Opcode, bytes]] = []
        self.sent: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        self.sent += self.protocol.data_to_send()
        events = self.protocol.events_received()
        frames = [event for event in events if isinstance(event, Frame) and event.opcode in DATA]
        self.payloads += [bytes(frame.data) for frame in frames]
        for event in frames:
            if event.opcode is not Opcode.CONT:
                self.messages.append((event.opcode, b""))
            opcode, start = self.messages[-1]
            self.messages[-1] = opcode, start + event.data

    def has_bad_text(self) -> bool:
        """Whether a text message is not UTF-8, which the protocol does not care about."""
        return any(opcode is Opcode.TEXT and not is_utf8(data) for opcode, data in self.messages)

    def end(self) -> tuple[object, ...]:
        """Everything that can be seen from outside after the end of the stream."""
        protocol = self.protocol
        protocol.receive_eof()
        self.sent += protocol.data_to_send()
        assert self.sent.count(SEND_EOF) <= 1
        assert SEND_EOF not in self.sent[:-1]
        return (
            self.payloads,
            b"".join(self.sent),
            protocol.state,
            protocol.close_rcvd,
            protocol.close_sent,
            protocol.close_code,
            type(protocol.parser_exc),
        )


class Ours(Reference):
    """The same with a receiver in front."""

    def __init__(self, max_fragments: int = 100) -> None:
        super().__init__()
        self.receiver = Receiver(self.protocol, MAX_SIZE, max_fragments)

    def feed(self, data: bytes) -> None:
        self.receiver.feed(data)
        self.drain()

    def drain(self) -> None:
        while (payload := self.receiver.next()) is not None:
            assert type(payload) is bytes
            self.payloads.append(payload)
        self.sent += self.protocol.data_to_send()


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data``, cut at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def run(target: Reference, parts: list[bytes]) -> tuple[object, ...]:
    for part in parts:
        target.feed(part)
    return target.end()


STREAMS = {
    "nothing": b"",
    "text": frame(TEXT, b"hello"),
    "empty text": frame(TEXT),
    "binary": frame(BINARY, b"\x00\xff"),
    "125 bytes": frame(TEXT, b"x" * 125),
    "126 bytes": frame(TEXT, b"x" * 126),
    "as long as may be": frame(TEXT, b"x" * MAX_SIZE),
    "one byte too long": frame(TEXT, b"x" * (MAX_SIZE + 1)),
    "too long, head only": frame_head(TEXT, MAX_SIZE + 1),
    "2^63 bytes": frame_head(BINARY, 2**63) + b"x",
    "2^64 - 1 bytes": frame_head(TEXT, 2**64 - 1),
    "long form of a short length": b"\x81\xfe\x00\x02\x00\x00\x00\x00hi",
    "longest form of a short length": b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00hi",
    "umlauts": frame(TEXT, "grüße 🚀".encode()),
    "many": b"".join(frame(TEXT, b"%d" % n) for n in range(20)),
    "unmasked": frame(TEXT, b"hello", mask=None),
    "unmasked, second": frame(TEXT, b"a") + frame(TEXT, b"hello", mask=None) + frame(TEXT, b"b"),
    "unmasked ping": frame(PING, b"x", mask=None),
    "reserved bit 1": frame(TEXT, b"a", rsv=4),
    "reserved bit 3, fragment": frame(TEXT, b"a", rsv=1, fin=False),
    "unknown opcode": frame(3, b"a"),
    "unknown opcode, long": b"\x83\xfe",
    "unknown control opcode": frame(11),
    "fragments": frame(TEXT, b"a", fin=False) + frame(CONT, b"b", fin=False) + frame(CONT, b"c"),
    "fragments, then text": frame(BINARY, b"a", fin=False) + frame(CONT, b"b") + frame(TEXT, b"c"),
    "fragments with pings": frame(TEXT, b"a", fin=False) + frame(PING, b"1") + frame(CONT, b"b") + frame(PING, b"2"),
    "fragments too long": frame(TEXT, b"a" * 200, fin=False) + frame(CONT, b"b" * 101),
    "fragments too long, head only": frame(TEXT, b"a" * 200, fin=False) + frame_head(CONT, 101),
    "fragments, exactly": frame(TEXT, b"a" * 200, fin=False) + frame(CONT, b"b" * 100) + frame(TEXT, b"c" * MAX_SIZE),
    "code point over fragments": frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONT, b"\x9a\x80"),
    "text within fragments": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "binary within fragments": frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False),
    "continuation of nothing": frame(CONT, b"a"),
    "ping": frame(PING, b"are you there"),
    "pings": frame(PING, b"1") + frame(TEXT, b"a") + frame(PING, b"2"),
    "ping of 126 bytes": frame(PING, b"x" * 126),
    "ping over the limit": frame(PING, b"x" * (MAX_SIZE + 1)),
    "fragmented ping": frame(PING, b"a", fin=False),
    "pong": frame(PONG, b"a") + frame(TEXT, b"a"),
    "close": frame(CLOSE, close_payload(1000, "bye")),
    "close without a code": frame(CLOSE),
    "close, one byte": frame(CLOSE, b"\x03"),
    "close, bad code": frame(CLOSE, close_payload(1005)),
    "close, bad text": frame(CLOSE, b"\x03\xe8\xff"),
    "close, then more": frame(CLOSE, close_payload(1001)) + frame(TEXT, b"a") + frame(PING),
    "close within fragments": frame(TEXT, b"a", fin=False) + frame(CLOSE, close_payload(1000)),
    "cut in the head": frame(BINARY, b"hello")[:1],
    "cut in the length": frame(BINARY, b"x" * 200)[:3],
    "cut in the mask": frame(BINARY, b"hello")[:4],
    "cut in the payload": frame(BINARY, b"hello")[:-1],
    "cut after a frame": frame(TEXT, b"hello") + frame(TEXT, b"x" * 200)[:50],
    "cut ping": frame(PING, b"hello")[:-1],
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}
TRAILERS = [b"", frame(TEXT, b"after"), frame(PING, b"after"), b"\x81", b"\xff" * 40]


@pytest.mark.parametrize("trailer", TRAILERS, ids=repr)
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_as_the_protocol_alone(stream: bytes, trailer: bytes) -> None:
    data = stream + trailer
    expected = run(Reference(), [data])
    assert run(Ours(), [data] if data else []) == expected
    assert run(Ours(), [data[n : n + 1] for n in range(len(data))]) == expected
    assert run(Ours(), [data[n : n + 3] for n in range(0, len(data), 3)]) == expected


_text = st.text(max_size=80).map(str.encode)
_binary = st.binary(max_size=80)
_mask = st.binary(min_size=4, max_size=4)


def _fragments(opcode: int, payload: bytes, cuts: list[int], between: list[bytes]) -> bytes:
    parts = pieces(payload, cuts) or [b""]
    frames = [
        frame(CONT if n else opcode, part, fin=n == len(parts) - 1) + (between[n] if n < len(between) else b"")
        for n, part in enumerate(parts)
    ]
    return b"".join(frames)


_pings = st.lists(st.binary(max_size=9).map(lambda data: frame(PING, data)), max_size=3)
_good = st.one_of(
    st.builds(lambda payload, mask: frame(TEXT, payload, mask=mask), _text, _mask),
    st.builds(lambda payload, mask: frame(BINARY, payload, mask=mask), _binary, _mask),
    st.builds(_fragments, st.just(TEXT), _text, st.lists(st.integers(0, 99), max_size=4), _pings),
    st.builds(_fragments, st.just(BINARY), _binary, st.lists(st.integers(0, 99), max_size=4), _pings),
    st.builds(lambda payload: frame(PING, payload), st.binary(max_size=125)),
    st.builds(lambda payload: frame(PONG, payload), st.binary(max_size=125)),
)
_odd = st.one_of(
    st.sampled_from(list(STREAMS.values())),
    st.builds(lambda data: frame(CLOSE, data), st.binary(max_size=9)),
    st.builds(lambda code: frame(CLOSE, close_payload(code)), st.integers(999, 5001)),
    st.builds(
        lambda opcode, payload, fin, rsv, mask: frame(opcode, payload, fin=fin, rsv=rsv, mask=mask),
        st.integers(3, 15),
        st.binary(max_size=130),
        st.booleans(),
        st.integers(0, 7),
        st.sampled_from([None, b"abcd"]),
    ),
    st.builds(
        lambda opcode, length: frame_head(opcode, length), st.sampled_from([1, 2, 8, 9]), st.integers(0, 2**64 - 1)
    ),
)
_streams = st.builds(
    lambda good, odd, more: b"".join([*good, *odd, *more]),
    st.lists(_good, max_size=6),
    st.lists(_odd, max_size=2),
    st.lists(_good, max_size=3),
)


@settings(max_examples=250, deadline=None)
@given(_streams, st.lists(st.integers(0, 10_000), max_size=8), st.lists(st.integers(0, 10_000), max_size=8))
def test_random_streams_as_the_protocol_alone(stream: bytes, cuts: list[int], other_cuts: list[int]) -> None:
    reference = Reference()
    expected = run(reference, pieces(stream, other_cuts))
    assume(not reference.has_bad_text())
    assert run(Ours(), pieces(stream, cuts)) == expected


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_no_input_raises(stream: bytes, cuts: list[int]) -> None:
    ours = Ours()
    run(ours, pieces(stream, cuts))
    assert ours.protocol.state is State.CLOSED


BAD_TEXTS = {
    "stray byte": [b"\xff"],
    "overlong": [b"\xc0\x80"],
    "surrogate": [b"\xed\xa0\x80"],
    "beyond Unicode": [b"\xf4\x90\x80\x80"],
    "cut": [b"abc\xf0\x9f\x9a"],
    "in the first fragment": [b"a\xff", b"b"],
    "in the last fragment": [b"a", b"", b"\x80"],
    "broken at the cut": [b"\xf0\x9f", b"a"],
    "open at the end": [b"a", b"\xf0\x9f"],
}


@pytest.mark.parametrize("parts", BAD_TEXTS.values(), ids=BAD_TEXTS)
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_text_that_is_not_utf8(parts: list[bytes], step: int) -> None:
    ours = Ours()
    last = len(parts) - 1
    stream = b"".join(frame(CONT if n else TEXT, part, fin=n == last) for n, part in enumerate(parts))
    stream = frame(TEXT, b"before") + stream + frame(TEXT, b"after") + frame(PING)
    for n in range(0, len(stream), step):
        ours.feed(stream[n : n + step])
    assert ours.payloads[0] == b"before"
    assert b"after" not in ours.payloads
    assert ours.sent == [
        Frame(Opcode.CLOSE, close_payload(1007, "text message is not UTF-8")).serialize(mask=False),
        SEND_EOF,
    ]
    assert ours.receiver.touched


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_text_in_fragments_is_judged_as_a_whole(payload: bytes, cuts: list[int]) -> None:
    ours = Ours()
    ours.feed(_fragments(TEXT, payload, cuts, []))
    if is_utf8(payload):
        assert b"".join(ours.payloads) == payload
        assert ours.protocol.state is State.OPEN
    else:
        assert ours.protocol.close_sent is not None
        assert ours.protocol.close_sent.code == 1007


def test_binary_fragments_may_hold_anything() -> None:
    ours = Ours()
    ours.feed(frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe"))
    assert ours.payloads == [b"\xff", b"\xfe"]


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_number_of_fragments_is_bounded(payload: bytes) -> None:
    ours = Ours(max_fragments=5)
    message = frame(TEXT, payload, fin=False) + frame(CONT, payload, fin=False) * 3 + frame(CONT, payload)
    ours.feed(message * 2)
    assert ours.payloads == [payload] * 10
    ours.feed(frame(TEXT, payload, fin=False) + frame(CONT, payload, fin=False) * 100_000)
    assert ours.payloads == [payload] * 15
    assert ours.protocol.close_sent is not None
    assert ours.protocol.close_sent.code == 1009
    assert ours.protocol.close_sent.reason == "message of more than 5 fragments"


def test_pongs_are_sent_in_order_and_noted() -> None:
    ours = Ours()
    ours.feed(frame(TEXT, b"a"))
    assert not ours.receiver.touched
    ours.feed(frame(PING, b"1") + frame(TEXT, b"b") + frame(PING, b"2"))
    assert ours.receiver.touched
    assert ours.sent == [b"\x8a\x011", b"\x8a\x012"]


def test_the_limit_can_be_changed() -> None:
    ours = Ours()
    ours.receiver.max_size = 1000
    ours.feed(frame(TEXT, b"x" * 1000) + frame(TEXT, b"y" * 400, fin=False) + frame(CONT, b"z" * 600))
    assert [len(payload) for payload in ours.payloads] == [1000, 400, 600]
    ours.feed(frame_head(TEXT, 1001))
    assert ours.protocol.close_sent is not None
    assert ours.protocol.close_sent.code == 1009


def test_input_is_kept_until_it_is_asked_for() -> None:
    ours = Ours()
    parts = [b"%d" % n * 50 for n in range(30)]
    stream = b"".join(frame(TEXT, part) for part in parts)
    for n in range(0, len(stream), 70):
        ours.receiver.feed(stream[n : n + 70])
        if n % 3 == 0 and (payload := ours.receiver.next()) is not None:
            ours.payloads.append(payload)
    ours.drain()
    assert ours.payloads == parts


def test_after_our_close_frame_messages_go_on_until_the_clients() -> None:
    ours = Ours()
    ours.protocol.send_close(1001)
    ours.feed(frame(TEXT, b"a") + frame(CLOSE, close_payload(1001)) + frame(TEXT, b"b"))
    assert ours.payloads == [b"a"]
    assert ours.sent[-1] == SEND_EOF


def test_a_big_frame_in_small_pieces_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        protocol = ServerProtocol(state=State.OPEN)
        receiver = Receiver(protocol, size, 10)
        data = frame(BINARY, b"x" * size)
        begin = time.process_time()
        for n in range(0, len(data), 100):
            receiver.feed(data[n : n + 100])
            payload = receiver.next()
        assert payload == b"x" * size
        return time.process_time() - begin

    small = min(seconds(200_000) for _ in range(3))
    big = min(seconds(1_600_000) for _ in range(3))
    assert big < small * 8 * 4


def test_nothing_is_held_after_the_end() -> None:
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_SIZE)
    receiver = Receiver(protocol, MAX_SIZE, 10)
    receiver.feed(frame(TEXT, b"whole") + frame(TEXT, b"x" * 200)[:-1])
    assert receiver.next() == b"whole"
    assert receiver.next() is None
    receiver.clear()
    receiver.feed(b"")
    assert receiver.next() is None
    assert not receiver._data
