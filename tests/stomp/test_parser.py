"""The parser: each case whole, byte by byte, cut in two at every place, and with data after it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import Frame, Version
from stompbridge.stomp.parser import FrameParser

MAX_FRAME = 200
MAX_HEADERS = 4
MAX_HEADER_BYTES = 100

FRAMES: dict[str, tuple[bytes, list[Frame]]] = {
    "no headers": (b"BEGIN\n\n\0", [Frame("BEGIN", {})]),
    "headers": (b"SEND\na:1\nb:2\n\nbody\0", [Frame("SEND", {"a": "1", "b": "2"}, b"body")]),
    "crlf": (b"SEND\r\na:1\r\nb:2\r\n\r\nbody\0", [Frame("SEND", {"a": "1", "b": "2"}, b"body")]),
    "crlf without headers": (b"BEGIN\r\n\r\n\0", [Frame("BEGIN", {})]),
    "mixed line ends": (b"SEND\r\na:1\nb:2\n\r\nbody\0", [Frame("SEND", {"a": "1", "b": "2"}, b"body")]),
    "mixed line ends, lf last": (b"SEND\na:1\r\n\nbody\0", [Frame("SEND", {"a": "1"}, b"body")]),
    "blank line in the body": (b"SEND\n\na\n\nb\r\n\r\n\0", [Frame("SEND", {}, b"a\n\nb\r\n\r\n")]),
    "crlf head, blank line in the body": (b"SEND\r\n\r\na\n\nb\0", [Frame("SEND", {}, b"a\n\nb")]),
    "content-length": (b"SEND\ncontent-length:4\n\nbody\0", [Frame("SEND", {"content-length": "4"}, b"body")]),
    "content-length 0": (b"SEND\ncontent-length:0\n\n\0", [Frame("SEND", {"content-length": "0"})]),
    "content-length with zeros before": (
        b"SEND\ncontent-length:0004\n\nbody\0",
        [Frame("SEND", {"content-length": "0004"}, b"body")],
    ),
    "nul in the body": (b"SEND\ncontent-length:3\n\n\0a\0\0", [Frame("SEND", {"content-length": "3"}, b"\0a\0")]),
    "content-length counts bytes": (
        "SEND\ncontent-length:4\n\néü\0".encode(),
        [Frame("SEND", {"content-length": "4"}, "éü".encode())],
    ),
    "content-length on any command": (
        b"ACK\ncontent-length:1\n\n\0\0",
        [Frame("ACK", {"content-length": "1"}, b"\0")],
    ),
    "body is not text": (b"SEND\n\n\xff\xfe\0", [Frame("SEND", {}, b"\xff\xfe")]),
    "first of repeated headers wins": (b"SEND\na:1\na:2\n\n\0", [Frame("SEND", {"a": "1"})]),
    "first wins after unescaping": (b"SEND\na\\c:1\na\\c:2\n\n\0", [Frame("SEND", {"a:": "1"})]),
    "first colon splits": (b"SEND\na:b:c\n\n\0", [Frame("SEND", {"a": "b:c"})]),
    "empty value": (b"SEND\na:\n\n\0", [Frame("SEND", {"a": ""})]),
    "spaces stay": (b"SEND\n a : b \n\n\0", [Frame("SEND", {" a ": " b "})]),
    "utf-8 headers": ("SEND\né:ü\n\n\0".encode(), [Frame("SEND", {"é": "ü"})]),
    "escapes": (
        b"SEND\na\\cb\\\\:c\\nd\\re\n\n\0",
        [Frame("SEND", {"a:b\\": "c\nd\re"})],
    ),
    "connect is not unescaped": (
        b"CONNECT\npasscode:a\\tb\\\n\n\0STOMP\npasscode:\\n\n\n\0",
        [Frame("CONNECT", {"passcode": "a\\tb\\"}), Frame("STOMP", {"passcode": "\\n"})],
    ),
    "unknown command": (b"GET / HTTP/1.1\nHost: x\n\n\0", [Frame("GET / HTTP/1.1", {"Host": " x"})]),
    "heart-beats": (b"\n\r\n\n", []),
    "nuls": (b"\0\0\n\0", []),
    "between frames": (
        b"\n\r\n\0A\n\n\0\n\r\n\nB\n\n\0\n\0\r\n",
        [Frame("A", {}), Frame("B", {})],
    ),
    "frames back to back": (
        b"A\n\n1\0B\ncontent-length:1\n\n2\0C\n\n3\0",
        [Frame("A", {}, b"1"), Frame("B", {"content-length": "1"}, b"2"), Frame("C", {}, b"3")],
    ),
    "most headers": (
        b"A\n" + b"".join(b"%d:\n" % n for n in range(4)) + b"\n\0",
        [Frame("A", dict.fromkeys("0123", ""))],
    ),
    "most header bytes": (b"A\nb:" + b"x" * 96 + b"\n\n\0", [Frame("A", {"b": "x" * 96})]),
    "most header bytes, crlf": (b"A\nb:" + b"x" * 95 + b"\r\n\r\n\0", [Frame("A", {"b": "x" * 95})]),
    "largest frame": (b"A\n\n" + b"x" * 197 + b"\0", [Frame("A", {}, b"x" * 197)]),
    "largest frame with content-length": (
        b"A\ncontent-length:178\n\n" + b"x" * 178 + b"\0",
        [Frame("A", {"content-length": "178"}, b"x" * 178)],
    ),
}

ERRORS: dict[str, tuple[bytes, str]] = {
    "no colon": (b"SEND\nbroken\n\n\0", "must have a colon"),
    "no colon, crlf": (b"SEND\r\nbroken\r\n\r\n\0", "must have a colon"),
    "no header name": (b"SEND\n:value\n\n\0", "must have a name"),
    "bare cr": (b"SEND\na:1\rb:2\n\n\0", "CR must be followed by LF"),
    "bare cr at the end of a line": (b"SEND\na:1\r\r\n\n\0", "CR must be followed by LF"),
    "bare cr at the end of the head": (b"SEND\na:1\r\r\n\r\n\0", "CR must be followed by LF"),
    "bare cr between frames": (b"\n\rSEND\n\n\0", "CR must be followed by LF"),
    "undefined escape": (b"SEND\na:\\t\n\n\0", "not a valid escape"),
    "lone backslash": (b"SEND\na:b\\\n\n\0", "not a valid escape"),
    "undefined escape in a name": (b"SEND\n\\t:a\n\n\0", "not a valid escape"),
    "headers not utf-8": (b"SEND\na:\xff\n\n\0", "must be UTF-8"),
    "nul in the command": (b"SEN\0D\n\n\0", "before its blank line"),
    "nul in a header": (b"SEND\na:\0b\n\n\0", "before its blank line"),
    "no blank line": (b"DISCONNECT\n\0", "before its blank line"),
    "content-length too small": (b"SEND\ncontent-length:3\n\nbody\0", "must end with NUL"),
    "content-length too large": (b"SEND\ncontent-length:5\n\nbody\0\n", "must end with NUL"),
    "content-length negative": (b"SEND\ncontent-length:-1\n\nbody\0", "must be a number"),
    "content-length no number": (b"SEND\ncontent-length:many\n\nbody\0", "must be a number"),
    "content-length empty": (b"SEND\ncontent-length:\n\nbody\0", "must be a number"),
    "content-length in other digits": ("SEND\ncontent-length:٤\n\nbody\0".encode(), "must be a number"),
    "content-length superscript": ("SEND\ncontent-length:²\n\nbody\0".encode(), "must be a number"),
    "content-length with a space": (b"SEND\ncontent-length: 4\n\nbody\0", "must be a number"),
    "content-length of many digits": (b"SEND\ncontent-length:" + b"0" * 19 + b"\n\n\0", "must be a number"),
    "content-length beyond the limit": (b"A\ncontent-length:179\n\n", "at most 200 bytes"),
    "content-length of 18 digits": (b"A\ncontent-length:" + b"9" * 18 + b"\n\n", "at most 200 bytes"),
    "endless body": (b"A\n\n" + b"x" * 198, "at most 200 bytes"),
    "body beyond the limit": (b"A\n\n" + b"x" * 198 + b"\0", "at most 200 bytes"),
    "endless head": (b"SEND\na:" + b"x" * 96, "No more than 100 bytes of headers"),
    "endless command": (b"x" * 103, "No more than 100 bytes of headers"),
    "endless header lines": (b"a:b\n" * 26, "No more than 100 bytes of headers"),
    "head one beyond the limit": (b"A\nb:" + b"x" * 97 + b"\n\n\0", "No more than 100 bytes of headers"),
    "head two beyond the limit": (b"A\nb:" + b"x" * 98 + b"\n\n\0", "No more than 100 bytes of headers"),
    "crlf head beyond the limit": (b"A\nb:" + b"x" * 97 + b"\r\n\r\n\0", "No more than 100 bytes of headers"),
    "too many headers": (b"A\n" + b"a:\n" * 5 + b"\n\0", "No more than 4 headers"),
}


def make_parser(max_frame: int = MAX_FRAME) -> FrameParser:
    return FrameParser(max_frame, MAX_HEADERS, MAX_HEADER_BYTES)


def frames_of(parser: FrameParser) -> Iterator[Frame]:
    while (frame := parser.next_frame()) is not None:
        yield frame


def parse(*pieces: bytes, parser: FrameParser | None = None) -> list[Frame]:
    parser = parser or make_parser()
    found: list[Frame] = []
    for piece in pieces:
        parser.feed(piece)
        found.extend(frames_of(parser))
    return found


def cuts(wire: bytes) -> Iterator[tuple[bytes, ...]]:
    yield (wire,)
    yield tuple(wire[at : at + 1] for at in range(len(wire)))
    for at in range(1, len(wire)):
        yield wire[:at], wire[at:]


@pytest.mark.parametrize("case", FRAMES)
def test_frames(case: str) -> None:
    wire, expected = FRAMES[case]
    for pieces in cuts(wire):
        assert parse(*pieces) == expected


@pytest.mark.parametrize("case", FRAMES)
def test_frames_with_trailing_data(case: str) -> None:
    wire, expected = FRAMES[case]
    parser = make_parser()
    assert parse(wire + b"TRAI", parser=parser) == expected
    assert parser.buffered == 4
    assert parse(b"LING\n\n", parser=parser) == []
    assert parse(b"\0", parser=parser) == [Frame("TRAILING", {})]
    assert parser.buffered == 0


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    wire, text = ERRORS[case]
    for pieces in cuts(wire):
        parser = make_parser()
        with pytest.raises(StompError, match=text) as caught:
            parse(*pieces, parser=parser)
        assert caught.value.fatal
        assert parser.buffered == 0


@pytest.mark.parametrize("case", ERRORS)
def test_errors_after_frames_and_before_data(case: str) -> None:
    wire, text = ERRORS[case]
    parser = make_parser()
    parser.feed(b"A\n\n\0" + wire + b"B\n\n\0" * 100)
    assert parser.next_frame() == Frame("A", {})
    with pytest.raises(StompError, match=text):
        parser.next_frame()


@pytest.mark.parametrize("case", ERRORS)
def test_the_first_error_is_final(case: str) -> None:
    wire, text = ERRORS[case]
    parser = make_parser()
    with pytest.raises(StompError, match=text) as first:
        parse(wire, parser=parser)
    parser.feed(b"A\n\n\0")
    assert parser.buffered == 0
    for _ in range(2):
        with pytest.raises(StompError) as again:
            parser.next_frame()
        assert again.value is first.value


def test_1_0_keeps_unknown_escapes_and_trims_values() -> None:
    parser = make_parser()
    parser.version = Version.V10
    wire = b"SEND\na:  \\t\\n \\\nb :\\\\  c\n\n\0"
    assert parse(wire, parser=parser) == [Frame("SEND", {"a": "\\t\n \\", "b ": "\\  c"})]


@pytest.mark.parametrize("version", [Version.V11, Version.V12])
def test_later_versions_refuse_unknown_escapes(version: Version) -> None:
    parser = make_parser()
    parser.version = version
    assert parse(b"SEND\na: \\r\n\n\0", parser=parser) == [Frame("SEND", {"a": " \r"})]
    with pytest.raises(StompError, match="not a valid escape"):
        parse(b"SEND\na:\\t\n\n\0", parser=parser)


def test_frame_limit_can_be_raised_between_frames() -> None:
    parser = make_parser(10)
    large = b"B\n\n" + b"x" * 50 + b"\0"
    parser.feed(b"A\n\n\0" + large)
    assert parser.next_frame() == Frame("A", {})
    parser.max_frame = 100
    assert parser.next_frame() == Frame("B", {}, b"x" * 50)


def test_frame_limit_below_the_header_limit_bounds_the_head() -> None:
    assert parse(b"A\nb:345678\n\n\0", parser=make_parser(12)) == [Frame("A", {"b": "345678"})]
    for wire in (b"A\nb:3456789\n\n\0", b"A\nb:345678901234"):
        with pytest.raises(StompError, match="No more than 10 bytes of headers"):
            parse(wire, parser=make_parser(10))


def test_blank_line_counts_towards_the_frame_limit() -> None:
    with pytest.raises(StompError, match="at most 10 bytes"):
        parse(b"A\nb:345678\n\n", parser=make_parser(10))


def test_body_is_bytes_however_it_came() -> None:
    for pieces in ((b"A\n\nbody\0",), (b"A\n\nbo", b"dy\0")):
        (frame,) = parse(*pieces)
        assert type(frame.body) is bytes


def test_fed_bytes_are_not_changed() -> None:
    data = b"A\n\n\0B\n\n"
    assert parse(data, b"x\0") == [Frame("A", {}), Frame("B", {}, b"x")]
    assert data == b"A\n\n\0B\n\n"


LARGE = 1_000_000


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (b"SEND\ncontent-length:%d\n\n" % LARGE, b"\0"),
        (b"SEND\n\n", b"\0"),
        (b"SEND\na:", b"\n\n\0"),
    ],
    ids=["content-length", "body", "head"],
)
def test_small_pieces_of_a_large_frame(head: bytes, tail: bytes) -> None:
    """A piece costs as much at the frame's end as at its beginning: what came before is left alone."""
    parser = FrameParser(2 * LARGE, 100, 2 * LARGE)
    assert parse(head, parser=parser) == []
    costs = []
    for _ in range(4):
        started = time.process_time()
        assert parse(*[b"x" * 10] * (LARGE // 40), parser=parser) == []
        costs.append(time.process_time() - started)
    assert len(parse(tail, parser=parser)) == 1
    assert costs[-1] < 3 * costs[0]


@pytest.mark.parametrize("wire", [b"\r\n" * 500_000, b"BEGIN\n\n\0" * 25_000, b"BEGIN\n\r\n\0" * 25_000])
def test_many_small_things_in_one_piece(wire: bytes) -> None:
    """Each is searched for its own end only, not for line ends of another kind in all that follows."""
    parser = FrameParser(LARGE, 100, LARGE)
    started = time.process_time()
    parse(wire, parser=parser)
    assert time.process_time() - started < 2
    assert parser.buffered == 0
