"""How the destination patterns of access rules read."""

from __future__ import annotations

import re

import pytest

from stompbridge.auth.patterns import Bound, Space, Wild, matches, parse, topic_words

ONE, MANY = Wild.ONE, Wild.MANY


def bound(text: str, user: str | None = "u") -> list[tuple[Space, tuple[object, ...], tuple[object, ...]]]:
    patterns = (pattern.bind(user) for pattern in parse(text))
    return [(pattern.space, pattern.words, pattern.name) for pattern in patterns if pattern is not None]


@pytest.mark.parametrize(
    ("text", "words", "name"),
    [
        ("/topic/a.*.#", ("a", ONE, MANY), ("amq", "topic")),
        ("/topic/**", (MANY,), ("amq", "topic")),
        ("/topic/a..b.", ("a", "", "b", ""), ("amq", "topic")),
        ("/topic/a%2Fb%2fc", ("a/b%2fc",), ("amq", "topic")),
        ("/exchange/e", (), ("e",)),
        ("/exchange/e/", (), ("e",)),
        ("/exchange/a.b/#", (MANY,), ("a", "b")),
        ("/exchange/a.*/k", ("k",), ("a", ONE)),
        ("/exchange/**", (MANY,), (MANY,)),
        ("/exchange/**/k", ("k",), (MANY,)),
        ("/exchange/{user}/x-{user}-{user}.#", ("x-u-u", MANY), ("u",)),
    ],
)
def test_exchanges(text: str, words: tuple[object, ...], name: tuple[object, ...]) -> None:
    assert bound(text) == [("exchange", words, name)]


@pytest.mark.parametrize(
    ("text", "space", "words"),
    [
        ("/queue/a.#", "queue", ("a", MANY)),
        ("/queue/{user}", "queue", ("u",)),
        ("/app/message/*", "app", ("message", ONE)),
        ("/app/a.b/**/c", "app", ("a.b", MANY, "c")),
        ("/app/a%2Fb", "app", ("a/b",)),
        ("/internal/a/b.*", "internal", ("a/b", ONE)),
        ("/internal/a%2Fb", "internal", ("a%2Fb",)),
        ("/internal/**", "internal", (MANY,)),
        ("/temp-queue/*", "temp-queue", (ONE,)),
    ],
)
def test_other_destinations(text: str, space: Space, words: tuple[object, ...]) -> None:
    assert bound(text) == [(space, words, ())]


@pytest.mark.parametrize(
    ("text", "path", "named"),
    [
        ("/user/queue/x.y", ("queue", "x", "y"), ("u", "queue", "x", "y")),
        ("/user/**", (MANY,), (MANY,)),
        ("/user/*/queue/**", (ONE, "queue", MANY), (ONE, "queue", MANY)),
        ("/user/{user}/queue/x", ("u", "queue", "x"), ("u", "queue", "x")),
        ("/user/j.doe/queue/x", ("j", "doe", "queue", "x"), ("j.doe", "queue", "x")),
        ("/user/notices", ("notices",), ("notices",)),
    ],
)
def test_users(text: str, path: tuple[object, ...], named: tuple[object, ...]) -> None:
    assert bound(text) == [("user", path, ()), ("user-of", named, ())]


