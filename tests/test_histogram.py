from __future__ import annotations

from math import inf

import pytest

from stompbridge.histogram import BOUNDS, Histogram, Latency


def made(*seconds: float) -> Histogram:
    histogram = Histogram((1.0, 2.0, 4.0))
    for value in seconds:
        histogram.observe(value)
    return histogram


def test_what_is_observed_is_counted_up_to_each_bound() -> None:
    histogram = made(0.0, 1.0, 1.5, 4.0, 100.0)
    assert list(histogram.cumulative()) == [(1.0, 2), (2.0, 3), (4.0, 4), (inf, 5)]
    assert (histogram.count, histogram.sum) == (5, 106.5)


def test_one_duration_many_times() -> None:
    histogram = made()
    histogram.observe(1.5, 10)
    histogram.observe(3.0, 0)
    assert list(histogram.cumulative()) == [(1.0, 0), (2.0, 10), (4.0, 10), (inf, 10)]
    assert (histogram.count, histogram.sum) == (10, 15.0)


@pytest.mark.parametrize(
    ("q", "seconds"),
    [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.625, 1.5), (0.75, 2.0), (0.9, 3.2), (1.0, 4.0)],
)
def test_quantiles_lie_evenly_within_a_bucket(q: float, seconds: float) -> None:
    assert made(0.1, 0.2, 0.3, 0.4, 1.5, 1.6, 3.0, 3.9).quantile(q) == pytest.approx(seconds)


def test_quantiles_skip_empty_buckets_and_end_at_the_last_bound() -> None:
    assert made(3.0).quantile(0.0) == 2.0
    assert made(3.0).quantile(0.5) == 3.0
    assert made(100.0, 200.0).quantile(0.5) == 4.0
    assert made(0.5, 100.0).quantile(0.99) == 4.0


def test_without_observations_there_is_no_quantile() -> None:
    histogram = made()
    assert histogram.quantile(0.5) is None
    assert list(histogram.cumulative()) == [(1.0, 0), (2.0, 0), (4.0, 0), (inf, 0)]


def test_latencies_are_told_apart_and_their_bounds_rise() -> None:
    latency = Latency()
    latency.publish.observe(0.003)
    assert (latency.publish.count, latency.delivery.count) == (1, 0)
    assert list(BOUNDS) == sorted(set(BOUNDS))
