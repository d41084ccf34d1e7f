from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.brokers.base import QueueSpec
from stompbridge.routing.destinations import (
    Destination,
    Kind,
    own_queue,
    parse,
    prefetch,
    queue_spec,
    sent_queue,
    shown,
    stable_queue_name,
)
from stompbridge.stomp.errors import StompError


def queue(text: str, name: str, declare: bool = True) -> Destination:
    return Destination(Kind.QUEUE, text, "", name, name, declare)


def exchange(text: str, name: str, key: str = "") -> Destination:
    return Destination(Kind.EXCHANGE, text, name, key)


VALID = [
    queue("foo", "foo"),
    queue("foo%2Fbar", "foo/bar"),
    queue("/queue/foo", "foo"),
    queue("/queue/a%2Fb%25", "a/b%25"),
    queue("/queue/a%2fb", "a%2fb"),
    queue("/queue/é a", "é a"),
    queue("/amq/queue/foo", "foo", declare=False),
    queue("/reply-queue/amq.gen-x/y/", "amq.gen-x/y/", declare=False),
    queue("/reply-queue//x", "/x", declare=False),
    exchange("/topic/a.*.#", "amq.topic", "a.*.#"),
    exchange("/topic/a%2Fb", "amq.topic", "a/b"),
    exchange("/exchange/chat", "chat"),
    exchange("/exchange/chat/", "chat"),
    exchange("/exchange/chat.exchange/roomId.7", "chat.exchange", "roomId.7"),
    exchange("/exchange/a%2Fb/c%2Fd", "a/b", "c/d"),
]


@pytest.mark.parametrize("expected", VALID, ids=lambda dest: dest.text)
@pytest.mark.parametrize("command", ["SEND", "SUBSCRIBE"])
def test_valid(expected: Destination, command: Any) -> None:
    assert parse(expected.text, command) == expected


def test_served_in_one_direction() -> None:
    assert parse("/app/message/7", "SEND") == Destination(Kind.APP, "/app/message/7")
    assert parse("/internal/healthcheck", "SUBSCRIBE") == Destination(
        Kind.INTERNAL, "/internal/healthcheck", key="healthcheck"
    )


def refusal(text: str, command: Any = "SEND") -> tuple[str, str]:
    with pytest.raises(StompError) as caught:
        parse(text, command)
    assert not caught.value.fatal
    return caught.value.message, caught.value.body


@pytest.mark.parametrize(
    ("text", "rest", "kind"),
    [
        ("/queue/a/b", "/a/b", "queue"),
        ("/queue/", "/", "queue"),
        ("/queue", "", "queue"),
        ("/topic/a/b", "/a/b", "topic"),
        ("/topic", "", "topic"),
        ("/exchange", "", "exchange"),
        ("/exchange/", "/", "exchange"),
        ("/exchange//k", "//k", "exchange"),
        ("/exchange/amq.direct/a/b", "/amq.direct/a/b", "exchange"),
        ("/amq/queue", "", "amqqueue"),
        ("/amq/queue/a/b", "/a/b", "amqqueue"),
        ("/reply-queue/", "/", "reply_queue"),
        ("/temp-queue", "", "temp_queue"),
        ("/temp-queue/a/b", "/a/b", "temp_queue"),
        ("/app", "", "app"),
        ("/app/", "/", "app"),
        ("/internal/", "/", "internal"),
    ],
)
def test_malformed(text: str, rest: str, kind: str) -> None:
    assert refusal(text) == ("Invalid destination", f"'{rest}' is not a valid {kind} destination\n")


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/temp-queue/x", "SEND"),
        ("/temp-queue/x", "SUBSCRIBE"),
        ("/app/x", "SUBSCRIBE"),
        ("/internal/x", "SEND"),
    ],
)
def test_wrong_command(text: str, command: str) -> None:
    assert refusal(text, command) == (
        "Invalid destination",
        f"'{text}' is not a valid destination for '{command}'\n",
    )


