"""Whatever the rules and whoever the user: what is accepted is what a plain reading of the rules allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from hypothesis import assume, example, given
from hypothesis import strategies as st

from stompbridge.auth.acl import Acl, Permissions
from stompbridge.auth.base import Identity
from stompbridge.auth.grants import needs
from stompbridge.brokers.topics import TopicTrie
from stompbridge.config import AclRule
from stompbridge.routing.destinations import own_queue, parse, queue_spec, sent_queue
from stompbridge.stomp.errors import StompError

Rules = list[tuple[str, bool]]
"""Keys of ``/topic``, and whether they are allowed."""

words = st.sampled_from(["a", "b", "*", "#", "{user}", "x-{user}"])
templates = st.lists(words, min_size=1, max_size=3).map(".".join)
rule_lists = st.lists(st.tuples(templates, st.booleans()), max_size=4)
users = st.one_of(
    st.sampled_from(["u", "*", "#", "a", "u.a", "**", "{user}"]), st.text("ab.*#/%{}", min_size=1, max_size=4)
)
LONGEST = 5


def permissions(rules: Rules, prefix: str, user: str) -> Permissions:
    made = Acl(
        [
            AclRule(
                allow=("subscribe", "send") if allow else (),
                deny=() if allow else ("subscribe", "send"),
                destinations=(prefix + template,),
                users=("*",),
            )
            for template, allow in rules
        ],
        {"amq.topic": "topic"}.get,
    ).permissions(Identity(user, rules=None if rules else ()))
    assert made is not None
    return made


def fits(template: Sequence[str], key: Sequence[str], user: str) -> bool:
    """The definition. The user's name is one word, or part of one."""
    if not template:
        return not key
    first, rest = template[0], template[1:]
    if first == "#":
        return fits(rest, key, user) or (bool(key) and fits(template, key[1:], user))
    if not key:
        return False
    if "{user}" in first:
        if "." in user or key[0] != first.replace("{user}", user):
            return False
    elif first not in ("*", key[0]):
        return False
    return fits(rest, key[1:], user)


def is_allowed(rules: Rules, key: Sequence[str], user: str) -> bool:
    return next((allow for template, allow in rules if fits(template.split("."), key, user)), False)


def accepts(given: Permissions, command: str, destination: str) -> bool:
    try:
        if command == "SEND":
            given.check_send(parse(destination, "SEND"), {})
        else:
            given.check_subscribe(parse(destination, "SUBSCRIBE"), {})
    except StompError as error:
        if error.message != "access_refused":
            raise
        return False
    return True


def matched(pattern: str, alphabet: Sequence[str]) -> list[tuple[str, ...]]:
    """The short keys that a topic exchange would match."""
    trie: TopicTrie[list[None]] = TopicTrie(list)
    trie.node(pattern)
    keys = (key for length in range(LONGEST + 1) for key in product(alphabet, repeat=length))
    # An empty key is no words; that of one empty word is the same text.
    return [key for key in keys if trie.match(".".join(key))]


@given(rule_lists, users, st.lists(st.sampled_from(["a", "b", "*", "#", "{user}"]), min_size=1, max_size=3))
@example([("{user}.#", True)], "*", ["*", "a"])
@example([("{user}.#", True)], "#", ["#"])
@example([("a.{user}", False), ("#", True)], "a.b", ["a", "*"])
def test_a_subscription_is_accepted_if_and_only_if_all_its_keys_are_allowed(
    rules: Rules, user: str, pattern: list[str]
) -> None:
    text = ".".join(pattern).replace("{user}", user)
    assume("%2F" not in text)
    named = {word.replace("{user}", user) for template, _ in rules for word in template.split(".")} | set(
        text.split(".")
    )
    alphabet = sorted(word for word in named if "." not in word and word not in ("*", "#", user))
    keys = matched(text, [*alphabet, "other", *([user] if "." not in user else ())])
    # A name in the pattern can hold any literal words; a key that is only that pattern's own has to be there, too.
    keys.append(tuple(re.sub(r"(?<![^.])[*#](?![^.])", "other", text).split(".")))
    forbidden = [key for key in keys if not is_allowed(rules, key, user)]
    accepted = accepts(permissions(rules, "/topic/", user), "SUBSCRIBE", "/topic/" + text.replace("/", "%2F"))
    assert accepted == (not forbidden), forbidden[:3]


@given(rule_lists, users, st.lists(st.sampled_from(["a", "b", "", "*", "#", "{user}", "x-{user}"]), max_size=4))
def test_a_send_is_accepted_if_and_only_if_its_key_is_allowed(rules: Rules, user: str, key: list[str]) -> None:
    text = ".".join(key).replace("{user}", user)
    assume("%2F" not in text)
    assume(text)
    encoded = text.replace("/", "%2F")
    expected = is_allowed(rules, text.split("."), user)
    assert accepts(permissions(rules, "/topic/", user), "SEND", "/topic/" + encoded) == expected
    assert accepts(permissions(rules, "/exchange/amq.topic/", user), "SEND", "/topic/" + encoded) == expected


