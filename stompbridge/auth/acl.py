"""Access rules: who may do what where. The first rule that fits decides; where none does, the answer is no.

A subscription with wildcards is allowed only if every key that it can match is allowed. What needs a rule, and which
headers need more than one, is in :mod:`stompbridge.auth.grants`; how a pattern reads in
:mod:`stompbridge.auth.patterns`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stompbridge.auth import patterns
from stompbridge.auth.automaton import Automaton
from stompbridge.auth.base import Identity
from stompbridge.auth.grants import SEND_HEADERS, ExchangeType, Need, Resource, needs
from stompbridge.auth.patterns import Bound, Pattern
from stompbridge.brokers.topics import words_of
from stompbridge.config import AclRule, Action
from stompbridge.config_file import show_value
from stompbridge.routing.destinations import Destination, Kind, parse
from stompbridge.stomp import errors

MAX_STEPS = 10_000
"""Steps to find out whether the rules allow all that a wildcard matches; a subscription that needs more is refused."""
_USERS = 4096
"""Users, or sets of rules, that are kept in mind."""
_REMEMBERED = 256
"""Destinations, and decisions, that are remembered for each."""
_LONGEST_REMEMBERED = 512  # characters
_OWN_NAMES = frozenset({"stompbridge", "stomp-subscription-stompbridge"})
"""How the names of the bridge's own exchanges and queues begin. No wildcard allows them."""
_NOBODY = Identity("")
_COMMANDS: dict[Literal["subscribe", "send"], Literal["SUBSCRIBE", "SEND"]] = {
    "subscribe": "SUBSCRIBE",
    "send": "SEND",
}


Problem = tuple[str, object, str]
"""Where something is wrong (``acl[2].destinations[0]``), the value, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a question, with the number of the rule that gave it (from 1; ``None``: no rule did)."""

    allowed: bool
    rule: int | None
    text: str


@dataclass(frozen=True, slots=True)
class _Rule:
    number: int
    rule: AclRule
    patterns: tuple[Pattern, ...]

    @property
    def personal(self) -> bool:
        return any(pattern.personal for pattern in self.patterns)

    def is_for(self, user: str | None, groups: frozenset[str]) -> bool:
        """A rule that names nobody came with the user, and is for that one."""
        users = self.rule.users
        if "*" in users or user in users or not (users or self.rule.groups):
            return True
        return not groups.isdisjoint(self.rule.groups)

    def __str__(self) -> str:
        rule = self.rule
        members = {name: getattr(rule, name) for name in ("allow", "deny", "destinations", "users", "groups")}
        return ", ".join(f"{name} = {show_value(value)}" for name, value in members.items() if value)


@dataclass(frozen=True, slots=True)
class _Verdict:
    allowed: bool
    rules: tuple[_Rule, ...] = ()
    refused_key: tuple[str, ...] | None = None
    undecided: bool = False


class _Grants:
    """The rules that are for a user, with the user's name in their places; shared by all for whom they are the same."""

    __slots__ = ("_automata", "_rows", "_verdicts", "sendable", "steps")

    def __init__(self, rules: Sequence[_Rule], user: str | None) -> None:
        bound = ((rule, pattern.bind(user)) for rule in rules for pattern in rule.patterns)
        self._rows: list[tuple[_Rule, Bound]] = [(rule, pattern) for rule, pattern in bound if pattern is not None]
        self._automata: dict[tuple[Action, str, str, bool], tuple[Automaton, list[_Rule]]] = {}
        self._verdicts: dict[tuple[Action, Resource], _Verdict] = {}
        self.sendable: set[str] = set()
        """Destinations of SENDs that are known to be allowed."""
        self.steps = 0
        """Steps taken for wildcards so far."""

    def decide(self, action: Action, resource: Resource) -> _Verdict:
        words = tuple(word for word in resource.words if isinstance(word, str))
        if len(words) < len(resource.words):
            return self._decide_all(action, resource)
        automaton, rules = self._automaton(action, resource)
        index = automaton.first(words)
        return _Verdict(False) if index is None else _Verdict(action in rules[index].rule.allow, (rules[index],))

    def _decide_all(self, action: Action, resource: Resource) -> _Verdict:
        """For all keys that the wildcards match."""
        verdict = self._verdicts.get((action, resource))
        if verdict is not None:
            return verdict
        automaton, rules = self._automaton(action, resource)
        coverage = automaton.cover(resource.words, MAX_STEPS)
        self.steps += coverage.steps
        deciders = {rules[index].number: rules[index] for index in coverage.deciders}
        undecided = not coverage.covered and coverage.witness is None
        verdict = _Verdict(coverage.covered, tuple(deciders.values()), coverage.witness, undecided)
        if len(self._verdicts) >= _REMEMBERED:
            self._verdicts.clear()
        self._verdicts[action, resource] = verdict
        return verdict

    def _automaton(self, action: Action, resource: Resource) -> tuple[Automaton, list[_Rule]]:
        """The rules about an action on a kind of destination, and for an exchange on this one."""
        space, name = resource.space, resource.name
        first = words_of(name)[:1] if name else resource.words[:1]
        own = space in ("exchange", "queue") and bool(first) and first[0] in _OWN_NAMES
        key = (action, space, name, own)
        found = self._automata.get(key)
        if found is None:
            rows = [row for row in self._rows if _is_about(row, action, space, name, own)]
            allows = [action in rule.rule.allow for rule, _ in rows]
            found = Automaton([pattern.words for _, pattern in rows], allows), [rule for rule, _ in rows]
            if len(self._automata) >= _REMEMBERED:
                self._automata.clear()
            self._automata[key] = found
        return found


