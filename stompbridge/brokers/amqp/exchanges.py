"""What is known about exchanges: which exist, which refused something a moment ago, whom a refusal is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from ..base import Failure, Message

BUILT_IN = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.topic": "topic",
}
"""Exchanges that every virtual host has, and their types."""
KNOWN = 4096
"""How many found exchanges, and how many refusals, are remembered."""
REFUSAL_AGE = 1.0
"""Seconds for which a refusal is believed without asking again."""

# Anchored at the start and greedy: a name may hold quotes, and whatever else its inventor wanted it to look like.
_EXCHANGE = re.compile(
    r"(?:NOT_FOUND - no|ACCESS_REFUSED - (?:\w+ )?access to|ACCESS_REFUSED - cannot publish to internal)"
    r" exchange '(.*)' in vhost '",
    re.DOTALL,
)
_TOPIC = re.compile(r"ACCESS_REFUSED - (?:\w+ )?access to topic '(.*)' in exchange '(.*)' in vhost '", re.DOTALL)


class _Held(Protocol):
    message: Message


_T = TypeVar("_T", bound=_Held)


class Exchanges:
    """Bounded memory of the broker's answers. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pinned: set[str] = {"", *BUILT_IN}
        self._found: dict[str, None] = {}
        self._refusals: dict[tuple[str, str | None], tuple[float, Failure]] = {}

    def declared(self, names: Iterable[str]) -> None:
        """These exist until the broker says otherwise."""
        self._pinned.update(names)

    def known(self, exchange: str) -> bool:
        """Whether it exists, as far as known."""
        return exchange in self._pinned or exchange in self._found

    def found(self, exchange: str) -> None:
        """The broker has it."""
        if len(self._found) >= KNOWN:
            del self._found[next(iter(self._found))]
        self._found[exchange] = None

    def refused(self, exchange: str, key: str | None, problem: Failure) -> None:
        """The broker refused something to do with it, or (``key`` given) with that key on it."""
        if problem.code == "not_found" and exchange not in BUILT_IN:
            self._pinned.discard(exchange)
            self._found.pop(exchange, None)
        if problem.code in ("not_found", "access_refused") and len(self._refusals) < KNOWN:
            self._refusals[exchange, key] = (self._clock() + REFUSAL_AGE, problem)

    def refusal(self, message: Message) -> Failure | None:
        """The recent refusal that this message would meet again."""
        if not self._refusals:
            return None
        known = self._refusals.get((message.exchange, None))
        known = known or self._refusals.get((message.exchange, message.routing_key))
        return known[1] if known is not None and known[0] > self._clock() else None

    def sweep(self, now: float) -> None:
        """Forgets old refusals."""
        if self._refusals:
            self._refusals = {name: known for name, known in self._refusals.items() if known[0] > now}


def named_in(text: str) -> tuple[str, str | None] | None:
    """Exchange and, if it matters, key that the broker's reason names; ``None`` when it names none."""
    topic = _TOPIC.match(text)
    if topic:
        return topic[2], topic[1]
    exchange = _EXCHANGE.match(text)
    return (exchange[1], None) if exchange else None


def blamed(text: str, held: Iterable[_T]) -> list[_T]:
    """Those of the messages that the broker's reason is about."""
    named = named_in(text)
    if named is None:
        return []
    exchange, key = named
    return [
        entry
        for entry in held
        if entry.message.exchange == exchange and (key is None or entry.message.routing_key == key)
    ]