TEMPLATES = [
    "/topic/{user}.#",
    "/topic/a.{user}.*",
    "/exchange/{user}/#",
    "/exchange/{user}.#/a",
    "/queue/{user}",
    "/queue/{user}.#",
    "/app/{user}/**",
    "/app/a/{user}",
    "/user/{user}/**",
    "/internal/{user}.#",
]


@given(
    st.sampled_from(TEMPLATES),
    users,
    st.sampled_from(
        ["/topic/", "/exchange/", "/queue/", "/amq/queue/", "/reply-queue/", "/app/", "/user/", "/internal/"]
    ),
    st.lists(st.sampled_from(["{user}", "{quoted}", "a", "b", ".", "/", "*", "#", "%2F"]), min_size=1, max_size=6),
)
def test_no_name_opens_more_than_its_own_word(template: str, user: str, prefix: str, parts: list[str]) -> None:
    quoted = "".join(f"%{ord(char):02X}" for char in user)
    text = prefix + "".join(parts).replace("{user}", user).replace("{quoted}", quoted)
    rule = AclRule(allow=("subscribe", "send"), destinations=(template,), users=("*",))
    given = Acl([rule], {"amq.topic": "topic"}.get).permissions(Identity(user))
    assert given is not None
    commands = ["SUBSCRIBE", "SEND"]
    for command in commands:
        try:
            destination = parse(text, "SEND" if command == "SEND" else "SUBSCRIBE")
            accepted = accepts(given, command, text)
        except StompError:
            continue
        if not accepted:
            continue
        kind, _, rest = template[1:].partition("/")
        if kind in ("topic", "exchange"):
            name, _, key = rest.partition("/") if kind == "exchange" else ("amq.topic", "", rest)
            assert fits(name.split("."), destination.exchange.split("."), user)
            assert fits(key.split("."), destination.key.split("."), user)
            if command == "SUBSCRIBE":
                # A wildcard in the place of the name would be the names of others.
                position = key.split(".").index("{user}") if "{user}" in key else -1
                assert position < 0 or destination.key.split(".")[position] not in ("*", "#")
        elif kind == "queue":
            assert fits(rest.split("."), destination.queue.split("."), user)
        elif kind == "internal":
            assert destination.key.split(".")[0] == user
        elif kind == "app":
            position = rest.split("/").index("{user}")
            assert text.split("/")[2:][position].replace("%2F", "/") == user
        elif command == "SEND":
            assert destination.user in ("", user)


BOOLEANS = st.sampled_from(["true", "false", " True ", "False"])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "durable": BOOLEANS,
        "persistent": BOOLEANS,
        "exclusive": BOOLEANS,
        "auto-delete": BOOLEANS,
        "x-queue-name": st.sampled_from(["", " ", "theirs", " theirs "]),
        "x-queue-type": st.sampled_from(["classic", "quorum"]),
        "x-message-ttl": st.just("1"),
        "x-dead-letter-exchange": st.sampled_from(["", "e"]),
        "x-stream-offset": st.just("first"),
        "x-priority": st.just("1"),
    },
)


@given(HEADERS, st.sampled_from(["/topic/a", "/exchange/e/a", "/queue/a", "/amq/queue/a", "/user/queue/a"]))
def test_no_header_of_a_subscribe_does_more_than_was_granted(headers: dict[str, str], text: str) -> None:
    destination = parse(text, "SUBSCRIBE")
    asked = [need.action for need in needs("subscribe", destination, headers, "u", {}.get)]
    spec, plain = queue_spec(destination, headers, "0"), queue_spec(destination, {}, "0")
    if spec is None:
        return
    plain = plain or own_queue(destination, {}, "0")
    if spec.name == "theirs":
        assert asked[asked.index("queue-name") + 1] == "subscribe"
    if spec.durable and not plain.durable:
        assert "durable" in asked or "x-queue-type" in headers
    if spec.arguments or (plain.durable and not spec.durable):
        assert "queue-arguments" in asked
    if "durable" not in asked and (spec.auto_delete, spec.exclusive) != (plain.auto_delete, plain.exclusive):
        assert "queue-arguments" in asked or "queue-name" in asked
    if "x-dead-letter-exchange" in spec.arguments:
        assert "send" in asked


@given(HEADERS, st.sampled_from(["/queue/a", "/amq/queue/a"]))
def test_no_header_of_a_send_does_more_than_was_granted(headers: dict[str, str], text: str) -> None:
    destination = parse(text, "SEND")
    asked = [need.action for need in needs("send", destination, headers, "u", {}.get)]
    spec, plain = sent_queue(destination, headers), sent_queue(destination, {})
    if replace(spec, consumer_arguments={}) != plain:
        assert "queue-arguments" in asked
    assert asked.count("send") == 1 + ("x-dead-letter-exchange" in spec.arguments)
