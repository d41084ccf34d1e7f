from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.config import App, Route
from stompbridge.routing.application import Application, Routed
from stompbridge.stomp.errors import StompError

NOW = 1_700_000_000.1239


def app(
    destination: str = "/app/message/{roomId}",
    key: str = "roomId.{roomId}",
    stamp: dict[str, str] | None = None,
    persistent: bool = False,
) -> Application:
    route = Route(destination=destination, exchange="chat", routing_key=key, persistent=persistent, stamp=stamp or {})
    return Application(App(worker=3, route=(route,)), clock=lambda: NOW)


def apply(application: Application, destination: str = "/app/message/7", body: bytes = b"{}") -> Routed:
    return application.apply(destination, body, "session-1", 5)


def test_chat_route() -> None:
    stamp = {"roomId": "{roomId:int}", "senderSessionId": "{session}", "seq": "{snowflake}", "n": "{sequence}"}
    routed = apply(app(stamp=stamp, persistent=True), body=b'{"senderName":"A","seq":1,"message":"hi"}')
    snowflake = (1_700_000_000_123 - 1_288_834_974_657) << 22 | 3 << 12
    assert routed == Routed(
        "chat",
        "roomId.7",
        b'{"senderName":"A","seq":%d,"message":"hi","roomId":7,"senderSessionId":"session-1","n":5}' % snowflake,
        True,
    )


def test_members_pass_byte_for_byte() -> None:
    body = '{"a":1.10,"b":123456789012345678901234567890,"c":{ "d" : [ 1 , 2 ] },"é":"\\u00e9é"}'.encode()
    routed = apply(app(stamp={"x": "1"}), body=body)
    assert routed.body == body[:-1] + b',"x":"1"}'


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{roomId}", "7"),
        ("{roomId:int}", 7),
        ("room {roomId:int}!", "room 7!"),
        ("{sequence}", 5),
        ("{sequence}/{roomId}", "5/7"),
        ("{session}", "session-1"),
        ("{now}", "2023-11-14T22:13:20.123Z"),
        ("at {now}", "at 2023-11-14T22:13:20.123Z"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_templates(template: str, value: object) -> None:
    assert json.loads(apply(app(stamp={"m": template})).body) == {"m": value}


def test_one_snowflake_a_message() -> None:
    application = app(key="k.{snowflake}", stamp={"a": "{snowflake}", "b": "{snowflake}"})
    first, second = apply(application), apply(application)
    members = json.loads(first.body)
    assert members["a"] == members["b"]
    assert first.key == f"k.{members['a']}"
    assert json.loads(second.body)["a"] == members["a"] + 1


@pytest.mark.parametrize("text", ["007", "-7", "+7"])
def test_integers_are_normalised_where_they_are_typed(text: str) -> None:
    routed = apply(app(key="{roomId}.{roomId:int}", stamp={"m": "{roomId:int}"}), f"/app/message/{text}")
    assert routed.key == f"{text}.{int(text)}"
    assert json.loads(routed.body) == {"m": int(text)}


def test_variables() -> None:
    application = app("/app/{a}/x-{b}/{c}", "{c}.{b}.{a}")
    assert apply(application, "/app/1/x-2/%2F").key == "/.2.1"
    for text in ("/app/1/2/3", "/app/1/x-2", "/app/1/x-/3", "/app/1/x-2/3/", "/app/1/x-2/3/4", "app/1/x-2/3"):
        assert application.route(text) is None


def test_the_first_rule_counts() -> None:
    routes = tuple(
        Route(destination=destination, exchange=exchange, routing_key="")
        for destination, exchange in [("/app/a.c", "literal"), ("/app/{x}", "first"), ("/app/b", "second")]
    )
    application = Application(App(route=routes))
    assert apply(application, "/app/a.c").exchange == "literal"
    assert apply(application, "/app/abc").exchange == "first"
    assert apply(application, "/app/b").exchange == "first"


def refusal(application: Application, destination: str = "/app/message/7", body: bytes = b"{}") -> tuple[str, str]:
    with pytest.raises(StompError) as caught:
        apply(application, destination, body)
    assert not caught.value.fatal
    return caught.value.message, caught.value.body


def test_no_route() -> None:
    assert refusal(Application(App()), "/app/x") == (
        "Unknown destination",
        "'/app/x' is not a valid destination.\nNo app route matches it.\n",
    )


@pytest.mark.parametrize("text", ["x", "1.5", "9" * 30])
@pytest.mark.parametrize(
    "application",
    [app(stamp={"m": "{roomId:int}"}), app(key="{roomId:int}"), app("/app/message/{roomId:int}")],
    ids=["stamp", "key", "destination"],
)
def test_not_an_integer(application: Application, text: str) -> None:
    message, body = refusal(application, f"/app/message/{text}")
    assert message == "Processing error"
    assert body.startswith("'roomId' in the destination must be an integer")


@pytest.mark.parametrize("text", ["a.b", "*", "#", "."])
def test_variables_stay_in_their_place(text: str) -> None:
    assert refusal(app(), f"/app/message/{text}") == (
        "Processing error",
        "'roomId' in the destination may not contain '.', '*' or '#'\n",
    )
    assert apply(app(key="all"), f"/app/message/{text}").key == "all"


def test_the_servers_own_values_may_have_dots() -> None:
    assert app(key="from.{session}").apply("/app/message/7", b"", "node.1", 0).key == "from.node.1"


def test_long_key() -> None:
    assert refusal(app(), "/app/message/" + "7" * 250) == (
        "Processing error",
        "the routing key is longer than 255 bytes\n",
    )


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b'"x"', "Expected `object`, got `str`"),
        (b'{"a":}', "JSON is malformed"),
        (b'{"a":1}x', "JSON is malformed"),
        (b'{"a":NaN}', "JSON is malformed"),
        (b'{"a":"\xff"}', "it is not UTF-8"),
        (b'{"a":' + b"[" * 100_000, "it is nested too deeply"),
    ],
)
def test_no_json_object(body: bytes, detail: str) -> None:
    message, text = refusal(app(stamp={"m": "x"}), body=body)
    assert message == "Invalid body"
    assert text.startswith(f"The body must be a JSON object: {detail}")


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,1e.-\\u nul', max_size=20).map(str.encode))
def test_any_body_is_stamped_or_refused(body: bytes) -> None:
    try:
        routed = apply(app(stamp={"m": "x"}), body=body)
    except StompError:
        return
    assert json.loads(routed.body) == {**json.loads(body), "m": "x"}


