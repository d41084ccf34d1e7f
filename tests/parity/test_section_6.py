"""ACK and NACK."""

from __future__ import annotations

from typing import Any

from tests.support.observing import left, make_queue, summaries, summary, without_cause
from tests.support.parity import BETTER, Peer, Target, equal, error, row, rows_test

EMPTY: list[Any] = []


async def _filled(target: Target, count: int, ack: str, **connect: str) -> tuple[Peer, str, list[Any]]:
    """A client that holds the messages 0, 1, … of a queue."""
    peer = await target.connect(**connect)
    queue = target.name("q")
    await peer.subscribe(f"/queue/{queue}", id="s", ack=ack)
    for number in range(count):
        await peer.send(f"/queue/{queue}", str(number))
    return peer, queue, await peer.messages(count)


def _identifier(frame: Any, version: str) -> dict[str, str]:
    if version == "1.2":
        return {"id": frame.ack}
    return {"message-id": frame.headers["message-id"], "subscription": "s"}


def _identified(version: str, header: str) -> None:
    @row(6, f"{version} names the message by {header}", equal([EMPTY, [("again", "1")]]))
    async def scenario(target: Target) -> Any:
        peer, queue, frames = await _filled(target, 2, "client-individual", version=version)
        seen = await peer.tried("ACK", _identifier(frames[0], version))
        peer.abort()
        return [seen, await left(target, queue)]

    @row(6, f"{version} knows NACK", equal([[("redelivered", "true"), ("body", "0")], [("again", "0")]]))
    async def refused(target: Target) -> Any:
        peer, queue, frames = await _filled(target, 1, "client", version=version)
        await peer.send_frame("NACK", _identifier(frames[0], version))
        again = await peer.message()
        peer.abort()
        return [[("redelivered", again.headers["redelivered"]), ("body", again.text)], await left(target, queue)]

    @row(
        6,
        f"{version} without {header}",
        equal(
            [[error("Missing header", f'"{name}" must include the "{header}" header\n')] for name in ("ACK", "NACK")]
        ),
    )
    async def missing(target: Target) -> Any:
        peer = await target.connect(version=version)
        other = {"message-id": "T_s@@x@@1"} if version == "1.2" else {"id": "T_s@@x@@1"}
        return [await peer.tried(command, other) for command in ("ACK", "NACK")]

    @row(
        6,
        f"{version} with a {header} of no message",
        equal(
            [
                [error("Invalid header", f'"{name}" must include a valid "{header}" header\n')]
                for name in ("ACK", "NACK")
            ]
        ),
    )
    async def invalid(target: Target) -> Any:
        peer = await target.connect(version=version)
        return [await peer.tried(command, {header: "nonsense"}) for command in ("ACK", "NACK")]


for _version, _header in (("1.0", "message-id"), ("1.1", "message-id"), ("1.2", "id")):
    _identified(_version, _header)


@row(6, "the subscription header of an ACK is ignored", equal([EMPTY, EMPTY]))
async def wrong_subscription(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 1, "client", version="1.1")
    seen = await peer.tried("ACK", {"message-id": frames[0].headers["message-id"], "subscription": "another"})
    peer.abort()
    return [seen, await left(target, queue)]


@row(
    6,
    "the session in an identifier",
    BETTER(
        "the identifier of another session's message acknowledges nothing here",
        theirs=[EMPTY, EMPTY],
        ours=[["ERROR precondition_failed", "closed"], [("again", "0")]],
    ),
)
async def other_session(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 1, "client-individual")
    tag, _, number = frames[0].ack.split("@@")
    seen = await peer.tried("ACK", {"id": f"{tag}@@session-of-before@@{number}"})
    peer.abort()
    return [summaries(seen), await left(target, queue)]


