from __future__ import annotations

import random
from collections import Counter

from stompbridge.routing.busiest import KEPT, LIMIT, LONGEST, Busiest


def test_counts_are_exact_for_few() -> None:
    busiest = Busiest()
    for number in range(LIMIT):
        for _ in range(number % 3 + 1):
            busiest.add(str(number))
    assert busiest.counts() == {str(number): number % 3 + 1 for number in range(LIMIT)}


def test_memory_is_bounded_and_what_is_frequent_stays() -> None:
    chance = random.Random(5)
    busiest, real = Busiest(), Counter[str]()
    for number in range(50_000):
        text = f"busy {chance.randrange(20)}" if number % 2 else f"rare {number}"
        busiest.add(text)
        real[text] += 1
        assert len(busiest.counts()) <= LIMIT
    counts = busiest.counts()
    assert all(count <= real[text] for text, count in counts.items())
    assert {text for text, _ in Counter(counts).most_common(20)} == {f"busy {number}" for number in range(20)}
    # Misra and Gries' bound: each time something is forgotten, as much goes of each of the KEPT.
    assert all(counts[text] >= real[text] - sum(real.values()) / KEPT for text in counts)


def test_what_was_busy_gives_way() -> None:
    busiest = Busiest()
    for number in range(KEPT):
        for _ in range(20):
            busiest.add(f"old {number}")
    for step in range(100):
        for number in range(LIMIT):
            busiest.add(f"new {number % 20}")
            busiest.add(f"rare {step} {number}")
    counts = busiest.counts()
    assert {text for text, _ in Counter(counts).most_common(20)} == {f"new {number}" for number in range(20)}
    assert not any(text.startswith("old") for text in counts)


def test_long_texts_are_not_kept() -> None:
    busiest = Busiest()
    busiest.add("x" * LONGEST)
    busiest.add("x" * (LONGEST + 1))
    assert [len(text) for text in busiest.counts()] == [LONGEST]
