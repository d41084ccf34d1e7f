"""Access rules as a session meets them: frames in, permission or ERROR out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest

from stompbridge.auth.acl import MAX_STEPS, Acl, Permissions, check_own_rules, problems, unruled
from stompbridge.auth.base import Identity
from stompbridge.config import AclRule, Action
from stompbridge.routing.destinations import Destination, parse, queue_spec, reply_queue
from stompbridge.stomp.errors import StompError

TYPES = {"amq.topic": "topic", "amq.direct": "direct", "news": "fanout", "amq.match": "headers", "chat": "topic"}
Headers = Mapping[str, str]
ALL: tuple[Action, ...] = ("subscribe", "send", "durable", "queue-name", "queue-arguments", "temp-queue")


def allow(
    *destinations: str, to: tuple[Action, ...] = ("subscribe", "send"), users: tuple[str, ...] = ("*",)
) -> AclRule:
    return AclRule(allow=to, destinations=destinations, users=users)


def deny(
    *destinations: str, to: tuple[Action, ...] = ("subscribe", "send"), users: tuple[str, ...] = ("*",)
) -> AclRule:
    return AclRule(deny=to, destinations=destinations, users=users)


def permissions(*rules: AclRule, user: str | None = "u", groups: tuple[str, ...] = ()) -> Permissions:
    identity = None if user is None else Identity(user, frozenset(groups))
    made = Acl(rules, TYPES.get).permissions(identity)
    assert made is not None
    return made


def refuses(
    check: Callable[[Destination, Mapping[str, str]], None], destination: Destination, headers: Headers
) -> bool:
    try:
        check(destination, headers)
    except StompError as error:
        if error.message != "access_refused":
            raise
        return True
    return False


def can_subscribe(given: Permissions, destination: str, **headers: str) -> bool:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    refused = refuses(given.check_subscribe, parse(destination, "SUBSCRIBE"), named)
    assert given.explain("subscribe", destination, named).allowed is not refused
    return not refused


def can_send(given: Permissions, destination: str, **headers: str) -> bool:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    refused = refuses(given.check_send, parse(destination, "SEND"), named)
    # From memory.
    assert refuses(given.check_send, parse(destination, "SEND"), named) is refused
    assert given.explain("send", destination, named).allowed is not refused
    return not refused


def test_the_error_is_that_of_rabbitmq() -> None:
    with pytest.raises(StompError) as info:
        permissions(allow("/topic/a")).check_send(parse("/topic/b", "SEND"), {})
    error = info.value
    assert (error.message, error.fatal) == ("access_refused", True)
    assert error.body == "ACCESS_REFUSED - access to destination '/topic/b' refused for user 'u'"
    with pytest.raises(StompError, match="refused for user ''"):
        permissions(allow("/topic/a"), user=None).check_subscribe(parse("/topic/b", "SUBSCRIBE"), {})


def test_without_rules_everything_is_allowed() -> None:
    assert Acl((), TYPES.get).permissions(Identity("u")) is None
    assert Acl((), TYPES.get).permissions(None) is None
    assert unruled("send", "/queue/x").allowed
    with pytest.raises(StompError):
        unruled("send", "/bogus/x")


def test_the_first_rule_that_fits_decides() -> None:
    given = permissions(
        allow("/topic/a.public"), deny("/topic/a.#", to=("subscribe",)), allow("/topic/#"), deny("/topic/b")
    )
    assert can_subscribe(given, "/topic/a.public")
    assert not can_subscribe(given, "/topic/a.b")
    assert can_send(given, "/topic/a.b")
    assert can_subscribe(given, "/topic/b")
    assert not can_subscribe(given, "/topic/#")
    assert can_subscribe(given, "/topic/b.#")
    assert not can_send(given, "/queue/b")


def test_one_rule_may_allow_and_deny() -> None:
    rule = AclRule(allow=("subscribe",), deny=("send",), destinations=("/topic/a",), users=("*",))
    given = permissions(rule, allow("/**"))
    assert can_subscribe(given, "/topic/a")
    assert not can_send(given, "/topic/a")
    assert can_send(given, "/topic/b")


def test_users_and_groups() -> None:
    rules = (
        allow("/topic/everybody"),
        allow("/topic/u", users=("u", "v")),
        AclRule(allow=("send",), destinations=("/topic/staff",), groups=("staff", "boss")),
    )
    topics = ("everybody", "u", "staff")

    def may_send_to(user: str | None, *groups: str) -> list[str]:
        given = permissions(*rules, user=user, groups=groups)
        return [topic for topic in topics if can_send(given, f"/topic/{topic}")]

    assert may_send_to("u") == ["everybody", "u"]
    assert may_send_to("w", "others", "staff") == ["everybody", "staff"]
    assert may_send_to("staff") == ["everybody"]
    assert may_send_to("*") == ["everybody"]
    assert may_send_to(None) == ["everybody"]


def test_forms_of_the_same_destination_are_one() -> None:
    topics = permissions(allow("/exchange/amq.topic/a.*"))
    assert can_subscribe(topics, "/topic/a.*")
    assert can_send(topics, "/topic/a.b")
    assert can_send(permissions(allow("/topic/a%2Fb")), "/exchange/amq.topic/a%2Fb")
    queues = permissions(allow("/queue/a%2Fb", "/queue/jobs.#"))
    for destination in ("/queue/a%2Fb", "/amq/queue/a%2Fb", "/reply-queue/a/b", "a%2Fb", "jobs", "/queue/jobs.x.y"):
        assert can_subscribe(queues, destination)
        assert can_send(queues, destination)
    assert not can_send(queues, "/queue/a%252Fb")
    denied = permissions(deny("/queue/secret"), allow("/**"))
    for destination in ("/queue/secret", "/amq/queue/secret", "/reply-queue/secret", "secret"):
        assert not can_subscribe(denied, destination)


def test_words_are_those_of_a_topic_exchange() -> None:
    given = permissions(allow("/topic/a.*"))
    assert can_send(given, "/topic/a.")
    assert can_send(given, "/topic/a.#")
    assert not can_send(given, "/topic/a")
    assert not can_send(given, "/topic/a.b.c")
    assert not can_subscribe(given, "/topic/a.#")
    assert can_subscribe(given, "/topic/a.*b")
    assert not can_subscribe(given, "/topic/#.*")
    assert can_subscribe(permissions(allow("/topic/#")), "/exchange/amq.topic")


def test_exchanges_by_pattern() -> None:
    given = permissions(allow("/exchange/chat.*/room.#"))
    assert can_subscribe(given, "/exchange/chat.a/room.*")
    assert not can_subscribe(given, "/exchange/chat/room.*")
    assert not can_subscribe(given, "/exchange/chat.a.b/room.*")
    assert not can_subscribe(given, "/exchange/chat.a")


@pytest.mark.parametrize("exchange", ["news", "amq.match"])
def test_an_exchange_that_looks_at_no_key_gives_all_or_nothing(exchange: str) -> None:
    by_key = permissions(allow(f"/exchange/{exchange}/a"))
    assert not can_subscribe(by_key, f"/exchange/{exchange}/a")
    assert can_send(by_key, f"/exchange/{exchange}/a")
    assert not can_send(by_key, f"/exchange/{exchange}/b")
    in_all = permissions(allow(f"/exchange/{exchange}/#"))
    assert can_subscribe(in_all, f"/exchange/{exchange}")
    assert can_subscribe(in_all, f"/exchange/{exchange}/a")
    but_one = permissions(deny(f"/exchange/{exchange}/secret"), allow("/**"))
    assert not can_subscribe(but_one, f"/exchange/{exchange}/a")


def test_a_direct_exchange_knows_no_wildcards() -> None:
    given = permissions(allow("/exchange/amq.direct/*"))
    assert can_subscribe(given, "/exchange/amq.direct/#")
    assert not can_subscribe(given, "/exchange/amq.direct/#.#")
    assert can_subscribe(permissions(allow("/exchange/e/*")), "/exchange/e/*")
    assert not can_subscribe(permissions(allow("/exchange/e/*")), "/exchange/e/#")


def test_application_destinations() -> None:
    given = permissions(allow("/app/message/*", "/app/{user}/**"), user="a.b/c")
    assert can_send(given, "/app/message/x.y")
    assert can_send(given, "/app/a.b%2Fc/x/y")
    assert can_send(given, "/app/a.b%2Fc")
    assert not can_send(given, "/app/message/x/y")
    assert not can_send(given, "/app/a.b/c/x")


def test_internal_destinations() -> None:
    given = permissions(allow("/internal/healthcheck", "/internal/a/b.*"))
    assert can_subscribe(given, "/internal/healthcheck")
    assert can_subscribe(given, "/internal/a/b.*")
    assert not can_subscribe(given, "/internal/#")
    assert not can_subscribe(given, "/internal/*")
    assert can_subscribe(permissions(allow("/internal/**")), "/internal/#")


def test_user_destinations() -> None:
    own = permissions(allow("/user/queue/**"))
    assert can_subscribe(own, "/user/queue/x")
    assert can_send(own, "/user/queue/x/y")
    assert can_send(own, "/user/u/queue/x")
    assert not can_send(own, "/user/v/queue/x")
    assert not can_subscribe(own, "/user/topic/x")

    given = permissions(deny("/user/j.doe/queue/secret"), allow("/user/*/queue/*"))
    assert can_send(given, "/user/v/queue/x")
    assert can_send(given, "/user/queue/x")
    assert can_send(given, "/user/j%2Edoe/queue/x")
    assert not can_send(given, "/user/j%2Edoe/queue/secret")
    assert not can_send(given, "/user/j.doe/queue/secret")
    assert not can_send(given, "/user/v/queue/x/y")
    assert not can_send(given, "/user/v/queue/x.y")
    assert can_send(permissions(allow("/user/**")), "/user/v/anything")
    assert can_subscribe(permissions(allow("/user/notices")), "/user/notices")


def test_a_user_called_queue_is_not_ones_own() -> None:
    given = permissions(deny("/user/{user}/queue/x"), allow("/user/*/queue/x"), user="queue")
    assert not can_send(given, "/user/queue/x")
    assert not can_send(given, "/user/%71ueue/queue/x")
    other = permissions(allow("/user/queue/**"), user="u")
    assert can_send(other, "/user/queue/queue/x")
    assert not can_send(other, "/user/%71ueue/queue/x")


def test_what_is_ones_own_is_not_remembered_for_others() -> None:
    acl = Acl([deny("/user/v/queue/x"), allow("/user/**")], TYPES.get)
    u, v = acl.permissions(Identity("u")), acl.permissions(Identity("v"))
    assert u is not None
    assert v is not None
    assert can_send(u, "/user/queue/x")
    assert not can_send(v, "/user/queue/x")
    nobody = acl.permissions(None)
    assert nobody is not None
    assert can_send(nobody, "/user/queue/x")
    assert not can_send(nobody, "/user/v/queue/x")
    assert nobody.explain("send", "/user/queue/x").text.startswith("send on /user/queue/x: allowed by rule 2")


def test_durable_is_a_grant_of_its_own() -> None:
    given = permissions(allow("/topic/#", "/queue/#"), allow("/topic/a.#", to=("durable",)))
    for header in ("durable", "persistent"):
        assert can_subscribe(given, "/topic/a.*", **{header: "true"})
        assert not can_subscribe(given, "/topic/*", **{header: " True "})
        with pytest.raises(StompError, match="Processing error"):
            can_subscribe(given, "/topic/b", **{header: "perhaps"})
        assert can_subscribe(given, "/topic/b", **{header: "false"})
        assert can_subscribe(given, "/queue/b", **{header: "true"})
        assert not can_subscribe(given, "/queue/b", **{header: "false"})
    for durable, persistent in (("true", "false"), ("false", "true")):
        headers = {"durable": durable, "persistent": persistent}
        spec = queue_spec(parse("/topic/b", "SUBSCRIBE"), headers, "0")
        assert can_subscribe(given, "/topic/b", **headers) == (spec is None)
    assert can_send(given, "/topic/b", persistent="true", durable="true")


def test_somebody_elses_queue_by_x_queue_name() -> None:
    given = permissions(
        allow("/topic/#", to=("subscribe", "queue-name")), allow("/queue/mine.#"), allow("/exchange/chat/#")
    )
    assert can_subscribe(given, "/topic/a", x_queue_name=" mine.1 ")
    assert not can_subscribe(given, "/topic/a", x_queue_name="theirs")
    assert can_subscribe(given, "/topic/a", x_queue_name=" ")
    assert not can_subscribe(given, "/exchange/chat/a", x_queue_name="mine.1")
    assert can_subscribe(given, "/queue/mine.1", x_queue_name="theirs")
    with pytest.raises(StompError, match="Processing error"):
        given.check_subscribe(parse("/topic/a", "SUBSCRIBE"), {"x-queue-name": "x" * 256})


def test_durable_subscriptions_of_others_need_queue() -> None:
    given = permissions(allow("/topic/#", to=("subscribe", "durable", "queue-name")))
    assert not can_subscribe(given, "/queue/stomp-subscription-yaT-i_4KOBjwokL44NB4aQ")
    assert not can_subscribe(given, "/topic/a", x_queue_name="stomp-subscription-yaT-i_4KOBjwokL44NB4aQ")


@pytest.mark.parametrize(
    "header", ["x-message-ttl", "x-expires", "x-max-length", "x-queue-type", "exclusive", "auto-delete", "x-max-age"]
)
def test_shaping_a_queue_is_a_grant_of_its_own(header: str) -> None:
    given = permissions(allow("/**"), allow("/topic/a", "/queue/a", to=("queue-arguments",)))
    assert can_subscribe(given, "/topic/a", **{header: "1"})
    assert not can_subscribe(given, "/topic/b", **{header: "1"})
    assert can_subscribe(given, "/queue/a", **{header: "1"})
    assert not can_subscribe(given, "/queue/b", **{header: "1"})
    assert can_send(given, "/queue/a", **{header: "1"})
    assert not can_send(given, "/queue/b", **{header: "1"})
    # Nothing is declared for these, and to other messages it is a header like any other.
    for destination in ("/amq/queue/b", "/user/queue/b"):
        assert can_subscribe(given, destination, **{header: "1"})
    for destination in ("/amq/queue/b", "/topic/b", "/app/b"):
        assert can_send(given, destination, **{header: "1"})


def test_a_queue_that_is_not_durable_is_shaped() -> None:
    given = permissions(allow("/**"))
    assert not can_send(given, "/queue/a", durable="false")
    assert can_send(given, "/queue/a", durable="true")
    assert can_send(given, "/queue/a", persistent="false")
    assert can_subscribe(given, "/queue/a", x_stream_offset="first", x_priority="9")


def test_dead_letters_go_where_their_sender_may_send() -> None:
    given = permissions(
        allow("/topic/#", "/queue/#", to=("subscribe", "queue-arguments")),
        allow("/queue/jobs.#", "/exchange/chat/a.*", "/exchange/all/#", to=("send", "queue-arguments")),
    )

    def dead_letters(exchange: str, *key: str) -> bool:
        headers = {"x_dead_letter_exchange": exchange, **dict(zip(["x_dead_letter_routing_key"], key, strict=False))}
        answer = can_subscribe(given, "/topic/x", **headers)
        assert can_subscribe(given, "/queue/x", **headers) == answer
        assert can_send(given, "/queue/jobs.1", **headers) == answer
        return answer

    assert dead_letters("chat", "a.b")
    assert dead_letters(" chat ", " a.b ")
    assert not dead_letters("chat", "b")
    assert not dead_letters("chat")
    assert dead_letters("all")
    assert dead_letters("", "jobs.1")
    assert not dead_letters("", "secret")
    assert not dead_letters("")
    assert not dead_letters("stompbridge.user", "u.queue.x")
    assert can_subscribe(given, "/topic/x", x_dead_letter_routing_key="secret")
    for name in ("x-dead-letter-exchange", "x-dead-letter-routing-key"):
        headers = {"x-dead-letter-exchange": "chat", "x-dead-letter-routing-key": "a.b"} | {name: "x" * 256}
        with pytest.raises(StompError, match="Processing error"):
            given.check_subscribe(parse("/topic/x", "SUBSCRIBE"), headers)


def test_temporary_queues_are_a_grant_of_their_own() -> None:
    given = permissions(allow("/queue/rpc"), allow("/temp-queue/mine/*", "/temp-queue/a", to=("temp-queue",)))
    assert can_send(given, "/queue/rpc", reply_to="/temp-queue/a")
    assert not can_send(given, "/queue/rpc", reply_to="/temp-queue/b")
    assert can_send(given, "/queue/rpc", reply_to="/temp-queue/mine/b")
    assert not can_send(given, "/queue/other", reply_to="/temp-queue/a")
    answerer = permissions(allow("/queue/stomp-subscription-reply.*", to=("send",)))
    assert can_send(answerer, f"/reply-queue/{reply_queue().name}")
    assert not can_send(answerer, "/reply-queue/stomp-subscription-yaT-i_4KOBjwokL44NB4aQ")
    for text in ("/queue/b", "amq.gen-x", "/temp-queue"):
        assert can_send(given, "/queue/rpc", reply_to=text)
    with pytest.raises(StompError, match="Processing error"):
        given.check_send(parse("/queue/rpc", "SEND"), {"reply-to": "/temp-queue/" + "x" * 256})


@pytest.mark.parametrize(
    "name", ["stompbridge", "stompbridge.n1.0a1b2c3d.chat", "stomp-subscription-stompbridge.n1.0a"]
)
def test_no_wildcard_opens_the_bridges_own_queues(name: str) -> None:
    destinations = [f"/queue/{name}", f"/amq/queue/{name}", f"/exchange/{name}/x"]
    everything = permissions(allow("/**"), allow("/queue/#", "/exchange/#/#", "/exchange/**"))
    named = permissions(allow("/queue/stompbridge.#", "/exchange/stompbridge.#/#"))
    named_too = permissions(allow("/queue/stomp-subscription-stompbridge.#"))
    denied = permissions(deny("/queue/#", "/exchange/#/#"), allow("/queue/stompbridge.#", "/exchange/stompbridge.#/#"))
    for destination in destinations:
        assert not can_subscribe(everything, destination)
        assert not can_send(everything, destination)
        assert not can_send(denied, destination)
    if name.startswith("stompbridge"):
        assert all(can_send(named, destination) for destination in destinations)
    else:
        assert can_send(named_too, destinations[0])


def test_a_name_is_one_word_of_a_key() -> None:
    rules = (allow("/topic/{user}.#", "/queue/inbox-{user}"),)
    given = permissions(*rules, user="alice")
    assert can_subscribe(given, "/topic/alice.#")
    assert not can_subscribe(given, "/topic/*.x")
    assert not can_subscribe(given, "/topic/#")
    assert can_send(given, "/queue/inbox-alice")
    for user in ("*", "#"):
        given = permissions(*rules, user=user)
        assert not can_subscribe(given, f"/topic/{user}.#")
        assert not can_subscribe(given, f"/topic/{user}.x")
        assert can_send(given, f"/topic/{user}.x")
        assert not can_send(given, "/topic/alice.x")
    given = permissions(*rules, user="alice.secret")
    assert not can_subscribe(given, "/topic/alice.secret.#")
    assert not can_subscribe(given, "/topic/alice.secret")
    assert not can_send(given, "/queue/inbox-alice.secret")
    assert can_send(permissions(*rules, user="a/b"), "/topic/a%2Fb.x")
    assert not can_send(permissions(*rules, user="a%2Fb"), "/topic/a%2Fb.x")


def test_users_with_the_same_rules_share_them() -> None:
    acl = Acl([allow("/topic/a.#"), allow("/topic/b", users=("u",))], TYPES.get)
    one, two, three = (acl.permissions(Identity(user)) for user in ("v", "w", "u"))
    assert one is not None
    assert two is not None
    assert three is not None
    assert not can_subscribe(one, "/topic/#")
    assert one.steps == two.steps > three.steps == 0
    assert can_send(three, "/topic/b")
    assert not can_send(two, "/topic/b")


def test_rules_that_came_with_the_identity() -> None:
    acl = Acl([allow("/topic/a")], TYPES.get)

    def of(*rules: AclRule) -> Permissions:
        made = acl.permissions(Identity("u", frozenset({"g"}), rules=rules))
        assert made is not None
        return made

    assert not can_send(of(), "/topic/a")
    given = of(
        AclRule(allow=("send",), destinations=("/topic/{user}",)), allow("/topic/v", users=("v",)), allow("/topic/w")
    )
    assert [can_send(given, f"/topic/{name}") for name in "auvw"] == [False, True, False, True]
    for _ in range(2):
        assert can_send(of(AclRule(allow=("send",), destinations=("/topic/b",), groups=("g",))), "/topic/b")
    with pytest.raises(ValueError, match=r"acl\[0\]"):
        of(allow("nonsense"))
    assert Acl((), TYPES.get).permissions(Identity("u", rules=())) is not None


def test_old_rules_and_destinations_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stompbridge.auth.acl._USERS", 2)
    monkeypatch.setattr("stompbridge.auth.acl._REMEMBERED", 2)
    acl = Acl([allow("/topic/{user}.#", "/exchange/e.#/#", "/queue/#")], TYPES.get)
    for user in ("a", "b", "c", "b"):
        given = acl.permissions(Identity(user, rules=(allow(f"/queue/{user}"),)))
        assert given is not None
        assert can_send(given, f"/queue/{user}")
        given = acl.permissions(Identity(user))
        assert given is not None
        for number in range(4):
            assert can_send(given, f"/topic/{user}.{number}")
            assert can_subscribe(given, f"/topic/{user}.{number}.*")
            assert can_subscribe(given, f"/exchange/e.{number}/#")
    assert len(acl._grants) <= 2
    assert len(acl._others) <= 2
    for grants in acl._grants.values():
        assert max(len(grants.sendable), len(grants._verdicts), len(grants._automata)) <= 2


def test_long_destinations_are_not_remembered() -> None:
    given = permissions(allow("/app/**"))
    assert can_send(given, "/app/" + "x/" * 10_000)
    assert not given._sendable


HOSTILE = ["#." * 127 + "#", "*." * 127 + "*", ("#.*.a." * 42)[:-1], "a." * 127 + "#", "#." * 126 + "b"]


def test_the_work_for_a_hostile_subscription_is_bounded() -> None:
    usual = [allow(f"/topic/room.{number}.#") for number in range(999)] + [allow("/topic/#.public")]
    given = permissions(deny("/topic/#.secret.#"), *usual)
    for key in HOSTILE:
        assert not can_subscribe(given, f"/topic/{key}")
    assert given.steps <= 1_500 * len(HOSTILE)
    steps = given.steps
    for key in HOSTILE:
        assert not can_subscribe(given, f"/topic/{key}")
    assert given.steps == steps

    strange = permissions(deny("/topic/#.a" + ".*" * 20), allow("/topic/#"))
    for key in HOSTILE:
        before = strange.steps
        strange.explain("subscribe", f"/topic/{key}")
        assert strange.steps <= before + MAX_STEPS + 1
    assert "10000 steps do not tell" in strange.explain("subscribe", "/topic/#.b").text
    assert can_send(strange, "/topic/" + "x." * 127 + "x")
    assert not can_send(strange, "/topic/" + "a." * 127 + "a")


def test_explanations() -> None:
    given = permissions(
        deny("/topic/room.secret.#"),
        allow("/topic/room.*"),
        AclRule(allow=("subscribe", "queue-arguments"), destinations=("/topic/room.#",), groups=("staff",)),
        groups=("staff",),
    )
    decision = given.explain("send", "/topic/room.7")
    assert (decision.allowed, decision.rule) == (True, 2)
    assert decision.text == (
        "send on /topic/room.7: allowed by "
        'rule 2 (allow = ["subscribe", "send"], destinations = ["/topic/room.*"], users = ["*"])'
    )
    decision = given.explain("subscribe", "/topic/room.*")
    assert (decision.allowed, decision.rule) == (False, 1)
    assert decision.text.startswith("subscribe on /topic/room.*: refused for /topic/room.secret by rule 1 (deny = ")
    decision = given.explain("subscribe", "/topic/#")
    assert (decision.allowed, decision.rule) == (False, None)
    assert decision.text == "subscribe on /topic/#: refused for /topic/, no rule fits"
    decision = given.explain("subscribe", "/topic/room.a.#", {"exclusive": "true"})
    assert (decision.allowed, decision.rule) == (True, 3)
    assert re.findall(r"(\S+) on .*?: allowed by rule 3", decision.text) == ["subscribe", "queue-arguments"]
    together = permissions(allow("/topic/a"), allow("/topic/a.*.#")).explain("subscribe", "/topic/a.#")
    assert re.findall(r"rule \d", together.text) == ["rule 1", "rule 2"]
    assert given.explain("send", "/app/a%2Fb").text == "send on /app/a%2Fb: refused, no rule fits"
    assert given.explain("subscribe", "/internal/a.b").text.startswith("subscribe on /internal/a.b: ")
    assert given.explain("subscribe", "/user/queue/x").text.startswith("subscribe on /user/queue/x: ")
    assert given.explain("send", "/user/v%2Fw/queue/x").text.startswith("send on /user/v%2Fw/queue/x: ")
    assert given.explain("send", "x").text.startswith("send on /queue/x: ")
    refused = permissions(allow("/**", to=ALL)).explain("send", "/queue/x", {"x-dead-letter-exchange": ""})
    assert refused.text.startswith("send refused: with an empty x-dead-letter-exchange")
    with pytest.raises(StompError, match="Unknown destination"):
        given.explain("send", "/bogus/x")


@pytest.mark.parametrize(
    ("rule", "key", "text"),
    [
        (AclRule(destinations=("/**",), users=("*",)), "acl[1].allow", "must name an action"),
        (
            AclRule(allow=("send",), deny=("send",), destinations=("/**",), users=("*",)),
            "acl[1].deny",
            'names "send", which allow names too',
        ),
        (AclRule(allow=("send",), destinations=("/**",)), "acl[1].users", "names nobody"),
        (AclRule(allow=("send",), destinations=("/**",), groups=("*",)), "acl[1].groups", "must name groups"),
        (allow(), "acl[1].destinations", "must hold a pattern"),
        (allow("/topic/a", "/topic/b*"), "acl[1].destinations[1]", "has a wildcard in 'b*'"),
        (allow("/topic/a", to=("temp-queue",)), "acl[1].destinations", 'need "/temp-queue/**"'),
    ],
)
def test_rules_that_make_no_sense(rule: AclRule, key: str, text: str) -> None:
    ((found, _, why),) = problems((allow("/**"), rule))
    assert found == key
    assert text in why
    with pytest.raises(ValueError, match=re.escape(key)):
        Acl((allow("/**"), rule), TYPES.get)


def test_rules_for_an_identity_are_checked() -> None:
    check_own_rules([AclRule(allow=("send",), destinations=("/**",))])
    with pytest.raises(ValueError, match=r'acl\[0\]\.destinations\[0\] = "topic": must start'):
        check_own_rules([allow("topic")])