@row(
    6,
    "a subscription id with the separator in it",
    BETTER(
        "its messages can be acknowledged",
        theirs=[[error("Invalid header", '"ACK" must include a valid "id" header\n')], [("again", "x")]],
        ours=[EMPTY, EMPTY],
    ),
)
async def separator(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    await peer.subscribe(f"/queue/{queue}", id="a@@b", ack="client")
    await peer.send(f"/queue/{queue}", "x")
    frame = await peer.message()
    seen = await peer.tried("ACK", {"id": frame.ack})
    peer.abort()
    return [seen, await left(target, queue)]


@row(6, "client: cumulative", equal([EMPTY, [("again", "3")]]))
async def cumulative(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 4, "client")
    seen = await peer.tried("ACK", {"id": frames[2].ack})
    peer.abort()
    return [seen, await left(target, queue)]


@row(
    6,
    "client: cumulative over the whole connection",
    equal([EMPTY, [("again", "1")], [("again", "1")], [("again", "1")]]),
)
async def whole_connection(target: Target) -> Any:
    peer = await target.connect()
    queues = {id: target.name(id) for id in ("a", "b", "individual")}
    for id, queue in queues.items():
        await peer.subscribe(f"/queue/{queue}", id=id, ack="client-individual" if id == "individual" else "client")
    frames = []
    for number in range(2):
        # One at a time, so that the order of delivery is known.
        for queue in queues.values():
            await peer.send(f"/queue/{queue}", str(number))
            frames.append(await peer.message())
    seen = await peer.tried("ACK", {"id": frames[1].ack})
    # Left are the first of "individual", which came later, and the second of each.
    seen += await peer.tried("ACK", {"id": frames[2].ack})
    peer.abort()
    return [seen, *[await left(target, queue) for queue in queues.values()]]


@row(6, "client: takes along what client-individual holds", equal([EMPTY, EMPTY, EMPTY]))
async def takes_along(target: Target) -> Any:
    peer = await target.connect()
    one, two = target.name("one"), target.name("two")
    await peer.subscribe(f"/queue/{one}", id="one", ack="client-individual")
    await peer.subscribe(f"/queue/{two}", id="two", ack="client")
    await peer.send(f"/queue/{one}", "1")
    await peer.message("1")
    await peer.send(f"/queue/{two}", "2")
    seen = await peer.tried("ACK", {"id": (await peer.message("2")).ack})
    peer.abort()
    return [seen, await left(target, one), await left(target, two)]


@row(6, "client: over a queue and a topic", equal([["2", "3"], EMPTY]))
async def over_kinds(target: Target) -> Any:
    """The next messages of the topic come only if its first are acknowledged with the queue's."""
    peer = await target.connect()
    topic, queue = target.name("t"), target.name("q")
    await peer.subscribe(f"/topic/{topic}", id="t", ack="client", prefetch_count="2")
    await peer.subscribe(f"/queue/{queue}", id="q", ack="client", prefetch_count="2")
    for number in range(4):
        await peer.send(f"/topic/{topic}", str(number))
    await peer.messages(2)
    await peer.send(f"/queue/{queue}", "last")
    await peer.send_frame("ACK", {"id": (await peer.message("last")).ack})
    bodies = await peer.bodies(2)
    peer.abort()
    return [bodies, await left(target, queue)]


@row(6, "client-individual: one message", equal([EMPTY, [("again", "0"), ("again", "2")]]))
async def individual(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 3, "client-individual")
    seen = await peer.tried("ACK", {"id": frames[1].ack})
    peer.abort()
    return [seen, await left(target, queue)]


@row(6, "auto: nothing to acknowledge", equal([EMPTY, EMPTY]))
async def automatic(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 2, "auto")
    assert all("ack" not in frame.headers for frame in frames)
    seen = await peer.seen()
    peer.abort()
    return [seen, await left(target, queue)]


def _nacked(kind: str, ack: str, again: list[str]) -> None:
    @row(6, f"NACK of the second of three, {ack} on {kind}", equal([("true", body) for body in again]))
    async def scenario(target: Target) -> Any:
        peer = await target.connect()
        destination = f"/{kind}/{target.name('n')}"
        await peer.subscribe(destination, id="s", ack=ack)
        for number in range(3):
            await peer.send(destination, str(number))
        frames = await peer.messages(3)
        await peer.send_frame("NACK", {"id": frames[1].ack})
        return sorted([(frame.headers["redelivered"], frame.text) for frame in await peer.messages(len(again))])


for _kind in ("queue", "topic", "exchange/parity.direct"):
    _nacked(_kind, "client", ["0", "1"])
    _nacked(_kind, "client-individual", ["1"])


@row(6, "NACK without requeue discards", equal([EMPTY, [("again", "0"), ("again", "2")]]))
async def discarded(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 3, "client-individual")
    seen = await peer.tried("NACK", {"id": frames[1].ack, "requeue": "false"})
    peer.abort()
    return [seen, await left(target, queue)]


@row(6, "NACK without requeue of a topic's message", equal([EMPTY, "next"]))
async def discarded_topic(target: Target) -> Any:
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s", ack="client")
    await peer.send(topic, "first")
    seen = await peer.tried("NACK", {"id": (await peer.message("first")).ack, "requeue": "False"})
    await peer.send(topic, "next")
    return [seen, (await peer.message()).text]


@row(6, "NACK without requeue dead-letters", equal([("new", "x")]))
async def dead_lettered(target: Target) -> Any:
    dead = await make_queue(target, "dead")
    peer = await target.connect()
    queue = f"/queue/{target.name('q')}"
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    await peer.send_frame("SUBSCRIBE", {"destination": queue, "id": "s", "ack": "client"} | arguments)
    await peer.send_frame("SEND", {"destination": queue} | arguments, "x")
    await peer.send_frame("NACK", {"id": (await peer.message("x")).ack, "requeue": "false"})
    channel = await target.channel()

    async def arrived() -> bool:
        return bool((await channel.queue_declare(dead, passive=True)).message_count)

    await target.until(arrived)
    return await left(target, dead)


@row(6, "NACK with a requeue that is no boolean requeues", equal(["MESSAGE 0", [("again", "0")]]))
async def bad_requeue(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 1, "client")
    await peer.send_frame("NACK", {"id": frames[0].ack, "requeue": "perhaps"})
    seen = await peer.show()
    peer.abort()
    return [summary(seen), await left(target, queue)]


@row(
    6,
    "the body of a Processing error",
    BETTER(
        "it says what was wrong",
        theirs=[error("Processing error", "Processing error")],
        ours=[error("Processing error", "'id' must end with a number.\n")],
    ),
)
async def processing_error(target: Target) -> Any:
    peer = await target.connect()
    return await peer.tried("ACK", {"id": "T_s@@x@@one"})


@row(6, "an identifier without a number")
async def no_number(target: Target) -> Any:
    peer = await target.connect()
    return [without_cause(await peer.tried(command, {"id": "T_s@@x@@one"})) for command in ("ACK", "NACK")]


@row(
    6,
    "an identifier of no subscription",
    equal([[error("Subscription not found", 'Message with id "T_none@@x@@1" has no subscription')]] * 2),
)
async def unknown_subscription(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried(command, {"id": "T_none@@x@@1"}) for command in ("ACK", "NACK")]


@row(
    6,
    "ACK after UNSUBSCRIBE",
    equal(
        [[error("Subscription not found", 'Message with id "T_s@@SESSION@@N" has no subscription')], [("again", "0")]]
    ),
)
async def after_unsubscribe(target: Target) -> Any:
    peer, queue, frames = await _filled(target, 1, "client")
    await peer.unsubscribe("s")
    seen = await peer.tried("ACK", {"id": frames[0].ack})
    peer.abort()
    return [seen, await left(target, queue)]


UNKNOWN_TAG = [error("precondition_failed", "PRECONDITION_FAILED - unknown delivery tag N"), "closed"]


@row(6, "ACK of an unknown number", equal(UNKNOWN_TAG))
async def unknown_number(target: Target) -> Any:
    peer, _, frames = await _filled(target, 1, "client")
    await peer.send_frame("ACK", {"id": frames[0].ack + "00000"})
    return await peer.ending()


@row(6, "NACK of an unknown number", equal(UNKNOWN_TAG))
async def nack_unknown_number(target: Target) -> Any:
    peer, _, frames = await _filled(target, 1, "client")
    await peer.send_frame("NACK", {"id": frames[0].ack + "00000"})
    return await peer.ending()


@row(6, "a second ACK", equal(UNKNOWN_TAG))
async def second(target: Target) -> Any:
    peer, _, frames = await _filled(target, 2, "client-individual")
    for _ in range(2):
        await peer.send_frame("ACK", {"id": frames[0].ack})
    return await peer.ending()


@row(6, "an ACK of what a cumulative one took", equal(UNKNOWN_TAG))
async def taken_already(target: Target) -> Any:
    peer, _, frames = await _filled(target, 2, "client")
    for frame in reversed(frames):
        await peer.send_frame("ACK", {"id": frame.ack})
    return await peer.ending()


def _automatic_ack(kind: str) -> None:
    @row(6, f"ACK on an auto subscription to a {kind}", equal(UNKNOWN_TAG))
    async def scenario(target: Target) -> Any:
        peer = await target.connect(version="1.1")
        destination = f"/{kind}/{target.name('a')}"
        await peer.subscribe(destination, id="s")
        await peer.send(destination, "x")
        await peer.send_frame("ACK", {"message-id": (await peer.message("x")).headers["message-id"]})
        return await peer.ending()


for _kind in ("queue", "topic"):
    _automatic_ack(_kind)


@row(6, "what a client held is delivered again to another", equal([("true", "0"), ("true", "1")]))
async def handed_on(target: Target) -> Any:
    peer, queue, _ = await _filled(target, 2, "client")
    peer.abort()
    other = await target.connect()
    await other.subscribe(f"/queue/{queue}", id="s")
    return [(frame.headers["redelivered"], frame.text) for frame in await other.messages(2)]


test_row = rows_test(__name__)
