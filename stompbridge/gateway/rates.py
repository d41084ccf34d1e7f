"""How fast one session may send: token buckets for messages and bytes."""

from __future__ import annotations

import math

from stompbridge.config import Limits


class Rates:
    """The pace of one session. Each bucket holds a second's worth, so that a burst of that size costs nothing.

    A session that is over its pace is not read until the buckets are level again; one that never lets them fill is told
    apart by :meth:`exhausted`.
    """

    __slots__ = ("_byte_rate", "_bytes", "_message_rate", "_messages", "_over_since", "_patience", "_updated")

    def __init__(self, limits: Limits, now: float) -> None:
        self._message_rate = self._messages = limits.message_rate or math.inf
        self._byte_rate = self._bytes = limits.byte_rate or math.inf
        self._patience = limits.rate_patience
        self._updated = now
        self._over_since: float | None = None

    def spend(self, size: int, now: float) -> bool:
        """Counts a message of ``size`` bytes. True when the session has to pause."""
        self._fill(now)
        self._messages -= 1
        self._bytes -= size
        if self._messages >= 0 and self._bytes >= 0:
            return False
        if self._over_since is None:
            self._over_since = now
        return True

    def level(self, now: float) -> bool:
        """Whether the session may go on."""
        self._fill(now)
        return self._messages >= 0 and self._bytes >= 0

    def exhausted(self, now: float) -> bool:
        """Whether the session has been over its pace for ``limits.rate_patience`` without a second's rest."""
        return self._over_since is not None and now - self._over_since >= self._patience

    def _fill(self, now: float) -> None:
        elapsed, self._updated = now - self._updated, now
        if elapsed:  # nothing times infinity is not a number
            self._messages = min(self._messages + elapsed * self._message_rate, self._message_rate)
            self._bytes = min(self._bytes + elapsed * self._byte_rate, self._byte_rate)
        if self._messages >= self._message_rate and self._bytes >= self._byte_rate:
            self._over_since = None


def rates(limits: Limits, now: float) -> Rates | None:
    """The pace that the configuration asks for; ``None`` where it asks for none."""
    return Rates(limits, now) if limits.message_rate or limits.byte_rate else None