def _is_about(row: tuple[_Rule, Bound], action: Action, space: str, name: str, own: bool) -> bool:
    rule, pattern = row
    if pattern.space != space:
        return False
    if action in rule.rule.allow:
        if own and not pattern.named:
            return False
    elif action not in rule.rule.deny:
        return False
    return space != "exchange" or patterns.matches(pattern.name, words_of(name))


class Permissions:
    """What one user may do. The checks raise :class:`~stompbridge.stomp.errors.StompError` (fatal) for a refusal."""

    __slots__ = ("_exchange_type", "_grants", "_sendable", "_user")

    def __init__(self, user: str | None, grants: _Grants, exchange_type: ExchangeType) -> None:
        self._user = user
        self._grants = grants
        self._sendable = grants.sendable
        self._exchange_type = exchange_type

    def check_send(self, destination: Destination, headers: Mapping[str, str]) -> None:
        """For each SEND: a look into a set where the destination was seen before."""
        if destination.text in self._sendable and SEND_HEADERS.isdisjoint(headers):
            return
        self._check("send", destination, headers)
        # The own part of /user is another destination for everybody, while the set may be shared.
        is_own = destination.kind is Kind.USER and not destination.user
        if not is_own and len(destination.text) <= _LONGEST_REMEMBERED:
            if len(self._sendable) >= _REMEMBERED:
                self._sendable.clear()
            self._sendable.add(destination.text)

    def check_subscribe(self, destination: Destination, headers: Mapping[str, str]) -> None:
        self._check("subscribe", destination, headers)

    def explain(
        self, action: Literal["subscribe", "send"], destination: str, headers: Mapping[str, str] | None = None
    ) -> Decision:
        """What a frame would meet, and why. Raises ``StompError`` for what is no destination of that command."""
        parsed = parse(destination, _COMMANDS[action])
        answers = []
        for need in needs(action, parsed, headers or {}, self._user, self._exchange_type):
            verdict = self._decide(need)
            answers.append(_explained(need, verdict))
            if not verdict.allowed:
                return answers[-1]
        return Decision(True, answers[0].rule, "; ".join(answer.text for answer in answers))

    @property
    def steps(self) -> int:
        """Steps taken for subscriptions with wildcards, by all who share these rules."""
        return self._grants.steps

    def _check(
        self, action: Literal["subscribe", "send"], destination: Destination, headers: Mapping[str, str]
    ) -> None:
        for need in needs(action, destination, headers, self._user, self._exchange_type):
            if not self._decide(need).allowed:
                raise errors.access_refused(destination.text, self._user or "")

    def _decide(self, need: Need) -> _Verdict:
        return _Verdict(False) if need.resource is None else self._grants.decide(need.action, need.resource)


def _explained(need: Need, verdict: _Verdict) -> Decision:
    resource = need.resource
    if resource is None:
        return Decision(False, None, f"{need.action} refused: {need.why}")
    start = f"{need.action} on {resource.text(resource.words)}: "
    if verdict.undecided:
        return Decision(False, None, f"{start}refused, {MAX_STEPS} steps do not tell whether all of it is allowed")
    key = "" if verdict.refused_key is None else f" for {resource.text(verdict.refused_key)}"
    if not verdict.rules:
        return Decision(False, None, f"{start}refused{key}, no rule fits")
    outcome = "allowed" if verdict.allowed else "refused"
    rules = " and ".join(f"rule {rule.number} ({rule})" for rule in verdict.rules)
    return Decision(verdict.allowed, verdict.rules[0].number, f"{start}{outcome}{key} by {rules}")


