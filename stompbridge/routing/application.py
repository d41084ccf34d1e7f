"""Application destinations: what a SEND to ``/app/...`` becomes, by the rules of the configuration.

A rule matches the destination by a template, takes variables out of it, and makes of them the routing key and
members of the JSON body.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from stompbridge.config import App, Route
from stompbridge.routing.snowflake import Snowflake
from stompbridge.routing.values import integer, short_string
from stompbridge.stomp import errors

_PREFIX = "/app/"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_VARIABLE = re.compile(r"([A-Za-z_]\w*)(?::(\w+))?", re.ASCII)
_INTEGER = ":int"
_NUMBERS = frozenset({"snowflake", "sequence"})
_BUILT_IN = frozenset({"session", "now"}) | _NUMBERS

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Routed:
    """What to publish for one SEND."""

    exchange: str
    key: str
    body: bytes
    persistent: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """A literal text, or a placeholder: then ``value`` is its name, with ``:int`` where it has that type."""

    text: str = ""
    value: str = ""

    @property
    def name(self) -> str:
        return self.value.removesuffix(_INTEGER)


class _Template:
    """A text with placeholders."""

    __slots__ = ("_literals", "_number", "_values", "parts")

    def __init__(self, text: str) -> None:
        self.parts: list[_Part] = []
        for index, piece in enumerate(_PLACEHOLDER.split(text)):
            if index % 2:
                self.parts.append(_placeholder(piece))
            elif "{" in piece or "}" in piece:
                raise ValueError(f"a brace without its partner in '{text}'")
            elif piece:
                self.parts.append(_Part(text=piece))
        alone = self.parts[0].value if len(self.parts) == 1 else ""
        self._number = alone if alone.endswith(_INTEGER) or alone in _NUMBERS else ""
        self._literals = [part.text for part in self.parts]
        self._values = [(index, part.value) for index, part in enumerate(self.parts) if part.value]

    @property
    def placeholders(self) -> list[_Part]:
        return [part for part in self.parts if part.value]

    def render(self, values: Mapping[str, str | int]) -> str | int:
        """The text; the number itself where the template is nothing but one."""
        if self._number:
            return values[self._number]
        pieces = self._literals.copy()
        for index, value in self._values:
            pieces[index] = str(values[value])
        return "".join(pieces)


class _Route:
    """One compiled rule."""

    __slots__ = (
        "_integers",
        "_key",
        "_key_variables",
        "_pattern",
        "_stamps",
        "exchange",
        "now",
        "persistent",
        "snowflake",
    )

    def __init__(self, route: Route) -> None:
        self.exchange = route.exchange
        self.persistent = route.persistent
        destination = _Template(route.destination)
        names = _check_destination(route.destination, destination)
        self._pattern = re.compile(
            "".join(f"(?P<{part.name}>[^/]+)" if part.value else re.escape(part.text) for part in destination.parts)
        )
        self._key = _Template(route.routing_key)
        self._stamps = [(member, _Template(text)) for member, text in route.stamp.items()]
        used = self._key.placeholders + [part for _, stamp in self._stamps for part in stamp.placeholders]
        for part in used:
            if part.name not in names and part.name not in _BUILT_IN:
                raise ValueError(f"'{part.name}' is not a variable of the destination and not built in")
        in_key = {part.name for part in self._key.placeholders}
        if "now" in in_key:
            raise ValueError("{now} has a dot in it and cannot be part of a routing key")
        self._key_variables = sorted(in_key - _BUILT_IN)
        needed = {part.value: part.name for part in used + destination.placeholders}
        self._integers = [(value, name) for value, name in needed.items() if value != name]
        self.now = "now" in needed
        self.snowflake = "snowflake" in needed

    def match(self, text: str) -> dict[str, str] | None:
        """The variables, if the rule is for this destination."""
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        variables = found.groupdict()
        if "%2F" in text:
            return {name: value.replace("%2F", "/") for name, value in variables.items()}
        return variables

    def values(self, variables: Mapping[str, str], session: str, sequence: int) -> dict[str, str | int]:
        """What the placeholders stand for, but for those that the clock gives."""
        values: dict[str, str | int] = {**variables, "session": session, "sequence": sequence}
        for value, name in self._integers:
            values[value] = integer(f"'{name}' in the destination", variables[name])
        return values

    def key(self, variables: Mapping[str, str], values: Mapping[str, str | int]) -> str:
        """The routing key. What a client puts into it stays within its word."""
        for name in self._key_variables:
            text = variables[name]
            if "." in text or "*" in text or "#" in text:
                raise errors.processing_error(f"'{name}' in the destination may not contain '.', '*' or '#'")
        return short_string("the routing key", str(self._key.render(values)))

    def stamp(self, body: bytes, values: Mapping[str, str | int]) -> bytes:
        """The body with the stamped members, the values of its others untouched to the byte."""
        if not self._stamps:
            return body
        try:
            # The decoder does not look into the members' strings: that they are UTF-8 has to be seen here.
            members: dict[str, object] = {**_decode(body.decode())}
        except UnicodeDecodeError:
            raise errors.not_json_object("it is not UTF-8") from None
        except RecursionError:
            raise errors.not_json_object("it is nested too deeply") from None
        except msgspec.DecodeError as error:
            raise errors.not_json_object(str(error)) from None
        for member, template in self._stamps:
            members[member] = template.render(values)
        return _encode(members)


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that matched a destination, and the variables' values."""

    route: _Route
    variables: dict[str, str]


