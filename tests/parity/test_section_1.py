"""Destinations: what they mean, and what is wrong with them."""

from __future__ import annotations

import itertools
from typing import Any

from tests.support.parity import BETTER, Peer, Target, equal, error, row, rows_test

INVALID = [
    ("/queue/a/b", "/a/b", "queue"),
    ("/queue/", "/", "queue"),
    ("/queue", "", "queue"),
    ("/queue//", "//", "queue"),
    ("/topic/", "/", "topic"),
    ("/topic", "", "topic"),
    ("/topic/a/b", "/a/b", "topic"),
    ("/exchange", "", "exchange"),
    ("/exchange/", "/", "exchange"),
    ("/exchange/amq.direct/a/b", "/amq.direct/a/b", "exchange"),
    ("/exchange//k", "//k", "exchange"),
    ("/temp-queue", "", "temp_queue"),
    ("/temp-queue/", "/", "temp_queue"),
    ("/temp-queue/a/b", "/a/b", "temp_queue"),
    ("/amq/queue", "", "amqqueue"),
    ("/amq/queue/", "/", "amqqueue"),
    ("/amq/queue/a/b", "/a/b", "amqqueue"),
]


@row(
    1,
    "destinations that do not fit their type",
    equal(
        [[error("Invalid destination", f"'{rest}' is not a valid {kind} destination\n")] for _, rest, kind in INVALID]
    ),
)
async def invalid(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried("SEND", {"destination": destination}) for destination, _, _ in INVALID]


@row(1, "the same of a SUBSCRIBE")
async def invalid_subscribe(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried("SUBSCRIBE", {"destination": text, "id": "s"}) for text, _, _ in INVALID]


@row(1, "an empty destination", equal([[error("Invalid destination", "Destination cannot be blank")]] * 2))
async def blank(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried(command, {"destination": "", "id": "s"}) for command in ("SEND", "SUBSCRIBE")]


@row(1, "no destination")
async def none_at_all(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried(command, {"id": "s"}) for command in ("SEND", "SUBSCRIBE")]


@row(
    1,
    "temporary queues belong in reply-to",
    equal(
        [
            [error("Invalid destination", f"'/temp-queue/x' is not a valid destination for '{command}'\n")]
            for command in ("SEND", "SUBSCRIBE")
        ]
    ),
)
async def temporary(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried(command, {"destination": "/temp-queue/x", "id": "s"}) for command in ("SEND", "SUBSCRIBE")]


UNKNOWN = ["/foo/bar", "/Queue/a", "/TOPIC/a", "/", "//", "/amq", "/amq/topic/x", "/replyqueue/x", " /queue/x"]


@row(1, "destinations of no known type")
async def unknown(target: Target) -> Any:
    peer = await target.connect()
    answers = [await peer.tried("SEND", {"destination": destination}) for destination in UNKNOWN]
    # The list of types that follows is each side's own.
    return [(command, headers, body.partition("\n")[0]) for ((command, headers, body),) in answers]


@row(
    1,
    "the types that the error names",
    BETTER(
        "there are more",
        theirs=["/temp-queue", "/exchange", "/topic", "/queue", "/amq/queue", "/reply-queue/"],
        ours=[
            "/temp-queue",
            "/exchange",
            "/topic",
            "/queue",
            "/amq/queue",
            "/reply-queue/",
            "/app",
            "/user",
            "/internal",
        ],
    ),
)
async def known_types(target: Target) -> Any:
    peer = await target.connect()
    ((_, _, body),) = await peer.tried("SEND", {"destination": "/foo/bar"})
    return body.splitlines()[1].removeprefix("Valid destination types are: ").removesuffix(".").split(", ")


async def _through(peer: Peer, subscribed: str, sent: str, body: str = "x", **more: str) -> Any:
    """One message from one destination to another, and the destination that it shows."""
    await peer.subscribe(subscribed, id="s")
    await peer.send(sent, body, **more)
    shown = await peer.show()
    await peer.unsubscribe("s")
    return shown