def unruled(action: Literal["subscribe", "send"], destination: str) -> Decision:
    """The answer without any rule. Raises ``StompError`` for what is no destination of that command."""
    parse(destination, _COMMANDS[action])
    return Decision(True, None, f"{action} allowed: there is no [[acl]], so that everything is")


class Acl:
    """The configured rules. ``exchange_type`` tells of an exchange what it is known to be
    (:meth:`.Broker.exchange_type`); one of which nothing is known is taken for a topic exchange, so that rules for
    keys of a fanout or headers exchange hold only where the bridge knows it for one.

    Raises :class:`ValueError`, naming rule and pattern, for rules that make no sense.
    """

    def __init__(self, rules: Sequence[AclRule], exchange_type: ExchangeType) -> None:
        self._rules = _compiled(rules, problems(rules))
        self._exchange_type = exchange_type
        self._grants: OrderedDict[Any, _Grants] = OrderedDict()
        self._others: OrderedDict[tuple[AclRule, ...], tuple[_Rule, ...]] = OrderedDict()

    def permissions(self, identity: Identity | None) -> Permissions | None:
        """What a client may do; ``None`` where there is no rule at all, which means anything. A client whom nobody
        authenticated is nobody in particular.

        Rules that came with the identity replace the configured ones; where they name nobody, they are for the one
        with whom they came. ``ValueError`` if they make no sense: see :func:`check_own_rules`.
        """
        identity = identity or _NOBODY
        user, rules = identity.user or None, identity.rules
        if rules is None and not self._rules:
            return None
        candidates = self._rules if rules is None else self._compiled(rules)
        chosen = tuple(rule for rule in candidates if rule.is_for(user, identity.groups))
        named = any(rule.personal for rule in chosen)
        key = (rules, tuple(rule.number for rule in chosen), user if named else None, named)
        grants = self._grants.get(key)
        if grants is None:
            grants = self._grants[key] = _Grants(chosen, user)
            if len(self._grants) > _USERS:
                self._grants.popitem(last=False)
        else:
            self._grants.move_to_end(key)
        return Permissions(user, grants, self._exchange_type)

    def _compiled(self, rules: tuple[AclRule, ...]) -> tuple[_Rule, ...]:
        compiled = self._others.get(rules)
        if compiled is None:
            compiled = self._others[rules] = _compiled(rules, _problems_of_own(rules))
            if len(self._others) > _USERS:
                self._others.popitem(last=False)
        else:
            self._others.move_to_end(rules)
        return compiled


def check_own_rules(rules: Sequence[AclRule]) -> None:
    """Raises :class:`ValueError` if rules that come with an identity make no sense."""
    _compiled(rules, _problems_of_own(rules))


def problems(rules: Sequence[AclRule]) -> Iterator[Problem]:
    """What is wrong with configured rules."""
    for index, rule in enumerate(rules):
        yield from _problems(index, rule)
        if not rule.users and not rule.groups:
            text = 'names nobody, and neither does groups; users = ["*"] is for everybody'
            yield f"acl[{index}].users", rule.users, text


def _compiled(rules: Sequence[AclRule], found: Iterator[Problem]) -> tuple[_Rule, ...]:
    for key, value, text in found:
        raise ValueError(f"{key} = {show_value(value)}: {text}")
    return tuple(
        _Rule(number, rule, tuple(pattern for text in rule.destinations for pattern in patterns.parse(text)))
        for number, rule in enumerate(rules, 1)
    )


def _problems_of_own(rules: Sequence[AclRule]) -> Iterator[Problem]:
    for index, rule in enumerate(rules):
        yield from _problems(index, rule)


def _problems(index: int, rule: AclRule) -> Iterator[Problem]:
    key = f"acl[{index}]"
    if not rule.allow and not rule.deny:
        yield f"{key}.allow", rule.allow, "must name an action, or deny has to"
    for action in rule.allow:
        if action in rule.deny:
            yield f"{key}.deny", rule.deny, f'names "{action}", which allow names too'
    if "*" in rule.groups:
        yield f"{key}.groups", rule.groups, 'must name groups; users = ["*"] is for everybody'
    if not rule.destinations:
        yield f"{key}.destinations", rule.destinations, "must hold a pattern"
        return
    spaces: set[patterns.Space] = set()
    for number, text in enumerate(rule.destinations):
        try:
            spaces.update(pattern.space for pattern in patterns.parse(text))
        except ValueError as error:
            yield f"{key}.destinations[{number}]", text, str(error)
            return
    if "temp-queue" in (*rule.allow, *rule.deny) and "temp-queue" not in spaces:
        yield f"{key}.destinations", rule.destinations, 'need "/temp-queue/**" for the action temp-queue'
