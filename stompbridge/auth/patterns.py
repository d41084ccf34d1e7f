"""The destination patterns of access rules.

A pattern is a destination with wildcards, made of words. In routing keys, names of queues and exchanges, and behind
``/internal/`` the words stand between dots, as in AMQP 0-9-1 (section 3.1.3.3): ``*`` is one word, ``#`` any number of
them, and ``**`` instead of a whole name or key is the same as ``#``. In ``/app``, ``/user`` and ``/temp-queue`` they
stand between slashes: ``*`` is one of them, ``**`` any number.

``{user}`` is the user's name, whole and literal: within a word, never more. A name that does not fit (a dot where words
stand between dots) makes its pattern match nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from stompbridge.brokers.topics import words_of
from stompbridge.routing.destinations import TOPIC_EXCHANGE
from stompbridge.routing.users import OWN

Space = Literal["exchange", "queue", "app", "internal", "temp-queue", "user", "user-of"]
"""What a pattern speaks of. ``user`` is the path of a client's own destination, as a SUBSCRIBE has it; ``user-of`` is
the name of a user and the path, which is what a SEND comes to."""

_RESERVED = frozenset({"amq", "stompbridge"})
_RESERVED_PREFIX = "stomp-subscription-"


class Wild(Enum):
    """A wildcard."""

    ONE = "*"
    MANY = "#"


Word = str | Wild


@dataclass(frozen=True, slots=True)
class _Text:
    """A word: the pieces between which the user's name stands. No name with a character of ``barred`` fits."""

    pieces: tuple[str, ...]
    barred: str = ""

    @property
    def literal(self) -> bool:
        return len(self.pieces) == 1

    def bind(self, user: str | None) -> str | None:
        if self.literal:
            return self.pieces[0]
        if not user or any(char in user for char in self.barred):
            return None
        return user.join(self.pieces)


class _Own:
    """The name of the client itself, which has one even if nobody authenticates it."""

    def bind(self, user: str | None) -> str:
        return user or ""


_Token = Wild | _Text | _Own


@dataclass(frozen=True, slots=True)
class Bound:
    """A pattern for one user. ``name`` is the exchange's, and empty for everything else. ``named``: the first word of
    the exchange's or queue's name is written out."""

    space: Space
    words: tuple[Word, ...]
    name: tuple[Word, ...] = ()
    named: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a rule's text says of one space."""

    space: Space
    words: tuple[_Token, ...]
    name: tuple[_Token, ...] = ()

    @property
    def personal(self) -> bool:
        """Whether it is another pattern for each user."""
        return any(
            isinstance(token, _Own) or (isinstance(token, _Text) and not token.literal)
            for token in (*self.name, *self.words)
        )

    def bind(self, user: str | None) -> Bound | None:
        """The pattern for this user; ``None`` for nobody in particular. None where the name does not fit.

        Neither does one that would make an exchange or a queue of RabbitMQ or of the bridge out of ``{user}``.
        """
        words, name = _bind(self.words, user), _bind(self.name, user)
        if words is None or name is None:
            return None
        named = False
        if self.space in ("exchange", "queue"):
            token, word = (self.name[0], name[0]) if name else (self.words[0], words[0])
            named = isinstance(token, _Text) and token.literal
            if not named and isinstance(word, str) and (word in _RESERVED or word.startswith(_RESERVED_PREFIX)):
                return None
        return Bound(self.space, words, name, named)


