"""Distributions of durations: fixed buckets, plain integers, nothing but a search and three additions to observe."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from math import inf

BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper ends of the buckets, in seconds: from what a message takes on an idle machine to an outage's grace."""


class Histogram:
    """How often something took how long. ``bounds`` are the buckets' upper ends in seconds, which belong to them, in
    rising order; what took longer is counted beside them."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = BOUNDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """Seconds, of all observations."""

    def observe(self, seconds: float, times: int = 1) -> None:
        """Adds ``times`` observations of the same duration."""
        self._counts[bisect_left(self._bounds, seconds)] += times
        self.sum += seconds * times

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bucket's upper end, the last of which is infinite, and how many observations are not above it."""
        return zip((*self._bounds, inf), accumulate(self._counts), strict=True)

    def quantile(self, q: float) -> float | None:
        """An estimate of the duration that the part ``q`` (0 to 1) of the observations do not exceed, as Prometheus'
        ``histogram_quantile`` makes it: even distribution within a bucket, and never more than the last finite bound.
        ``None`` without observations."""
        rank = q * self.count
        below, lower = 0, 0.0
        for bound, count in zip(self._bounds, self._counts, strict=False):
            if count and below + count >= rank:
                return lower + (bound - lower) * max(0.0, rank - below) / count
            below += count
            lower = bound
        return lower if self.count else None


class Latency:
    """How long messages take through the process and the broker."""

    __slots__ = ("delivery", "publish")

    def __init__(self) -> None:
        self.publish = Histogram()
        """From a message's publish to the broker's confirm, with the time that it waited for the broker."""
        self.delivery = Histogram()
        """From the read of a batch of deliveries from the broker to the write to the last of its receivers' sockets,
        once for each message of the batch."""
