from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.dedup.window import RecentIds, SenderWindows, SequenceWindow, Verdict

NEW, DUPLICATE, TOO_OLD = Verdict


def seen(*numbers: int, size: int = 64) -> SequenceWindow:
    window = SequenceWindow(size)
    for number in numbers:
        window.record(number)
    return window


@pytest.mark.parametrize("first", [0, 1, 63, 64, 5000, 2**63 - 1, 2**70, -1, -5000])
def test_the_first_number_may_be_any(first: int) -> None:
    window = SequenceWindow(64)
    assert window.check(first) is NEW
    window.record(first)
    assert window.highest == first
    assert window.check(first) is DUPLICATE
    assert window.check(first + 1) is NEW
    assert window.check(first - 63) is NEW
    assert window.check(first - 64) is TOO_OLD


@pytest.mark.parametrize(
    ("numbers", "number", "verdict"),
    [
        ((5,), 5, DUPLICATE),
        ((5,), 6, NEW),
        ((5,), 4, NEW),
        ((5, 4), 4, DUPLICATE),
        ((5, 4), 5, DUPLICATE),
        ((0, 1, 2, 4), 3, NEW),
        ((100, 163), 100, DUPLICATE),
        ((100, 163), 99, TOO_OLD),
        ((100, 164), 100, TOO_OLD),
        ((100, 164), 101, NEW),
        ((100, 2**60), 100, TOO_OLD),
        ((100, 2**60), 2**60 - 1, NEW),
        ((100, 100), 100, DUPLICATE),
        ((200, 5), 5, TOO_OLD),
        ((200, 5), 200, DUPLICATE),
    ],
)
def test_verdicts(numbers: tuple[int, ...], number: int, verdict: Verdict) -> None:
    assert seen(*numbers).check(number) is verdict


def test_a_check_changes_nothing() -> None:
    window = seen(5)
    window.check(1000)
    assert window.highest == 5
    assert window.check(1000) is NEW
    assert window.check(4) is NEW


def test_memory_is_bounded() -> None:
    window = seen(*range(500), 2**40, size=128)
    assert window._seen.bit_length() <= 128


@given(st.lists(st.integers(0, 40) | st.integers(0, 2**64), max_size=60), st.sampled_from([1, 2, 8, 16]))
def test_equals_a_set_of_all_numbers(numbers: list[int], size: int) -> None:
    window = SequenceWindow(size)
    recorded: set[int] = set()
    for number in numbers:
        expected = DUPLICATE if number in recorded else NEW
        if recorded and number <= max(recorded) - size:
            expected = TOO_OLD
        assert window.check(number) is expected
        window.record(number)
        if expected is NEW:
            recorded.add(number)


def test_senders_are_apart() -> None:
    windows = SenderWindows(64, 60)
    assert windows.check("a", 1) is NEW
    assert len(windows) == 0
    assert windows.check_and_record("a", 1, 0) is NEW
    assert windows.check_and_record("b", 1, 0) is NEW
    assert windows.check_and_record("a", 1, 0) is DUPLICATE
    assert windows.check("a", 1) is DUPLICATE
    assert len(windows) == 2


def test_record() -> None:
    windows = SenderWindows(64, 60)
    windows.record("a", 100, 0)
    windows.record("a", 99, 0)
    assert windows.check_and_record("a", 99, 0) is DUPLICATE
    assert windows.check_and_record("a", 100, 0) is DUPLICATE
    assert windows.check_and_record("a", 36, 0) is TOO_OLD


def test_idle_senders_are_forgotten() -> None:
    windows = SenderWindows(64, ttl=60)
    windows.record("a", 1, 0)
    windows.record("b", 1, 0)
    windows.check_and_record("c", 1, 10)
    windows.check_and_record("b", 1, 30)
    assert windows.sweep(60) == 0
    assert windows.sweep(61) == 1
    assert windows.check("a", 1) is NEW
    assert windows.check("b", 1) is DUPLICATE
    assert windows.sweep(1000) == 2
    assert len(windows) == 0


def test_recent_ids() -> None:
    ids = RecentIds(2, ttl=60)
    ids.record("a", 0)
    ids.record("b", 1)
    ids.record("a", 2)
    ids.record("c", 3)
    assert ("a" in ids, "b" in ids, "c" in ids) == (True, False, True)
    ids.sweep(62)
    assert len(ids) == 2
    ids.sweep(63)
    assert len(ids) == 1
    ids.sweep(1000)
    assert "c" not in ids
