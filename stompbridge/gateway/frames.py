"""WebSocket frames of the server (RFC 6455 section 5.2)."""

from __future__ import annotations

import struct

PING = b"\x89\x00"

_medium_head = struct.Struct("!BBH").pack
_long_head = struct.Struct("!BBQ").pack


def is_utf8(data: bytes) -> bool:
    """Whether ``data`` may go into a text message."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def ws_frame(payload: bytes, binary: bool, compressed: bool = False) -> bytes:
    """One whole message, for any number of receivers. ``compressed``: the payload is DEFLATE (RFC 7692 section 6)."""
    head = 0x82 if binary else 0x81
    if compressed:
        head |= 0x40
    length = len(payload)
    if length < 126:
        return bytes((head, length)) + payload
    if length < 65536:
        return _medium_head(head, 126, length) + payload
    return _long_head(head, 127, length) + payload