def test_without_stamps_the_body_is_untouched() -> None:
    assert apply(app(), body=b"\xff no json").body == b"\xff no json"


@pytest.mark.parametrize(
    ("application", "problem"),
    [
        (("/topic/{x}", "k", "v"), "must begin with '/app/'"),
        (("/app/", "k", "v"), "must begin with '/app/'"),
        (("/app/{x}/{x}", "k", "v"), "variable 'x' stands twice"),
        (("/app/{session}", "k", "v"), "'session' is the name of a built-in value"),
        (("/app/{x}{y}", "k", "v"), "only one variable may stand between two slashes"),
        (("/app/{x}-{y}", "k", "v"), "only one variable may stand between two slashes"),
        (("/app/{x", "k", "v"), "a brace without its partner in '/app/{x'"),
        (("/app/{x}", "k}", "v"), "a brace without its partner in 'k}'"),
        (("/app/{x}", "k", "{{x}}"), "a brace without its partner"),
        (("/app/{}", "k", "v"), "'{}' is not a placeholder"),
        (("/app/{x y}", "k", "v"), "'{x y}' is not a placeholder"),
        (("/app/{é}", "k", "v"), "'{é}' is not a placeholder"),
        (("/app/{x}", "{y}", "v"), "'y' is not a variable"),
        (("/app/{x}", "k", "{room:int}"), "'room' is not a variable"),
        (("/app/{x}", "k", "{x:float}"), "'{x:float}': the only type is int"),
        (("/app/{x}", "k", "{session:int}"), "'{session:int}': the only type is int"),
        (("/app/{x}", "{now}", "v"), "{now} has a dot"),
    ],
)
def test_bad_rules(application: tuple[str, str, str], problem: str) -> None:
    destination, key, stamp = application
    with pytest.raises(ValueError, match=r"app\.route number 1") as caught:
        app(destination, key, {"m": stamp})
    assert f"('{destination}')" in str(caught.value)
    assert problem in str(caught.value)


def test_the_systems_clock() -> None:
    route = Route(destination="/app/x", exchange="e", routing_key="k", stamp={"m": "{now}"})
    assert json.loads(apply(Application(App(route=(route,))), "/app/x").body)["m"].endswith("Z")
