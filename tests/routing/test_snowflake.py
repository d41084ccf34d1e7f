from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stompbridge.routing.snowflake import Snowflake

EPOCH = 1_288_834_974_657


class Clock:
    def __init__(self, milliseconds: int = 0) -> None:
        self.milliseconds = milliseconds

    def __call__(self) -> float:
        return (EPOCH + self.milliseconds) / 1000 + 0.0001


def parts(identifier: int) -> tuple[int, int, int]:
    return identifier >> 22, identifier >> 12 & 1023, identifier & 4095


def test_parts() -> None:
    snowflake = Snowflake(1023, EPOCH, Clock(5))
    assert [parts(snowflake.next()) for _ in range(3)] == [(5, 1023, 0), (5, 1023, 1), (5, 1023, 2)]


def test_a_new_millisecond_begins_a_new_sequence() -> None:
    clock = Clock(5)
    snowflake = Snowflake(1, EPOCH, clock)
    snowflake.next()
    clock.milliseconds = 7
    assert parts(snowflake.next()) == (7, 1, 0)


def test_a_full_sequence_borrows_the_next_millisecond() -> None:
    clock = Clock(5)
    snowflake = Snowflake(1, EPOCH, clock)
    identifiers = [snowflake.next() for _ in range(4097)]
    assert parts(identifiers[-2]) == (5, 1, 4095)
    assert parts(identifiers[-1]) == (6, 1, 0)
    clock.milliseconds = 6
    assert parts(snowflake.next()) == (6, 1, 1)


def test_a_clock_that_steps_back() -> None:
    clock = Clock(5)
    snowflake = Snowflake(1, EPOCH, clock)
    snowflake.next()
    clock.milliseconds = 2
    assert parts(snowflake.next()) == (5, 1, 1)


def test_a_clock_before_the_epoch() -> None:
    assert parts(Snowflake(1, EPOCH, Clock(-5000)).next()) == (0, 1, 0)


def test_the_systems_clock() -> None:
    assert 2**60 < Snowflake(1, EPOCH).next() < 2**63


@given(st.lists(st.tuples(st.integers(-10, 2**41 - 100), st.integers(1, 20)), min_size=1, max_size=20))
def test_they_rise_strictly(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    snowflake = Snowflake(512, EPOCH, clock)
    last = -1
    for milliseconds, count in steps:
        clock.milliseconds = milliseconds
        for _ in range(count):
            identifier = snowflake.next()
            assert last < identifier < 2**63
            last = identifier
