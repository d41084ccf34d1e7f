from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from stompbridge.routing import deflate
from stompbridge.routing.deflate import WINDOW_BITS, Deflater

LONG = b'{"text":"hello, hello"}' * 20


def inflate(payload: bytes, bits: int = WINDOW_BITS) -> bytes:
    """As a receiver does it (RFC 7692 section 7.2.2)."""
    inflater = zlib.decompressobj(-bits)
    return inflater.decompress(payload + b"\x00\x00\xff\xff") + inflater.flush()


def test_head_and_tail() -> None:
    payload = Deflater().payload(b"MESSAGE\nsubscription:1\n", LONG)
    assert inflate(payload) == b"MESSAGE\nsubscription:1\n" + LONG
    assert len(payload) < len(LONG) // 2


def test_a_tail_is_compressed_once() -> None:
    deflater = Deflater()
    first, second = deflater.payload(b"head 1\n", LONG), deflater.payload(b"head 2\n", LONG)
    assert first[5 + 7 :] == second[5 + 7 :]
    deflated = deflater._deflated
    deflater.payload(b"head 3\n", LONG)
    assert deflater._deflated is deflated
    # The same bytes, but another message.
    deflater.payload(b"head 4\n", bytes(bytearray(LONG)))
    assert deflater._deflated is not deflated


def test_where_it_saves_nothing() -> None:
    deflater = Deflater()
    assert deflater.payload(b"head", b"x" * 255) == b""
    noise = zlib.compress(bytes(i * i % 251 for i in range(5000)), 9)[:300]
    assert deflater.payload(b"head", noise) == b""
    assert deflater.payload(b"head", noise) == b""
    assert deflater.payload(b"head", b"x" * 256) != b""


def test_the_longest_head() -> None:
    deflater = Deflater()
    assert inflate(deflater.payload(b"h" * 65535, LONG)) == b"h" * 65535 + LONG
    assert deflater.payload(b"h" * 65536, LONG) == b""


@given(st.lists(st.tuples(st.binary(max_size=80), st.binary(max_size=3000).map(lambda data: data * 3)), max_size=5))
def test_what_comes_out_is_what_went_in(messages: list[tuple[bytes, bytes]]) -> None:
    deflater = Deflater()
    for head, tail in messages:
        for _ in range(2):
            payload = deflater.payload(head, tail)
            assert not payload or inflate(payload) == head + tail
            assert not payload or len(payload) < len(head) + len(tail)


def test_the_window_is_the_one_agreed_on() -> None:
    far = bytes(range(256)) * 40
    assert inflate(Deflater().payload(b"", far), deflate.WINDOW_BITS) == far