@pytest.mark.parametrize(
    "text", ["/", "/foo/bar", "/Queue/foo", "/amq", "/amq/foo", "/reply-queue", "queue/foo", "foo/", "//queue/a", "/ "]
)
def test_unknown(text: str) -> None:
    message, body = refusal(text)
    assert message == "Unknown destination"
    assert body.startswith(f"'{text}' is not a valid destination.\nValid destination types are: /")


def test_blank() -> None:
    assert refusal("") == ("Invalid destination", "Destination cannot be blank")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("q" * 256, "the queue's name"),
        ("/queue/" + "é" * 128, "the queue's name"),
        ("/amq/queue/" + "q" * 600, "the queue's name"),
        ("/exchange/" + "e" * 256, "the exchange's name"),
        ("/exchange/e/" + "k" * 256, "the routing key"),
        ("/internal/" + "k" * 256, "the destination"),
    ],
)
def test_too_long(text: str, what: str) -> None:
    command = "SUBSCRIBE" if text.startswith("/internal") else "SEND"
    assert refusal(text, command) == ("Processing error", f"{what} is longer than 255 bytes\n")


def test_long_texts_of_short_names() -> None:
    name = "/".join("a" * 127)
    assert parse("/queue/" + name.replace("/", "%2F"), "SEND").queue == name


@pytest.mark.parametrize(
    ("name", "key", "text"),
    [
        ("", "foo", "/queue/foo"),
        ("", "a/b%", "/queue/a%2Fb%25"),
        ("amq.topic", "a.b", "/topic/a.b"),
        ("amq.topic", "", "/topic/"),
        ("chat", "", "/exchange/chat"),
        ("chat", "roomId.7", "/exchange/chat/roomId.7"),
        ("a/b", "é x", "/exchange/a%2Fb/%C3%A9 x"),
        ("e", "\x00\x1f\x7f\x80", "/exchange/e/%00%1F\x7f%C2%80"),
        ("e", "k" * 600, "/exchange/e/" + "k" * 600),
    ],
)
def test_shown(name: str, key: str, text: str) -> None:
    assert shown(name, key) == text


def meaning(text: str, command: Any) -> Destination | StompError:
    try:
        return parse(text, command)
    except StompError as error:
        return error


@given(
    st.lists(st.sampled_from(["", "/", "queue", "topic", "exchange", "amq", "app", "é", "%2F"]) | st.text(max_size=5)),
    st.sampled_from(["SEND", "SUBSCRIBE"]),
)
def test_any_text_has_a_meaning_or_a_documented_error(parts: list[str], command: Any) -> None:
    text = "".join(parts)
    found = meaning(text, command)
    if isinstance(found, StompError):
        assert not found.fatal
        assert found.body
    else:
        assert found.text == text


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="%"), min_size=1))
def test_shown_leads_back(key: str) -> None:
    if len(key) <= 255:
        assert parse(shown("chat", key), "SEND").key == key
        assert parse(shown("", key), "SEND").queue == key


def subscribe(text: str, headers: dict[str, str], subscription_id: str | None = "s0") -> QueueSpec | None:
    return queue_spec(parse(text, "SUBSCRIBE"), headers, subscription_id)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (True, False, False)),
        ({"durable": "true"}, (True, False, False)),
        ({"persistent": "true"}, (True, False, False)),
        ({"durable": "false"}, (False, True, True)),
        ({"persistent": "false"}, (False, True, True)),
        ({"durable": "false", "auto-delete": "false"}, (False, False, True)),
        ({"durable": "false", "auto-delete": "false", "exclusive": "false"}, (False, False, False)),
        ({"auto-delete": "true"}, (True, True, False)),
        ({"exclusive": "true"}, (True, False, True)),
        ({"x-queue-name": "other"}, (True, False, False)),
    ],
)
def test_named_queue(headers: dict[str, str], expected: tuple[bool, bool, bool]) -> None:
    spec = subscribe("/queue/n", headers)
    assert spec is not None
    assert (spec.name, spec.declare, spec.bindings, spec.delete_on_failure) == ("n", True, (), False)
    assert (spec.durable, spec.auto_delete, spec.exclusive) == expected


