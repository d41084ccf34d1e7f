"""Which of many patterns decides about a key, and whether all keys of another pattern are allowed.

The patterns are one bit-parallel automaton: a bit for each position in each of them, the first pattern lowest, so that
the lowest bit that accepts is the first pattern that fits. The work for a key is its words, however many ``#`` there
are. For a subscription with wildcards the reachable pairs of a position in it and a set of positions in the rules are
searched for one that is not allowed, at most a given number of steps: rules such as ``#.a.*.*.*`` may have as many of
them as there are sets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stompbridge.auth.patterns import Wild, Word

_State = tuple[int, int]
"""A position in the subscription, and the positions reached in the rules."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether all keys of a pattern are allowed."""

    covered: bool
    deciders: tuple[int, ...]
    """The patterns that allow them; or the one that refuses a key, if any does."""
    witness: tuple[str, ...] | None
    """The words of a key that is refused; ``None`` without a refusal, and where the steps did not suffice."""
    steps: int


class Automaton:
    """Patterns in the order in which they count. ``allows`` tells of each whether it allows what it matches."""

    __slots__ = (
        "_accept",
        "_allowing",
        "_allows",
        "_any",
        "_denying",
        "_ends",
        "_final",
        "_literal",
        "_loop",
        "_other",
        "_start",
        "_word_at",
        "_words",
    )

    def __init__(self, patterns: Iterable[Sequence[Word]], allows: Iterable[bool]) -> None:
        self._allows = tuple(allows)
        self._start = self._accept = self._any = self._loop = self._final = 0
        self._allowing = self._denying = 0
        self._ends: list[int] = []
        self._word_at: dict[int, str] = {}
        self._words: dict[str, int] = {}
        position = 0
        for pattern, allow in zip(patterns, self._allows, strict=True):
            begin = position
            self._start |= 1 << position
            tokens = normalized(pattern)
            for token in tokens:
                if token is Wild.MANY:
                    self._loop |= 1 << position
                elif token is Wild.ONE:
                    self._any |= 1 << position
                else:
                    self._word_at[position] = token
                    self._words[token] = self._words.get(token, 0) | 1 << position
                position += 1
            if tokens and tokens[-1] is Wild.MANY:
                self._final |= 1 << (position - 1)
            self._accept |= 1 << position
            self._ends.append(position)
            position += 1
            own = (1 << position) - (1 << begin)
            if allow:
                self._allowing |= own
            else:
                self._denying |= own
        self._literal = sum(self._words.values())
        self._start |= (self._start & self._loop) << 1
        # A word that no pattern names stands for all of those.
        names = ("x", *(f"x{number}" for number in range(len(self._words))))
        self._other = next(name for name in names if name not in self._words)

    def first(self, words: Iterable[str]) -> int | None:
        """The index of the first pattern that fits the words."""
        mask = self._start
        for word in words:
            lowest = mask & -mask
            if lowest & self._final:
                # It matches whatever comes, and nothing before it can match any more.
                return self._index(lowest)
            if not mask:
                return None
            mask = self._step(mask, word)
        return self._first(mask)

    def cover(self, pattern: Sequence[Word], budget: int) -> Coverage:
        """Whether, of each key that ``pattern`` matches, the first pattern here that fits it allows it. After
        ``budget`` steps the answer is no."""
        tokens = normalized(pattern)
        start = (0, self._trimmed(self._start))
        came: dict[_State, tuple[_State, str | None] | None] = {start: None}
        queue = deque((start,))
        deciders: set[int] = set()
        steps = 0
        while queue:
            state = queue.popleft()
            position, mask = state
            if not mask & self._allowing:
                return self._refuted(tokens, came, state, steps)
            settled = mask & self._final
            if settled and not mask & self._denying:
                # From here on everything is allowed, if by nothing else by what ends in "#".
                deciders.add(self._index(settled))
                continue
            if position == len(tokens):
                first = self._first(mask)
                if first is None or not self._allows[first]:
                    return self._refuted(tokens, came, state, steps)
                deciders.add(first)
                continue
            for successor, word in self._successors(tokens[position], position, mask):
                steps += 1
                if steps > budget:
                    return Coverage(False, (), None, steps)
                if successor not in came:
                    came[successor] = (state, word)
                    queue.append(successor)
        return Coverage(True, tuple(sorted(deciders)), None, steps)

    def _successors(self, token: Word, position: int, mask: int) -> Iterator[tuple[_State, str | None]]:
        if isinstance(token, str):
            yield (position + 1, self._trimmed(self._step(mask, token))), token
            return
        after = position + 1
        if token is Wild.MANY:
            yield (after, mask), None
            after = position
        yield (after, self._trimmed(self._step(mask, self._other))), self._other
        named = mask & self._literal
        while named:
            word = self._word_at[(named & -named).bit_length() - 1]
            named &= ~self._words[word]
            yield (after, self._trimmed(self._step(mask, word))), word

    def _step(self, mask: int, word: str) -> int:
        loops = mask & self._loop
        reached = (mask & (self._words.get(word, 0) | self._any)) << 1 | loops
        entered = reached & self._loop & ~loops
        reached |= (reached & self._loop) << 1
        while entered:
            # Whatever matches from an earlier position of the pattern matches from its newest "#", too.
            newest = entered & -entered
            index = self._index(newest)
            begin = self._ends[index - 1] + 1 if index else 0
            reached &= ~(newest - (1 << begin))
            entered ^= newest
        return reached

    def _trimmed(self, mask: int) -> int:
        """Without the patterns behind the first that matches whatever comes."""
        settled = mask & self._final
        return mask & (((settled & -settled) << 2) - 1) if settled else mask

    def _first(self, mask: int) -> int | None:
        accepted = mask & self._accept
        return self._index(accepted & -accepted) if accepted else None

    def _index(self, bit: int) -> int:
        """The pattern that a position belongs to."""
        return bisect_left(self._ends, bit.bit_length() - 1)

    def _refuted(
        self,
        tokens: Sequence[Word],
        came: dict[_State, tuple[_State, str | None] | None],
        state: _State,
        steps: int,
    ) -> Coverage:
        """The words that led here, and any that end the pattern: no key that goes on like this is allowed."""
        words: list[str] = []
        for token in reversed(tokens[state[0] :]):
            if token is not Wild.MANY:
                words.append(token if isinstance(token, str) else self._other)
        step = came[state]
        while step is not None:
            state, word = step
            if word is not None:
                words.append(word)
            step = came[state]
        words.reverse()
        first = self.first(words)
        return Coverage(False, () if first is None else (first,), tuple(words), steps)


def normalized(pattern: Sequence[Word]) -> tuple[Word, ...]:
    """The same pattern with each run of wildcards as its ``*``, and one ``#`` if it has any."""
    tokens: list[Word] = []
    repeats = False
    for token in pattern:
        if token is Wild.MANY:
            repeats = True
            continue
        if repeats and token is not Wild.ONE:
            tokens.append(Wild.MANY)
            repeats = False
        tokens.append(token)
    if repeats:
        tokens.append(Wild.MANY)
    return tuple(tokens)
