"""Which rule decides, and whether rules allow all that a pattern matches: against plain definitions of both."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.auth.automaton import Automaton, normalized
from stompbridge.auth.patterns import Wild, Word, matches, topic_words
from stompbridge.brokers.topics import TopicTrie, words_of

ONE, MANY = Wild.ONE, Wild.MANY
LONGEST = 5
ALPHABET = ("a", "b", "")
KEYS = [words for length in range(LONGEST + 1) for words in product(ALPHABET, repeat=length)]
BUDGET = 5_000

tokens = st.sampled_from(["a", "b", "", ONE, MANY])
pattern_texts = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=4).map(".".join)
patterns = st.lists(tokens, max_size=4).map(tuple)
rules = st.lists(st.tuples(patterns, st.booleans()), max_size=5)
key_texts = st.lists(st.sampled_from(["a", "b", "c", "", "*", "#", "a*"]), max_size=6).map(".".join)

Rules = list[tuple[tuple[Word, ...], bool]]


def fits(pattern: tuple[Word, ...], words: tuple[str, ...]) -> bool:
    """The definition, word by word."""
    if not pattern:
        return not words
    if pattern[0] is MANY:
        return fits(pattern[1:], words) or (bool(words) and fits(pattern, words[1:]))
    return bool(words) and pattern[0] in (ONE, words[0]) and fits(pattern[1:], words[1:])


def first_of(rules: Rules, words: tuple[str, ...]) -> int | None:
    return next((index for index, (pattern, _) in enumerate(rules) if fits(pattern, words)), None)


def is_allowed(rules: Rules, words: tuple[str, ...]) -> bool:
    index = first_of(rules, words)
    return index is not None and rules[index][1]


def automaton_of(rules: Rules) -> Automaton:
    return Automaton([pattern for pattern, _ in rules], [allow for _, allow in rules])


def read(*texts: str) -> Rules:
    """``+a.#`` allows, ``-a.#`` denies."""
    return [(topic_words(text[1:]), text[0] == "+") for text in texts]


@given(rules, st.lists(st.sampled_from(["a", "b", "c", "", "*", "#"]), max_size=6).map(tuple))
def test_the_first_that_fits(rules: Rules, words: tuple[str, ...]) -> None:
    assert automaton_of(rules).first(words) == first_of(rules, words)
    for pattern, _ in rules:
        assert matches(pattern, words) == fits(pattern, words)


@given(st.lists(pattern_texts, max_size=5), key_texts)
def test_keys_match_as_in_a_topic_exchange(texts: list[str], key: str) -> None:
    trie: TopicTrie[list[int]] = TopicTrie(list)
    for index, text in enumerate(texts):
        trie.node(text).append(index)
    expected = min((index for node in trie.match(key) for index in node), default=None)
    automaton = Automaton([topic_words(text) for text in texts], [True] * len(texts))
    assert automaton.first(words_of(key)) == expected


@given(patterns)
def test_normalized(pattern: tuple[Word, ...]) -> None:
    same = normalized(pattern)
    assert (MANY, MANY) not in pairwise(same)
    assert (MANY, ONE) not in pairwise(same)
    assert all(fits(pattern, words) == fits(same, words) for words in KEYS)


@given(rules, patterns)
def test_all_or_nothing(rules: Rules, pattern: tuple[Word, ...]) -> None:
    coverage = automaton_of(rules).cover(pattern, BUDGET)
    forbidden = [words for words in KEYS if fits(pattern, words) and not is_allowed(rules, words)]
    if coverage.covered:
        assert forbidden == []
        assert all(rules[index][1] for index in coverage.deciders)
        assert coverage.deciders
    else:
        # Whatever its length: here is a key that is matched and not allowed.
        assert coverage.witness is not None
        assert fits(pattern, coverage.witness)
        assert not is_allowed(rules, coverage.witness)
        first = first_of(rules, coverage.witness)
        assert coverage.deciders == (() if first is None else (first,))
    assert coverage.steps <= BUDGET


