"""How late the event loop is: whatever keeps it busy keeps every client waiting."""

from __future__ import annotations

from collections import deque
from math import ceil

from stompbridge.histogram import Histogram

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets, in seconds."""
KEPT = 10.0
"""Seconds for which single figures are kept."""


class LoopLag:
    """Measures by how much a timer that is set anew every ``interval`` seconds comes late. ``tick`` is called by it."""

    __slots__ = ("_due", "_interval", "_recent", "histogram", "lag")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due: float | None = None
        self._recent: deque[tuple[float, float]] = deque(maxlen=ceil(KEPT / interval))
        self.lag = 0.0
        """Seconds, the last time."""
        self.histogram = Histogram(BOUNDS)
        """All since the start."""

    def tick(self, now: float) -> None:
        """The timer came. ``now`` is ``loop.time()``."""
        if self._due is not None:
            self.lag = max(0.0, now - self._due)
            self._recent.append((now, self.lag))
            self.histogram.observe(self.lag)
        self._due = now + self._interval

    def worst(self, seconds: float = KEPT) -> float:
        """The most in the last ``seconds``, at most :data:`KEPT`, before the last tick."""
        if not self._recent:
            return 0.0
        since = self._recent[-1][0] - seconds
        return max(lag for at, lag in self._recent if at >= since)
