"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random

BACKOFF = 0.25
"""Seconds, doubled with each attempt, within which the next attempt comes at random."""
MIN_PAUSE = 0.05
STABLE = 10.0
"""Seconds that a link must stand for the back-off to begin anew."""


class Backoff:
    """Times are monotonic seconds; no pause is longer than ``longest``."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._attempt = 0
        self._up_since: float | None = None

    def up(self, now: float) -> None:
        """There is a link."""
        self._up_since = now

    def pause(self, now: float) -> float:
        """An attempt has failed, or the link has gone: seconds until the next attempt."""
        if self._up_since is not None and now - self._up_since > STABLE:
            self._attempt = 0
        self._up_since = None
        limit = min(self._longest, BACKOFF * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, 16)
        return max(MIN_PAUSE, random.uniform(0, limit))