def parse(text: str) -> tuple[Pattern, ...]:
    """The patterns of one text, at most one for each space. Raises :class:`ValueError` for what is none."""
    if text == "/**":
        many = (Wild.MANY,)
        spaces: tuple[Space, ...] = ("queue", "app", "internal", "temp-queue", "user", "user-of")
        return (Pattern("exchange", many, many), *(Pattern(space, many) for space in spaces))
    match text.split("/")[1:] if text.startswith("/") else None:
        case ["exchange", "**"]:
            return (Pattern("exchange", (Wild.MANY,), (Wild.MANY,)),)
        case ["exchange", name, *rest] if name and len(rest) <= 1:
            return (Pattern("exchange", _dotted("".join(rest)), _dotted(name)),)
        case ["topic", key] if key:
            return (Pattern("exchange", _dotted(key), _dotted(TOPIC_EXCHANGE)),)
        case ["queue", name] if name:
            return (Pattern("queue", _dotted(name)),)
        case ["exchange" | "topic" | "queue" as kind, *_]:
            raise ValueError(f"is no pattern for /{kind}: a name may not be empty, and a slash in it is written %2F")
        case ["app" | "temp-queue" as path, first, *rest] if first:
            return (Pattern(path, tuple(_segment(part) for part in (first, *rest))),)
        case ["internal", first, *rest] if first:
            return (Pattern("internal", _dotted("/".join((first, *rest)), barred="./", slash="%2F")),)
        case ["user", first, *rest] if first:
            return _user(first, rest)
        case ["app" | "temp-queue" | "internal" | "user" as kind, *_]:
            raise ValueError(f"must go on after /{kind}/, with ** for all that may follow")
        case ["amq" | "reply-queue", *_]:
            raise ValueError("is written /queue/NAME, which is the same queue")
    raise ValueError(
        "must start with /exchange/, /topic/, /queue/, /app/, /user/, /internal/ or /temp-queue/, or be /** for all"
    )


def matches(pattern: Sequence[Word], words: Iterable[str]) -> bool:
    """Whether the words fit a pattern."""
    positions = _skip(pattern, {0})
    for word in words:
        reached = set()
        for position in positions:
            if position < len(pattern):
                token = pattern[position]
                if token is Wild.MANY:
                    reached.add(position)
                elif token is Wild.ONE or token == word:
                    reached.add(position + 1)
        positions = _skip(pattern, reached)
    return len(pattern) in positions


def topic_words(key: str) -> tuple[Word, ...]:
    """A binding key of a topic exchange."""
    return tuple(Wild(word) if word in ("*", "#") else word for word in words_of(key))


def _skip(pattern: Sequence[Word], positions: set[int]) -> set[int]:
    """With the positions behind the ``#`` that stand there, which may match nothing."""
    waiting = list(positions)
    while waiting:
        position = waiting.pop()
        if position < len(pattern) and pattern[position] is Wild.MANY and position + 1 not in positions:
            positions.add(position + 1)
            waiting.append(position + 1)
    return positions


def _bind(tokens: Iterable[_Token], user: str | None) -> tuple[Word, ...] | None:
    words: list[Word] = []
    for token in tokens:
        word = token if isinstance(token, Wild) else token.bind(user)
        if word is None:
            return None
        words.append(word)
    return tuple(words)


def _dotted(text: str, barred: str = ".", slash: str = "/") -> tuple[_Token, ...]:
    if text == "**":
        return (Wild.MANY,)
    return tuple(
        Wild(word) if word in ("*", "#") else _text(word, "* and # stand for whole words", barred, slash)
        for word in words_of(text)
    )


def _segment(part: str) -> _Token:
    return Wild.MANY if part == "**" else _part(part)


def _part(part: str, barred: str = "") -> _Token:
    if part == "*":
        return Wild.ONE
    return _text(part, "* and ** stand for whole parts between slashes", barred)


def _text(word: str, wildcards: str, barred: str, slash: str = "/") -> _Text:
    if "*" in word or "#" in word:
        raise ValueError(f"has a wildcard in '{word}': {wildcards} here, nothing else does")
    pieces = tuple(re.split(r"\{user\}", word.replace("%2F", slash)))
    if any("{" in piece or "}" in piece for piece in pieces):
        raise ValueError(f"has a brace in '{word}': the only placeholder is {{user}}")
    return _Text(pieces, barred)


def _user(first: str, rest: Sequence[str]) -> tuple[Pattern, ...]:
    """A dot in the path of a user destination is the same as a slash."""
    own: list[_Token] = []
    for part in (first, *rest):
        own.extend([Wild.MANY] if part == "**" else (_part(word, ".") for word in part.split(".")))
    if first in OWN:
        named: tuple[_Token, ...] = (_Own(), *own)
    elif first == "**":
        named = tuple(own)
    else:
        named = (_segment(first), *own[len(first.split(".")) :])
    return Pattern("user", tuple(own)), Pattern("user-of", named)