class Application:
    """The configured rules, in their order; the first that matches counts.

    ``clock`` (seconds since 1970) serves ``{now}`` and ``{snowflake}``. Raises :class:`ValueError`, with the rule's
    number and destination and what is wrong with it, for a template that makes no sense.
    """

    def __init__(self, settings: App, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._snowflake = Snowflake(settings.worker, settings.epoch, clock)
        self._routes: list[_Route] = []
        for number, route in enumerate(settings.route, 1):
            try:
                self._routes.append(_Route(route))
            except ValueError as error:
                raise ValueError(f"app.route number {number} ('{route.destination}'): {error}") from None

    def route(self, text: str) -> Match | None:
        """The rule for a destination. Each variable takes one part between slashes; ``%2F`` in it means a slash."""
        for route in self._routes:
            variables = route.match(text)
            if variables is not None:
                return Match(route, variables)
        return None

    def apply(self, destination: str, body: bytes, session: str, sequence: int) -> Routed:
        """What to publish for a SEND of ``body`` to ``destination``.

        ``session`` and ``sequence`` are what ``{session}`` and ``{sequence}`` stand for. A rule without stamps
        leaves the body as it is, whatever it is. Raises :class:`~stompbridge.stomp.errors.StompError` (not fatal)
        where no rule matches, a variable is not what its type says or would change the shape of the routing key,
        and where a body to stamp is not a JSON object.
        """
        match = self.route(destination)
        if match is None:
            raise errors.no_app_route(destination)
        route = match.route
        values = route.values(match.variables, session, sequence)
        if route.snowflake:
            values["snowflake"] = self._snowflake.next()
        if route.now:
            now = datetime.fromtimestamp(self._clock(), UTC)
            values["now"] = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Routed(route.exchange, route.key(match.variables, values), route.stamp(body, values), route.persistent)


def _placeholder(text: str) -> _Part:
    found = _VARIABLE.fullmatch(text)
    if found is None:
        raise ValueError(f"'{{{text}}}' is not a placeholder: it must be a name, or a name with ':int'")
    name, type_ = found.groups()
    if type_ is not None and (type_ != "int" or name in _BUILT_IN):
        raise ValueError(f"'{{{text}}}': the only type is int, and only for variables of the destination")
    return _Part(value=text)


def _check_destination(text: str, template: _Template) -> list[str]:
    """The names of a destination's variables."""
    if not text.startswith(_PREFIX) or text == _PREFIX:
        raise ValueError(f"the destination must begin with '{_PREFIX}' and go on after it")
    names = [part.name for part in template.placeholders]
    for name in names:
        if name in _BUILT_IN:
            raise ValueError(f"'{name}' is the name of a built-in value")
        if names.count(name) > 1:
            raise ValueError(f"variable '{name}' stands twice in the destination")
    if any(part.count("{") > 1 for part in text.split("/")):
        # Where one ends and the next begins would be a guess, and a slow one for hostile texts.
        raise ValueError("only one variable may stand between two slashes")
    return names
