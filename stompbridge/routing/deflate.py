"""Compressed messages that many receivers share (permessage-deflate, RFC 7692).

Without context takeover a message is a DEFLATE stream of its own, and DEFLATE streams are made of blocks (RFC 1951
section 3.2). What differs between groups of receivers goes into a stored block; behind it stands what they share,
compressed once.
"""

from __future__ import annotations

import struct
import zlib

WINDOW_BITS = 12
"""The window that a receiver must have, as a power of two."""

_WORTHWHILE = 256
_LEVEL = 2
_MEMORY_LEVEL = 5
_STORED_MAX = 65535
# Not the last block, stored; the length and its complement.
_STORED_HEAD = struct.Struct("<BHH")


class Deflater:
    """Compresses messages, and remembers the last one."""

    __slots__ = ("_deflated", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._deflated = b""

    def payload(self, head: bytes, tail: bytes) -> bytes:
        """The payload of a compressed WebSocket message that reads ``head + tail``; empty where it would save nothing.

        ``tail`` is compressed once as long as it comes again and again, as the same object.
        """
        if len(tail) < _WORTHWHILE or len(head) > _STORED_MAX:
            return b""
        if tail is not self._tail:
            self._tail = tail
            self._deflated = _deflate(tail)
        if not self._deflated:
            return b""
        return _STORED_HEAD.pack(0, len(head), len(head) ^ 0xFFFF) + head + self._deflated


def _deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -WINDOW_BITS, _MEMORY_LEVEL)
    # The empty block at the end is left out in a message (RFC 7692 section 7.2.1).
    deflated = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    return deflated if len(deflated) + _STORED_HEAD.size < len(data) else b""