def test_everything() -> None:
    spaces = [space for space, words, _ in bound("/**") if words == (MANY,)]
    assert spaces == ["exchange", "queue", "app", "internal", "temp-queue", "user", "user-of"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must start with"),
        ("topic", "must start with"),
        ("topic/a", "must start with"),
        ("/", "must start with"),
        ("/bogus/a", "must start with"),
        ("/Topic/a", "must start with"),
        ("/topic", "no pattern for /topic"),
        ("/topic/", "no pattern for /topic"),
        ("/topic/a/b", "a slash in it is written %2F"),
        ("/queue/a/b", "no pattern for /queue"),
        ("/exchange", "no pattern for /exchange"),
        ("/exchange//a", "no pattern for /exchange"),
        ("/exchange/e/a/b", "no pattern for /exchange"),
        ("/app", "must go on after /app/"),
        ("/app/", "must go on after /app/"),
        ("/internal/", "must go on after /internal/"),
        ("/user/", "must go on after /user/"),
        ("/temp-queue", "must go on after /temp-queue/"),
        ("/amq/queue/a", "is written /queue/NAME"),
        ("/reply-queue/a", "is written /queue/NAME"),
        ("/topic/a*", "has a wildcard in 'a*'"),
        ("/topic/a.**", "has a wildcard in '**'"),
        ("/topic/##", "has a wildcard in '##'"),
        ("/exchange/e*/k", "has a wildcard in 'e*'"),
        ("/app/#", "has a wildcard in '#'"),
        ("/app/a*/b", "has a wildcard in 'a*'"),
        ("/user/queue/#", "has a wildcard in '#'"),
        ("/user/queue/x.**", "has a wildcard in '**'"),
        ("/topic/{name}", "the only placeholder is {user}"),
        ("/topic/{user", "has a brace in '{user'"),
    ],
)
def test_what_is_no_pattern(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse(text)


@pytest.mark.parametrize("user", ["a.b", "", None])
@pytest.mark.parametrize(
    "text", ["/topic/{user}.x", "/queue/{user}", "/exchange/{user}/k", "/exchange/e/x-{user}", "/internal/{user}"]
)
def test_a_name_that_is_no_word_matches_nothing(text: str, user: str | None) -> None:
    assert bound(text, user) == []


def test_names_with_characters_that_mean_something() -> None:
    assert bound("/topic/{user}.#", "*") == [("exchange", ("*", MANY), ("amq", "topic"))]
    assert bound("/topic/{user}.#", "#") == [("exchange", ("#", MANY), ("amq", "topic"))]
    assert bound("/topic/{user}", "a/b%2F{user}") == [("exchange", ("a/b%2F{user}",), ("amq", "topic"))]
    assert bound("/app/{user}/x", "a.b/c") == [("app", ("a.b/c", "x"), ())]
    assert bound("/internal/{user}", "a/b") == []
    assert bound("/user/{user}/queue/x", "a.b") == [("user-of", ("a.b", "queue", "x"), ())]


@pytest.mark.parametrize("user", ["amq", "stompbridge", "stomp-subscription-x"])
@pytest.mark.parametrize("text", ["/queue/{user}", "/queue/{user}.#", "/exchange/{user}.topic/#"])
def test_a_name_is_no_way_to_the_brokers_own_queues(text: str, user: str) -> None:
    assert bound(text, user) == []
    assert bound("/topic/{user}.#", user) != []


def test_nobody_has_something_of_its_own() -> None:
    assert bound("/user/queue/x", None)[1] == ("user-of", ("", "queue", "x"), ())
    assert bound("/user/{user}/queue/x", None) == []


def test_personal() -> None:
    assert [pattern.personal for pattern in parse("/user/queue/x")] == [False, True]
    assert [pattern.personal for pattern in parse("/exchange/{user}/x")] == [True]
    assert [pattern.personal for pattern in parse("/topic/{user}.x")] == [True]
    assert not any(pattern.personal for pattern in parse("/**"))


def test_named() -> None:
    def named(text: str) -> bool:
        (pattern,) = (pattern.bind("u") for pattern in parse(text))
        assert isinstance(pattern, Bound)
        return pattern.named

    assert named("/queue/a.#")
    assert named("/exchange/a.*/#")
    assert not named("/queue/*")
    assert not named("/exchange/**")
    assert not named("/exchange/{user}/#")


def test_matches() -> None:
    assert matches((MANY, "a", MANY, MANY), ["x", "a"])
    assert matches((), [])
    assert not matches((ONE,), [])
    assert not matches(("a",), ["a", "b"])
    assert not matches((ONE, "b"), ["a", "c"])


def test_topic_words() -> None:
    assert topic_words("") == ()
    assert topic_words("a.*.#.b*") == ("a", ONE, MANY, "b*")
