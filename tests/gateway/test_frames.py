from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from stompbridge.gateway.frames import PING, is_utf8, ws_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize(("binary", "opcode"), [(False, Opcode.TEXT), (True, Opcode.BINARY)])
@pytest.mark.parametrize("compressed", [False, True])
def test_frames_as_websockets_makes_them(size: int, binary: bool, opcode: Opcode, compressed: bool) -> None:
    expected = bytearray(Frame(opcode, b"x" * size).serialize(mask=False))
    expected[0] |= 0x40 if compressed else 0
    assert ws_frame(b"x" * size, binary, compressed) == expected


def test_ping() -> None:
    assert Frame(Opcode.PING, b"").serialize(mask=False) == PING


@pytest.mark.parametrize(
    ("data", "expected"), [(b"", True), (b"abc", True), ("grüße".encode(), True), (b"\xff", False), (b"a\xc3", False)]
)
def test_utf8(data: bytes, expected: bool) -> None:
    assert is_utf8(data) is expected
