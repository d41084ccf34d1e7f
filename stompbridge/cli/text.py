"""Values as people read them. What clients and brokers have named may hold anything: see :func:`shown`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

CELL = 48
"""Columns that a cell of a table takes at most."""
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def shown(text: str) -> str:
    """``text`` with everything that is not printable written as an escape: ``\\n``, ``\\x1b``, ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def width(text: str) -> int:
    """The columns of a terminal that ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def clip(text: str, columns: int) -> str:
    """``text``, or its beginning and an ellipsis where it takes more than so many columns."""
    if width(text) <= columns:
        return text
    taken, left = [], columns - 1
    for character in text:
        left -= _columns(character)
        if left < 0:
            break
        taken.append(character)
    return "".join(taken) + "…"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> list[str]:
    """Lines with aligned columns. The columns whose letter in ``right`` is ``>`` are aligned to the right."""
    cells = [list(head), *([clip(shown(cell), CELL) for cell in row] for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        padded = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - width(cell))
            padded.append(space + cell if right[column : column + 1] == ">" else cell + space)
        lines.append("  ".join(padded).rstrip())
    return lines


def fields(pairs: Mapping[str, str]) -> list[str]:
    """Lines of names and values, the values below each other."""
    longest = max(map(len, pairs), default=0)
    return [f"{name:<{longest}}  {shown(value)}".rstrip() for name, value in pairs.items()]


def size(count: float) -> str:
    """Bytes: ``0 B``, ``1.5 KiB``, ``12 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    place = -1
    while count >= 1023.5 and place + 1 < len(_UNITS):
        count /= 1024
        place += 1
    unit = _UNITS[place]
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"


def number(count: float) -> str:
    """A whole number: ``1,234,567``."""
    return f"{count:,.0f}"


def rate(per_second: float) -> str:
    """``0``, ``0.5``, ``120``, ``1,200``: events a second, without the unit."""
    return f"{per_second:.1f}" if 0 < per_second < 9.95 else number(per_second)


def duration(seconds: float) -> str:
    """A length of time in its two largest units: ``45 s``, ``3m 20s``, ``2h 5m``, ``3d 4h``."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes}m"
    return f"{hours // 24}d {hours % 24}h"


def latency(seconds: float) -> str:
    """A short length of time: ``0.25 ms``, ``12 ms``, ``1.5 s``."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.2f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