def test_existing_queue() -> None:
    spec = subscribe("/amq/queue/n", {"durable": "false", "x-max-length": "5", "x-priority": "3"})
    assert spec == QueueSpec("n", declare=False, consumer_arguments={"x-priority": 3})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (True, False, False)),
        ({"persistent": "false"}, (True, False, False)),
        ({"persistent": "nonsense"}, (True, False, False)),
        ({"durable": "false"}, (False, True, True)),
        ({"durable": "true", "auto-delete": "true"}, (True, True, False)),
    ],
)
def test_sent_queue(headers: dict[str, str], expected: tuple[bool, bool, bool]) -> None:
    spec = sent_queue(parse("/queue/n", "SEND"), {**headers, "x-max-length": "5"})
    assert (spec.durable, spec.auto_delete, spec.exclusive) == expected
    assert spec.arguments == {"x-max-length": 5}


RANDOM = re.compile(r"stomp-subscription-[\w-]{22}")
STABLE = "stomp-subscription-yaT-i_4KOBjwokL44NB4aQ"


@pytest.mark.parametrize(
    ("headers", "name", "expected"),
    [
        ({}, RANDOM, (False, True, True)),
        ({"durable": "true"}, STABLE, (True, True, False)),
        ({"persistent": "true"}, STABLE, (True, True, False)),
        ({"durable": "true", "auto-delete": "false"}, STABLE, (True, False, False)),
        ({"durable": "false"}, RANDOM, (False, True, True)),
        ({"auto-delete": "false"}, RANDOM, (False, False, False)),
        ({"exclusive": "true"}, RANDOM, (False, True, True)),
        ({"exclusive": "false"}, RANDOM, (False, True, False)),
        ({"x-queue-name": " N "}, "N", (False, True, False)),
        ({"x-queue-name": "N", "durable": "true", "auto-delete": "false"}, "N", (True, False, False)),
        ({"x-queue-name": "N", "x-queue-type": "quorum"}, "N", (True, False, False)),
        ({"x-queue-type": "stream"}, RANDOM, (True, False, False)),
        ({"x-queue-type": "classic"}, RANDOM, (False, True, True)),
    ],
)
def test_own_queue(headers: dict[str, str], name: str | re.Pattern[str], expected: tuple[bool, bool, bool]) -> None:
    spec = own_queue(parse("/exchange/e/p2.t", "SUBSCRIBE"), headers, "s0")
    if isinstance(name, str):
        assert spec.name == name
    else:
        assert name.fullmatch(spec.name)
    assert (spec.durable, spec.auto_delete, spec.exclusive) == expected
    assert spec.bindings == (("e", "p2.t"),)
    assert spec.declare
    assert spec.delete_on_failure is (name is RANDOM)


def test_own_queues_have_different_names() -> None:
    dest = parse("/topic/t", "SUBSCRIBE")
    assert own_queue(dest, {}, None).name != own_queue(dest, {}, None).name


@pytest.mark.parametrize("headers", [{}, {"durable": "false"}, {"persistent": "false"}, {"prefetch-count": "5"}])
def test_no_queue_of_its_own(headers: dict[str, str]) -> None:
    assert subscribe("/topic/t", headers) is None
    assert subscribe("/internal/healthcheck", {"durable": "true"}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"durable": "true"},
        {"persistent": "true"},
        {"auto-delete": "true"},
        {"exclusive": "false"},
        {"x-queue-name": "q"},
        {"x-stream-offset": "first"},
        {"x-max-length": "10"},
        {"x-queue-type": "quorum"},
    ],
)
def test_a_queue_of_its_own(headers: dict[str, str]) -> None:
    spec = subscribe("/topic/t", headers)
    assert spec is not None
    assert spec.bindings == (("amq.topic", "t"),)


