"""Escaping and encoding."""

from __future__ import annotations

import pytest

from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import HEARTBEAT, Frame, Version, encode, escape, unescape

ESCAPES = [
    ("plain", "plain"),
    ("", ""),
    ("a:b", r"a\cb"),
    ("a\nb", r"a\nb"),
    ("a\rb", r"a\rb"),
    ("a\\b", r"a\\b"),
    (r"\c", r"\\c"),
    ("\\\n:\r", r"\\\n\c\r"),
    ("é\N{GRINNING FACE}", "é\N{GRINNING FACE}"),
]


@pytest.mark.parametrize(("plain", "escaped"), ESCAPES)
def test_escape(plain: str, escaped: str) -> None:
    assert escape(plain) == escaped


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize(("plain", "escaped"), ESCAPES)
def test_unescape(plain: str, escaped: str, version: Version) -> None:
    assert unescape(escaped, version) == plain


def test_nul_is_left_out() -> None:
    assert escape("a\0b\0") == "ab"


@pytest.mark.parametrize("text", [r"\t", r"\:", "\\", "a\\", r"\\\t", "\\\n", r"\é"])
def test_undefined_escape(text: str) -> None:
    assert unescape(text, Version.V10) == text.replace(r"\\", "\\")
    for version in (Version.V11, Version.V12):
        with pytest.raises(StompError, match="not a valid escape") as caught:
            unescape(text, version)
        assert caught.value.fatal


def test_encode() -> None:
    headers = [("destination", "/queue/a:b"), ("x\ny", "c\\d")]
    assert encode("MESSAGE", headers, b"body\0") == b"MESSAGE\ndestination:/queue/a\\cb\nx\\ny:c\\\\d\n\nbody\0\0\n"


def test_encode_without_headers_and_body() -> None:
    assert encode("RECEIPT", []) == b"RECEIPT\n\n\0\n"


def test_encode_unescaped() -> None:
    assert encode("CONNECTED", [("server", "a:b")], escaped=False) == b"CONNECTED\nserver:a:b\n\n\0\n"


def test_encode_utf_8() -> None:
    assert encode("MESSAGE", [("é", "ü")]) == "MESSAGE\né:ü\n\n\0\n".encode()


def test_heartbeat() -> None:
    assert HEARTBEAT == b"\n"


def test_frame() -> None:
    assert Frame("ACK", {}) == Frame("ACK", {}, b"")
