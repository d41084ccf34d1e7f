from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.brokers.topics import TopicTrie, has_wildcards, words_of


class Value:
    def __init__(self) -> None:
        self.pattern = ""


def trie_of(*patterns: str) -> TopicTrie[Value]:
    trie = TopicTrie(Value)
    for pattern in patterns:
        trie.node(pattern).pattern = pattern
    return trie


def matches(trie: TopicTrie[Value], key: str) -> list[str]:
    return sorted(value.pattern for value in trie.match(key))


def model(pattern: str, key: str) -> bool:
    """The definition of a match, word by word."""
    left, right = tuple(words_of(pattern)), tuple(words_of(key))

    @cache
    def rest(i: int, j: int) -> bool:
        if i == len(left):
            return j == len(right)
        if left[i] == "#":
            return rest(i + 1, j) or (j < len(right) and rest(i, j + 1))
        return j < len(right) and left[i] in ("*", right[j]) and rest(i + 1, j + 1)

    return rest(0, 0)


CASES = [
    ("a.b", "a.b", True),
    ("a.b", "a.c", False),
    ("a.b", "a", False),
    ("", "", True),
    ("", "a", False),
    ("#", "", True),
    ("#", "a", True),
    ("#", "a.b.c", True),
    ("*", "", False),
    ("*", "a", True),
    ("*", "a.b", False),
    ("*.*", ".", True),
    ("a.*", "a", False),
    ("a.*", "a.b", True),
    ("a.*", "a.", True),
    ("a.*.b", "a..b", True),
    ("a.#", "a", True),
    ("a.#", "a.b.c", True),
    ("a.#", "ab", False),
    ("#.b", "b", True),
    ("#.b", "a.a.b", True),
    ("#.b", "b.a", False),
    ("a.#.b", "a.b", True),
    ("a.#.b", "a.x.y.b", True),
    ("a.#.b", "a.x.y.b.c", False),
    ("#.#", "", True),
    ("#.#.#", "a", True),
    ("a.#.#.b", "a.b", True),
    ("#.*", "", False),
    ("#.*", "a.b", True),
    ("*.#", "a", True),
    ("*.#.*", "a", False),
    ("*.#.*", "a.b", True),
    ("a*", "ab", False),
    ("a*", "a*", True),
    ("a.#b", "a.#b", True),
    ("*", "#", True),
    ("a.*", "a.*", True),
]


@pytest.mark.parametrize(("pattern", "key", "expected"), CASES)
def test_match(pattern: str, key: str, expected: bool) -> None:
    assert matches(trie_of(pattern), key) == ([pattern] if expected else [])
    assert model(pattern, key) is expected


def test_all_patterns_that_match_come_once() -> None:
    patterns = ["room.7", "room.*", "room.#", "#", "#.#", "*.7", "#.7", "room.8", "*.*.*"]
    assert matches(trie_of(*patterns), "room.7") == sorted(patterns[:7])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("", False), ("a.b", False), ("a*.b#", False), ("*", True), ("#", True), ("a.*", True), ("a.#.b", True)],
)
def test_has_wildcards(pattern: str, expected: bool) -> None:
    assert has_wildcards(pattern) is expected


def test_node_makes_a_value_once() -> None:
    trie = TopicTrie(Value)
    for pattern in ("a", "a.*", "#.#"):
        assert trie.node(pattern) is trie.node(pattern)
        assert trie.get(pattern) is trie.node(pattern)
    assert len(trie) == 3


def test_equal_meaning_is_kept_apart_by_text() -> None:
    trie = trie_of("#", "#.#", "a.#.#", "a.#")
    assert len(trie) == 4
    assert matches(trie, "a") == ["#", "#.#", "a.#", "a.#.#"]
    assert trie.remove("#") is not None
    assert trie.get("#") is None
    assert matches(trie, "a") == ["#.#", "a.#", "a.#.#"]
    assert trie.remove("a.#.#") is not None
    assert matches(trie, "a") == ["#.#", "a.#"]


@pytest.mark.parametrize("pattern", ["a", "a.*", "b.#", "x.*.y", "#", "#.#"])
def test_unknown_patterns(pattern: str) -> None:
    trie = trie_of("a.b", "a.*.c", "b.#.#.#")
    assert trie.get(pattern) is None
    assert trie.remove(pattern) is None
    assert len(trie) == 3


def test_removed_patterns_leave_nothing_behind() -> None:
    patterns = ["a.b", "a.*", "a.*.b.#.c", "a.*.b", "#.#.x", "#"]
    trie = trie_of(*patterns)
    for pattern in patterns:
        value = trie.remove(pattern)
        assert value is not None
        assert value.pattern == pattern
        assert trie.remove(pattern) is None
    assert len(trie) == 0
    assert trie._root.empty
    assert trie.match("a.b") == []


def test_work_is_bounded_for_hostile_patterns() -> None:
    hostile = ".".join(["#", "*"] * 60)
    trie = trie_of(hostile, ".".join(["#"] * 100), ".".join(["#", "a"] * 60) + ".b")
    key = ".".join(["a"] * 128)
    assert matches(trie, key) == sorted([hostile, ".".join(["#"] * 100)])
    nodes = 2 * 120 + 2
    assert trie.visited <= (128 + 1) * nodes


WORD = st.sampled_from(["a", "b", "", "*", "#", "a*"])
PATTERN = st.lists(WORD, max_size=6).map(".".join)
KEY = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=6).map(".".join)


@given(st.lists(PATTERN, max_size=8), KEY, st.lists(st.integers(0, 7), max_size=4))
def test_equals_the_definition(patterns: list[str], key: str, drops: list[int]) -> None:
    trie = trie_of(*patterns)
    kept = set(patterns)
    for index in drops:
        if index < len(patterns):
            trie.remove(patterns[index])
            kept.discard(patterns[index])
    assert len(trie) == len(kept)
    assert matches(trie, key) == sorted(pattern for pattern in kept if model(pattern, key))


def test_items() -> None:
    trie: TopicTrie[list[str]] = TopicTrie(list)
    assert trie.items() == []
    patterns = ["a.b", "", "a.*", "a.#", "#", "#.#", "*.b.#.c", "a.b.*"]
    for pattern in patterns:
        trie.node(pattern).append(pattern)
    assert sorted(trie.items()) == sorted((pattern, [pattern]) for pattern in patterns)
    for pattern in patterns[2:]:
        trie.remove(pattern)
    assert trie.items() == [("a.b", ["a.b"]), ("", [""])]