def test_durable_needs_id() -> None:
    with pytest.raises(StompError, match="Header 'id' is required for durable subscriptions"):
        subscribe("/topic/t", {"durable": "true"}, None)


@pytest.mark.parametrize(
    ("key", "subscription_id", "name"),
    [
        ("p2.t", "s0", STABLE),
        ("", "", "stomp-subscription-F5AIJl-Inmm3V-UVm8kWNA"),
        ("room.é", "sub 1", "stomp-subscription-429UYM4cu5fNTg2a8ROG0w"),
    ],
)
def test_stable_queue_name(key: str, subscription_id: str, name: str) -> None:
    assert stable_queue_name(key, subscription_id) == name


def test_arguments() -> None:
    spec = subscribe(
        "/queue/n",
        {
            "x-message-ttl": " 60000 ",
            "x-expires": "1",
            "x-max-length": "2",
            "x-max-length-bytes": "3",
            "x-max-priority": "4",
            "x-stream-max-segment-size-bytes": "5",
            "x-stream-filter-size-bytes": "6",
            "x-dead-letter-exchange": " dlx ",
            "x-dead-letter-routing-key": "k",
            "x-queue-type": "stream",
            "x-max-age": "1D",
            "x-overflow": "reject-publish",
            "x-stream-offset": "last",
            "x-stream-filter": "a, b",
            "x-stream-match-unfiltered": "true",
            "x-priority": "-5",
        },
    )
    assert spec is not None
    assert spec.arguments == {
        "x-message-ttl": 60000,
        "x-expires": 1,
        "x-max-length": 2,
        "x-max-length-bytes": 3,
        "x-max-priority": 4,
        "x-stream-max-segment-size-bytes": 5,
        "x-stream-filter-size-bytes": 6,
        "x-dead-letter-exchange": "dlx",
        "x-dead-letter-routing-key": "k",
        "x-queue-type": "stream",
        "x-max-age": "1D",
    }
    assert spec.consumer_arguments == {
        "x-stream-offset": "last",
        "x-stream-filter": ["a", "b"],
        "x-stream-match-unfiltered": True,
        "x-priority": -5,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("first", "first"),
        ("next", "next"),
        ("offset=42", 42),
        ("timestamp=1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
    ],
)
def test_stream_offset(text: str, value: object) -> None:
    spec = subscribe("/queue/n", {"x-stream-offset": text})
    assert spec is not None
    assert spec.consumer_arguments == {"x-stream-offset": value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("durable", "yes"),
        ("persistent", ""),
        ("auto-delete", "1"),
        ("exclusive", "x"),
        ("x-max-length", "many"),
        ("x-expires", str(2**63)),
        ("x-queue-name", "q" * 256),
        ("x-stream-offset", "offset=many"),
        ("x-stream-offset", "timestamp=-1"),
        ("x-stream-offset", "timestamp=99999999999999"),
        ("x-priority", "1000"),
    ],
)
def test_bad_values(name: str, value: str) -> None:
    dest = parse("/topic/t", "SUBSCRIBE")
    with pytest.raises(StompError) as caught:
        own_queue(dest, {name: value}, "s0")
    assert caught.value.message == "Processing error"
    assert name in caught.value.body
    assert not caught.value.fatal


def test_a_durable_subscription_has_an_id_of_bounded_length() -> None:
    with pytest.raises(StompError, match="the subscription's id is longer than 255 bytes"):
        subscribe("/topic/t", {"durable": "true"}, "i" * 70_000)


@pytest.mark.parametrize(("headers", "value"), [({}, None), ({"prefetch-count": "0"}, 0), ({"prefetch-count": "7"}, 7)])
def test_prefetch(headers: dict[str, str], value: int | None) -> None:
    assert prefetch(headers) == value


@pytest.mark.parametrize("value", ["-1", "65536", "x", ""])
def test_bad_prefetch(value: str) -> None:
    with pytest.raises(StompError, match="prefetch-count"):
        prefetch({"prefetch-count": value})
