"""Incremental parser (STOMP 1.2, section "Augmented BNF"): bytes in any pieces in, whole frames out."""

from __future__ import annotations

import re

from .errors import StompError, frame_too_large, limit, malformed
from .frames import Frame, Version, unescape

_NUL = 0
_CR = 13
_UNESCAPED_COMMANDS = ("CONNECT", "STOMP")
# int() refuses thousands of digits with an error of its own.
_MAX_LENGTH_DIGITS = 18
_LONGEST_BLANK_LINE = len("\n\r\n")
_BARE_CR = "CR must be followed by LF."
_NO_BLANK_LINE = "The frame ends before its blank line."

# One pass that stops at the first blank line of either kind: two searches, one for each, would make a stream of small
# frames of one kind cost the square of its length.
_find_blank_line = re.compile(rb"\n\r?\n").search
_skip_between_frames = re.compile(rb"(?:[\n\0]+|\r\n)*+").match


class FrameParser:
    """Cuts a byte stream into frames.

    ``max_frame`` bounds a frame, from its command to the end of its body, in bytes; ``max_header_bytes`` its command
    and header lines together; ``max_headers`` the number of header lines. What exceeds a bound is refused before its
    end arrives. ``max_frame`` and ``version`` may be set between frames.

    The first error is final: every later call of :meth:`next_frame` raises it again.
    """

    __slots__ = (
        "_begin",
        "_buffer",
        "_failed",
        "_frame",
        "_length",
        "_scan",
        "_start",
        "max_frame",
        "max_header_bytes",
        "max_headers",
        "version",
    )

    def __init__(self, max_frame: int, max_headers: int, max_header_bytes: int) -> None:
        self.max_frame = max_frame
        self.max_headers = max_headers
        self.max_header_bytes = max_header_bytes
        self.version = Version.V12
        # What one read brought, as it came. Only where a frame spans reads is it copied, into a bytearray, which grows
        # at its end and is cut at its front without moving the rest.
        self._buffer: bytes | bytearray = b""
        self._start = 0  # where the frame being read starts
        self._scan = 0  # how far it was searched already
        self._frame: Frame | None = None  # the frame whose head was read, while its body was not
        self._begin = 0  # where its body begins
        self._length = -1  # its content-length; -1 where the body ends at the first NUL
        self._failed: StompError | None = None

    @property
    def buffered(self) -> int:
        """The number of bytes that wait for the rest of their frame, or to be asked for."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Adds what was received. After an error it is dropped."""
        if self._failed is not None:
            return
        start = self._start
        buffer = self._buffer
        if start == len(buffer):
            self._buffer = data
            self._start = self._scan = 0
            return
        if isinstance(buffer, bytearray):
            del buffer[:start]
        else:
            self._buffer = buffer = bytearray(buffer[start:])
        buffer += data
        self._start = 0
        self._scan -= start
        self._begin -= start

    def next_frame(self) -> Frame | None:
        """The next whole frame, or ``None`` when more bytes are needed for it.

        Raises a fatal :class:`~stompbridge.stomp.errors.StompError` on bytes that are no frame or exceed a bound.
        """
        try:
            if self._frame is None:
                return self._read_frame()
            return self._read_body(self._frame, self._begin, self._length)
        except StompError as error:
            self._failed = error
            self.clear()
            raise

    def clear(self) -> None:
        """Drops what waits for the rest of its frame, or to be asked for."""
        self._buffer = b""
        self._start = self._scan = 0
        self._frame = None

    def _read_frame(self) -> Frame | None:
        buffer = self._buffer
        start = self._start
        if start == len(buffer):
            if self._failed is not None:
                raise self._failed.with_traceback(None)
            return None
        if buffer[start] <= _CR:
            start = self._skip(start)
            if start == len(buffer):
                return None
        max_bytes = self.max_header_bytes
        if max_bytes > self.max_frame:
            max_bytes = self.max_frame
        blank_line = _find_blank_line(buffer, self._scan, start + max_bytes + _LONGEST_BLANK_LINE)
        if blank_line is None:
            self._wait_for_blank_line(start, max_bytes)
            return None
        end, begin = blank_line.span()
        head = buffer[start:end]
        if _NUL in head:
            raise malformed(_NO_BLANK_LINE)
        if end - start > max_bytes:
            raise limit("bytes of headers", max_bytes, fatal=True)
        frame = self._parse_head(head)
        text = frame.headers.get("content-length")
        if text is None:
            self._scan = begin
            return self._read_body(frame, begin, -1)
        if len(text) > _MAX_LENGTH_DIGITS or not (text.isdigit() and text.isascii()):
            raise malformed("'content-length' must be a number of bytes.")
        length = int(text)
        if begin - start + length > self.max_frame:
            raise frame_too_large(self.max_frame)
        return self._read_body(frame, begin, length)

    def _skip(self, start: int) -> int:
        """Passes over what may stand between frames; returns where the next frame starts, if there is more to see."""
        buffer = self._buffer
        skipped = _skip_between_frames(buffer, start)
        assert skipped is not None
        start = self._start = self._scan = skipped.end()
        if start < len(buffer) and buffer[start] == _CR:
            start += 1
            if start < len(buffer):
                raise malformed(_BARE_CR)
        return start

    def _wait_for_blank_line(self, start: int, max_bytes: int) -> None:
        buffer = self._buffer
        if buffer.find(b"\0", self._scan, start + max_bytes + _LONGEST_BLANK_LINE) >= 0:
            raise malformed(_NO_BLANK_LINE)
        if len(buffer) - start >= max_bytes + _LONGEST_BLANK_LINE:
            raise limit("bytes of headers", max_bytes, fatal=True)
        self._scan = max(start, len(buffer) + 1 - _LONGEST_BLANK_LINE)

    def _parse_head(self, head: bytes | bytearray) -> Frame:
        try:
            text = head.decode()
        except UnicodeDecodeError:
            raise malformed("Headers must be UTF-8.") from None
        if "\r" in text:
            text = text.removesuffix("\r").replace("\r\n", "\n")
            if "\r" in text:
                raise malformed(_BARE_CR)
        lines = text.split("\n")
        command = lines.pop(0)
        if len(lines) > self.max_headers:
            raise limit("headers", self.max_headers, fatal=True)
        version = self.version
        encoded = version is Version.V10 or ("\\" in text and command not in _UNESCAPED_COMMANDS)
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise malformed("A header line must have a colon.")
            if encoded:
                name = unescape(name, version)
                value = unescape(value.lstrip(" ") if version is Version.V10 else value, version)
            if name not in headers:
                headers[name] = value
        if "" in headers:
            raise malformed("A header must have a name.")
        return Frame(command, headers)

    def _read_body(self, frame: Frame, begin: int, length: int) -> Frame | None:
        buffer = self._buffer
        if length >= 0:
            end = begin + length
            whole = end < len(buffer)
            if whole and buffer[end] != _NUL:
                raise malformed("The body must end with NUL after 'content-length' bytes.")
        else:
            search_end = self._start + self.max_frame + 1
            end = buffer.find(b"\0", self._scan, search_end)
            whole = end >= 0
            if not whole and len(buffer) >= search_end:
                raise frame_too_large(self.max_frame)
            self._scan = len(buffer)
        if not whole:
            self._frame = frame
            self._begin = begin
            self._length = length
            return None
        body = buffer[begin:end]
        frame.body = body if isinstance(body, bytes) else bytes(body)
        self._frame = None
        self._start = self._scan = end + 1
        return frame
