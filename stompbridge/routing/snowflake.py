"""Numbers that rise with time and differ from node to node."""

from __future__ import annotations

import time
from collections.abc import Callable

_WORKER_BITS = 10
_SEQUENCE_BITS = 12
_LAST_SEQUENCE = (1 << _SEQUENCE_BITS) - 1


class Snowflake:
    """Makes 64-bit identifiers: 41 bits of milliseconds since ``epoch`` (milliseconds since 1970), 10 of ``worker``,
    12 of a sequence within the millisecond.

    They rise strictly while the process lives, even when ``clock`` (seconds since 1970) steps back: they go on in
    the last millisecond then, and borrow the next one when its sequence is used up. JavaScript rounds them, since
    they are above 2^53.
    """

    __slots__ = ("_clock", "_epoch", "_last", "_sequence", "_worker")

    def __init__(self, worker: int, epoch: int, clock: Callable[[], float] = time.time) -> None:
        self._worker = worker << _SEQUENCE_BITS
        self._epoch = epoch
        self._clock = clock
        self._last = -1
        self._sequence = 0

    def next(self) -> int:
        """The next identifier."""
        now = max(int(self._clock() * 1000) - self._epoch, 0)
        if now > self._last:
            self._last = now
            self._sequence = 0
        elif self._sequence < _LAST_SEQUENCE:
            self._sequence += 1
        else:
            self._last += 1
            self._sequence = 0
        return self._last << (_WORKER_BITS + _SEQUENCE_BITS) | self._worker | self._sequence