@row(1, "/queue/n and n")
async def queue(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    forms = (f"/queue/{name}", name)
    seen = [await _through(peer, one, other) for one, other in itertools.product(forms, forms)]
    return [*seen, await target.queue(name)]


@row(1, "a SEND alone declares a queue")
async def sent(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_and_wait(f"/queue/{target.name('a')}", "x")
    await peer.send_and_wait(target.name("b"), "x")
    return [await target.queue(target.name("a")), await target.queue(target.name("b"))]


@row(1, "/amq/queue/n declares nothing")
async def existing(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    seen: list[Any] = [
        await peer.tried("SEND", {"destination": f"/amq/queue/{name}"}, "lost"),
        await target.queue(name),
    ]
    await peer.send_and_wait(f"/queue/{name}", "first")
    await peer.subscribe(f"/amq/queue/{name}")
    seen.append(await peer.show())
    await peer.send(f"/amq/queue/{name}", "second")
    return [*seen, await peer.show(), await peer.seen()]


@row(
    1,
    "/amq/queue/n that is not there",
    equal([error("not_found", "NOT_FOUND - no queue '~q' in vhost '/'"), "closed"]),
)
async def absent(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_frame("SUBSCRIBE", {"destination": f"/amq/queue/{target.name('q')}", "id": "s"})
    return await peer.ending()


@row(1, "/topic/k")
async def topic(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("a.b.c")
    patterns = [key, key.replace(".b.", ".*."), f"{target.name()}.#", f"#.{key}", f"/{key}"]
    return [await _through(peer, f"/topic/{pattern}", f"/topic/{key}") for pattern in patterns[:-1]]


WILDCARDS = ["", "*", "*.*", "#", "a", "#.b", "a*", "#.#", "*.#.b"]
KEYS = ["", "a", "a.b", "a.b.b", "b", "a*", "*"]


@row(1, "wildcards stand for whole words")
async def wildcards(target: Target) -> Any:
    key = target.name("k")
    seen = []
    for pattern in WILDCARDS:
        peer = await target.connect()
        await peer.subscribe(f"/topic/{key}.{pattern}" if pattern else f"/topic/{key}")
        await peer.subscribe(f"/topic/{key}/end".replace("/end", "end"), id="end")
        for rest in KEYS:
            await peer.send_and_wait(f"/topic/{key}.{rest}" if rest else f"/topic/{key}", rest)
        await peer.send(f"/topic/{key}end", "end")
        # One channel, one sender: each queue keeps the order, and the last is through when the end is.
        got = []
        while (frame := await peer.message()).text != "end":
            got.append(frame.text)
        seen.append((pattern, sorted(got)))
    return seen


@row(1, "/topic and /exchange/amq.topic are one")
async def topic_exchange(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    forms = (f"/topic/{key}", f"/exchange/amq.topic/{key}")
    return [await _through(peer, one, other) for one, other in itertools.product(forms, forms)]


@row(1, "/exchange/e/k")
async def exchange(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    return [
        await _through(peer, f"/exchange/parity.topic/{key}", f"/exchange/parity.topic/{key}"),
        await _through(peer, f"/exchange/parity.direct/{key}", f"/exchange/parity.direct/{key}"),
        await _through(peer, f"/exchange/amq.direct/{key}", f"/exchange/amq.direct/{key}"),
    ]


@row(1, "/exchange/e without a key")
async def without_key(target: Target) -> Any:
    peer = await target.connect()
    channel = await target.channel()
    names = [target.name("topic"), target.name("fanout"), target.name("direct"), target.name("headers")]
    seen = []
    for name in names:
        await channel.exchange_declare(name, exchange_type=name.rpartition(".")[2])
        seen.append(await _through(peer, f"/exchange/{name}", f"/exchange/{name}"))
    fanout = f"/exchange/{names[1]}"
    return [*seen, await _through(peer, fanout, f"{fanout}/k"), await _through(peer, f"{fanout}/other", f"{fanout}/k")]


@row(1, "an exchange of another type")
async def other_type(target: Target) -> Any:
    peer = await target.connect()
    channel = await target.channel()
    name = target.name("headers")
    await channel.exchange_declare(name, exchange_type="headers")
    return await _through(peer, f"/exchange/{name}/k", f"/exchange/{name}/other", kind="x")


@row(
    1,
    "an exchange that is not there",
    equal([[error("not_found", "NOT_FOUND - no exchange '~e' in vhost '/'"), "closed"]] * 4),
)
async def no_exchange(target: Target) -> Any:
    seen = []
    for command in ("SEND", "SUBSCRIBE"):
        for key in ("", "/k"):
            peer = await target.connect()
            await peer.send_frame(command, {"destination": f"/exchange/{target.name('e')}{key}", "id": "s"})
            seen.append(await peer.ending())
    return seen


@row(1, "no queue is left behind where a subscription's exchange is not there")
async def nothing_left(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    headers = {"destination": f"/exchange/{target.name('e')}/k", "id": "s", "x-queue-name": queue}
    await peer.send_frame("SUBSCRIBE", headers)
    seen = await peer.ending()

    async def gone() -> bool:
        return await target.queue(queue) is None

    return [seen, await target.until(gone)]


@row(1, "/reply-queue/n takes the rest as it is")
async def reply_queue(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for name in (target.name("a"), target.name("a/b/c"), target.name("d%2Fe")):
        await target.declare(name.replace("%2F", "/"))
        await peer.subscribe(f"/reply-queue/{name}", id="s")
        await peer.send(f"/reply-queue/{name}", name)
        seen.append(await peer.show())
        await peer.unsubscribe("s")
    return seen


@row(1, "/reply-queue/n that is not there")
async def no_reply_queue(target: Target) -> Any:
    peer = await target.connect()
    seen = [await peer.tried("SEND", {"destination": f"/reply-queue/{target.name('q')}"}, "lost")]
    await peer.send_frame("SUBSCRIBE", {"destination": f"/reply-queue/{target.name('q')}", "id": "s"})
    return [*seen, await peer.ending()]


@row(1, "%2F, and nothing else, is decoded")
async def decoded(target: Target) -> Any:
    peer = await target.connect()
    names = ["a%2Fb", "a%2fb", "a%25b", "a%2Fb%25", "%2F", "a b", "é", "a%2F%2Fb"]
    seen: list[Any] = [
        await _through(peer, f"/queue/{target.name(name)}", f"/queue/{target.name(name)}") for name in names
    ]
    seen += [await target.queue(target.name(name)) is not None for name in ("a/b", "a%2fb", "a%25b", "a/b%25", "/")]
    for name in names:
        seen.append(await _through(peer, f"/topic/{target.name(name)}", f"/topic/{target.name(name)}"))
    return seen


@row(1, "how a message's destination is encoded")
async def encoded(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"/exchange/parity.topic/{key}.#")
    for rest in ("a/b", "a%b", "é", "tab\tx", "sp ace", "co:lon", "back\\slash", "del\x7f", "~tilde", "a\nb"):
        await target.publish("parity.topic", f"{key}.{rest}")
    return await peer.shows(10)


@row(1, "through the default exchange")
async def default_exchange(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("a/b")
    await target.declare(name)
    await peer.subscribe(f"/amq/queue/{name.replace('/', '%2F')}")
    await target.publish("", name)
    return await peer.show()


@row(1, "a message of another exchange in a queue shows where it came through")
async def bound_queue(target: Target) -> Any:
    peer = await target.connect()
    channel = await target.channel()
    name = target.name("q")
    await channel.queue_declare(name, auto_delete=True)
    for exchange_name in ("parity.topic", "amq.topic", "parity.fanout"):
        await channel.queue_bind(name, exchange_name, name)
    await peer.subscribe(f"/amq/queue/{name}")
    for destination in (f"/exchange/parity.topic/{name}", f"/topic/{name}"):
        await peer.send_and_wait(destination, "x")
    return await peer.shows(2)


@row(1, "what a name may have 255 bytes of")
async def long_names(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("n")
    longest = name + "x" * (255 - len(name))
    return [await _through(peer, f"/queue/{longest}", f"/queue/{longest}"), await _through(peer, longest, longest)]


@row(
    1,
    "a queue deleted after its first use gets what is sent later",
    BETTER("declared again", ours=["RECEIPT", "RECEIPT", 1], theirs=["RECEIPT", "RECEIPT", None]),
)
async def deleted_queue(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    first = await peer.send_and_wait(f"/queue/{name}", "x")
    await target.api(f"queues/%2F/{name}", "DELETE")
    second = await peer.send_and_wait(f"/queue/{name}", "y")
    queue = await target.queue(name)
    return [first.command, second.command, queue and queue["messages"]]


@row(
    1,
    "a queue deleted after its first use can be subscribed to",
    BETTER(
        "declared again",
        ours=[],
        theirs=[error("not_found", "NOT_FOUND - no queue '~q' in vhost '/'"), "closed"],
    ),
)
async def subscribed_again(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{name}")
    await peer.unsubscribe()
    await target.api(f"queues/%2F/{name}", "DELETE")
    answers = await peer.tried("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "again"})
    return [answer for answer in answers if answer[0] != "RECEIPT"]


@row(1, "a queue that this connection has used is not declared with other arguments")
async def used_before(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    destination = f"/queue/{name}"
    await peer.subscribe(destination, id="a", x_max_length="10")
    seen: list[Any] = [
        await peer.tried("SUBSCRIBE", {"destination": destination, "id": "b", "x-max-length": "20"}),
        await peer.tried("UNSUBSCRIBE", {"id": "b"}),
    ]
    for headers in ({}, {"durable": "false"}, {"x-max-length": "30"}):
        await peer.send_frame("SEND", {"destination": destination} | headers, "x")
        seen.append([await peer.show()])
    return [*seen, await peer.seen(), await target.queue(name)]


@row(1, "a queue that another connection has used is declared with this one's arguments")
async def used_elsewhere(target: Target) -> Any:
    name = target.name("q")
    first = await target.connect()
    await first.send_and_wait(f"/queue/{name}", "x")
    seen = []
    for command, argument in (("SEND", "x-max-length"), ("SUBSCRIBE", "x-message-ttl")):
        peer = await target.connect()
        await peer.send_frame(command, {"destination": f"/queue/{name}", "id": "s", argument: "20"})
        seen.append(await peer.ending())
    return [seen, await first.seen(), await target.queue(name)]


test_row = rows_test(__name__)
