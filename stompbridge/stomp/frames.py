"""Frames as values, and how they are written (STOMP 1.2, sections "STOMP Frames" and "Value Encoding")."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from .errors import malformed

HEARTBEAT = b"\n"
"""What is sent when there is nothing else to send."""


class Version(StrEnum):
    """The protocol versions that are spoken."""

    V10 = "1.0"
    V11 = "1.1"
    V12 = "1.2"


@dataclass(slots=True)
class Frame:
    """One frame. Of repeated headers the first is kept, as the specification has it."""

    command: str
    headers: dict[str, str]
    body: bytes = b""


_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPED = {"r": "\r", "n": "\n", "c": ":", "\\": "\\"}


def escape(text: str) -> str:
    r"""Makes a header name or value safe to write: ``\``, CR, LF and ``:`` become escapes.

    NUL has no escape and ends a frame for some clients, so it is left out.
    """
    if "\\" in text or "\n" in text or ":" in text or "\r" in text or "\0" in text:
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c").replace("\r", "\\r")
        text = text.replace("\0", "")
    return text


def unescape(text: str, version: Version) -> str:
    """Undoes :func:`escape`.

    Raises a fatal :class:`~stompbridge.stomp.errors.StompError` on an undefined escape, except in 1.0, which has no
    escapes: there the defined ones are decoded and all else is left as it is.
    """

    def decode(match: re.Match[str]) -> str:
        decoded = _ESCAPED.get(match[1])
        if decoded is not None:
            return decoded
        if version is Version.V10:
            return match[0]
        raise malformed(f"'{match[0]}' is not a valid escape sequence.")

    return _ESCAPE.sub(decode, text)


def encode(command: str, headers: Iterable[tuple[str, str]], body: bytes = b"", *, escaped: bool = True) -> bytes:
    """The bytes of a frame, with its NUL and a final LF.

    ``escaped`` is false for CONNECTED, whose headers are written as they are, for the sake of 1.0 clients.
    A body that may contain NUL needs a ``content-length`` among the ``headers``.
    """
    if escaped:
        lines = [f"{escape(name)}:{escape(value)}\n" for name, value in headers]
    else:
        lines = [f"{name}:{value}\n" for name, value in headers]
    return b"%b\n%b\n%b\0\n" % (command.encode(), "".join(lines).encode(), body)