@given(rules, patterns, st.integers(0, 30))
def test_what_the_steps_do_not_tell_is_refused(rules: Rules, pattern: tuple[Word, ...], budget: int) -> None:
    automaton = automaton_of(rules)
    hurried, whole = automaton.cover(pattern, budget), automaton.cover(pattern, BUDGET)
    assert hurried.steps <= budget + 1
    assert hurried == whole or (not hurried.covered and hurried.witness is None)


@pytest.mark.parametrize(
    ("rules", "pattern", "deciders"),
    [
        (read("+#"), "#", (0,)),
        (read("+#"), "", (0,)),
        (read("+a.#"), "a", (0,)),
        (read("+a.*"), "a.*", (0,)),
        (read("+*.#"), "#.*", (0,)),
        (read("+", "+*.#"), "#", (0, 1)),
        (read("-a.b", "+a.#"), "a.c.#", (1,)),
        (read("+a.x", "-a.*", "+#"), "a.x", (0,)),
        (read("+a.#", "-#.x", "+*"), "a.#", (0,)),
        # Every key has an x or is one of those without: only both together allow all.
        (read("+#.x.#", "-#.x", "+#"), "#", (0, 2)),
    ],
)
def test_allowed(rules: Rules, pattern: str, deciders: tuple[int, ...]) -> None:
    coverage = automaton_of(rules).cover(topic_words(pattern), BUDGET)
    assert (coverage.covered, coverage.deciders) == (True, deciders)


@pytest.mark.parametrize(
    ("rules", "pattern", "witness", "deciders"),
    [
        ([], "#", "", ()),
        ([], "*.a", "x.a", ()),
        (read("+a.*"), "a.#", "a", ()),
        (read("+a.*", "+a"), "a.#", "a.x.x", ()),
        (read("+*"), "#.a", "x.x.a", ()),
        (read("-a.b", "+a.#"), "a.#", "a.b", (0,)),
        (read("-#.secret.#", "+#"), "room.*", "room.secret", (0,)),
        (read("+x", "+x0"), "*", "x1", ()),
        (read("-#", "+a"), "a", "a", (0,)),
    ],
)
def test_refused(rules: Rules, pattern: str, witness: str, deciders: tuple[int, ...]) -> None:
    coverage = automaton_of(rules).cover(topic_words(pattern), BUDGET)
    assert coverage.witness is not None
    assert (coverage.covered, ".".join(coverage.witness), coverage.deciders) == (False, witness, deciders)


HASHES = ".".join(["#"] * 128)
MIXED = ".".join(["#", "*", "a"] * 42)[:255]


@pytest.mark.parametrize("pattern", [HASHES, MIXED, ".".join(["*"] * 128), "a." * 127 + "#", "x" * 255])
@pytest.mark.parametrize(
    "rules",
    [
        read("+#"),
        read("-#.secret.#", "+#"),
        read(*(f"+room.{number}.#" for number in range(999)), "+#"),
        read(*(f"-room.{number}.#" for number in range(999)), "+#"),
        read(*(f"-{number}.#" for number in range(999)), "+*.#"),
        read(f"-{HASHES}.secret", "+#"),
        read(f"-{MIXED[:30]}", "+#"),
    ],
    ids=range(7),
)
def test_the_work_for_usual_rules_is_small(rules: Rules, pattern: str) -> None:
    coverage = automaton_of(rules).cover(topic_words(pattern), BUDGET)
    assert coverage.covered or coverage.witness is not None
    assert coverage.steps <= 4_000


@pytest.mark.parametrize(
    "rules",
    [
        # Which of the last words were an "a" takes 2 ** 24 sets of positions to know.
        read("-#.a" + ".*" * 24, "+#"),
        read(*(f"-#.{word}" + ".*" * 24 for word in "abcdefgh"), "+#"),
        read(*(f"{'-' if number % 2 else '+'}#.a" + ".*" * number for number in range(24)), "+#"),
    ],
    ids=range(3),
)
@pytest.mark.parametrize("pattern", ["#", "#.a.#.b", HASHES + ".b"])
def test_the_work_for_any_rules_is_bounded(rules: Rules, pattern: str) -> None:
    coverage = automaton_of(rules).cover(topic_words(pattern), BUDGET)
    assert coverage.steps <= BUDGET + 1
    assert not coverage.covered
