from __future__ import annotations

from stompbridge.admin.lag import LoopLag


def test_nothing_is_known_before_the_second_tick() -> None:
    lag = LoopLag(0.5)
    assert (lag.lag, lag.worst()) == (0.0, 0.0)
    lag.tick(100.0)
    assert (lag.lag, lag.worst(), lag.histogram.count) == (0.0, 0.0, 0)


def test_the_lag_is_how_late_the_timer_comes() -> None:
    lag = LoopLag(0.5)
    for now in (100.0, 100.5, 101.25, 101.7):
        lag.tick(now)
    assert lag.lag == 0.0
    assert lag.worst() == 0.25
    assert (lag.histogram.count, lag.histogram.sum) == (3, 0.25)


def test_the_worst_is_of_the_last_seconds() -> None:
    lag = LoopLag(0.5)
    now = 100.0
    lag.tick(now)
    for late in (2.0, 0.0, 1.0, *[0.0] * 8):
        now += 0.5 + late
        lag.tick(now)
    assert lag.worst() == 2.0
    assert lag.worst(5.0) == 1.0
    assert lag.worst(1.0) == 0.0
    for _ in range(20):
        now += 0.5
        lag.tick(now)
    assert lag.worst() == 0.0
    assert lag.histogram.sum == 3.0
