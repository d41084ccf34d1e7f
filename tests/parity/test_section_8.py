"""Transactions."""

from __future__ import annotations

from typing import Any

from tests.support.observing import exists, left, make_queue, summaries, summary, without_cause
from tests.support.parity import BETTER, UNRUN, Peer, Target, equal, error, row, rows_test
from tests.support.stomp import encode

EMPTY: list[Any] = []
COMMANDS = ("BEGIN", "COMMIT", "ABORT")


async def _begun(target: Target, *transactions: str) -> Peer:
    peer = await target.connect()
    for transaction in transactions or ("t",):
        await peer.send_frame("BEGIN", {"transaction": transaction})
    return peer


async def _holding(target: Target, peer: Peer, count: int, ack: str) -> tuple[str, list[Any]]:
    """The messages 0, 1, … of a queue."""
    queue = target.name("q")
    await peer.subscribe(f"/queue/{queue}", id="s", ack=ack)
    for number in range(count):
        await peer.send(f"/queue/{queue}", str(number))
    return queue, await peer.messages(count)


@row(
    8,
    "commands without a transaction",
    equal(
        [[error("Missing transaction", f"\"{command}\" must include a 'transaction' header\n")] for command in COMMANDS]
    ),
)
async def no_header(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried(command) for command in COMMANDS]


BAD = [error("Bad transaction", 'Invalid transaction identifier: "t9"\n')]


@row(8, "a transaction that was not begun", equal([BAD] * 5))
async def unknown(target: Target) -> Any:
    peer = await target.connect()
    _, (frame,) = await _holding(target, peer, 1, "client")
    queue = f"/queue/{target.name('q')}"
    return [
        await peer.tried("COMMIT", {"transaction": "t9"}),
        await peer.tried("ABORT", {"transaction": "t9"}),
        await peer.tried("SEND", {"transaction": "t9", "destination": queue}, "x"),
        await peer.tried("ACK", {"transaction": "t9", "id": frame.ack}),
        await peer.tried("NACK", {"transaction": "t9", "id": frame.ack}),
    ]


@row(8, "a transaction that has ended", equal([["ERROR Bad transaction"]] * 4))
async def ended(target: Target) -> Any:
    peer = await _begun(target, "a", "b")
    await peer.send_frame("COMMIT", {"transaction": "a"})
    await peer.send_frame("ABORT", {"transaction": "b"})
    return [
        summaries(await peer.tried(command, {"transaction": transaction}))
        for transaction in "ab"
        for command in ("COMMIT", "ABORT")
    ]


NAMES = ["", "a b", "t:1", 'quoted "name"', "back\\slash", "line\nend", "é"]


@row(8, "any text names a transaction", equal([["RECEIPT b", "ERROR Bad transaction"]] * len(NAMES)))
async def names(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for name in NAMES:
        await peer.send_frame("BEGIN", {"transaction": name, "receipt": "b"})
        await peer.send_frame("COMMIT", {"transaction": name})
        await peer.send_frame("COMMIT", {"transaction": name})
        seen.append(summaries(await peer.shows(2)))
    return seen


@row(
    8,
    "how an error shows a name",
    equal(
        [
            [error("Bad transaction", f"Invalid transaction identifier: {shown}\n")]
            for shown in ('"a b"', '"t:1"', r'"quoted \"name\""', r'"back\\slash"', r'"line\nend"', '"é"')
        ]
    ),
)
async def shown_names(target: Target) -> Any:
    peer = await target.connect()
    return [await peer.tried("COMMIT", {"transaction": name}) for name in NAMES if name]


@row(8, "messages are sent at COMMIT, in their order", equal([EMPTY, [("new", str(number)) for number in range(10)]]))
async def in_order(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _begun(target)
    for number in range(10):
        await peer.send(f"/queue/{queue}", str(number), transaction="t")
    await peer.seen()
    before = await left(target, queue)
    await peer.send_frame("COMMIT", {"transaction": "t"})
    await peer.seen()
    return [before, await left(target, queue)]


@row(8, "messages outside go before", equal([("new", "outside"), ("new", "inside")]))
async def outside(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _begun(target)
    await peer.send(f"/queue/{queue}", "inside", transaction="t")
    await peer.send(f"/queue/{queue}", "outside")
    await peer.send_frame("COMMIT", {"transaction": "t"})
    await peer.seen()
    return await left(target, queue)


@row(8, "several transactions at a time", equal([("new", "b"), ("new", "a"), ("new", "a")]))
async def several(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _begun(target, "a", "b", "c")
    for transaction in "abca":
        await peer.send(f"/queue/{queue}", transaction, transaction=transaction)
    for command, transaction in (("COMMIT", "b"), ("ABORT", "c"), ("COMMIT", "a")):
        await peer.send_frame(command, {"transaction": transaction})
    await peer.seen()
    return await left(target, queue)


@row(8, "ABORT drops what was gathered", equal([("new", "after")]))
async def aborted(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _begun(target)
    await peer.send(f"/queue/{queue}", "x", transaction="t")
    await peer.send_frame("ABORT", {"transaction": "t"})
    await peer.send(f"/queue/{queue}", "after")
    await peer.seen()
    return await left(target, queue)


@row(8, "a second BEGIN starts over", equal([EMPTY, [("new", "2")]]))
async def begun_twice(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _begun(target)
    await peer.send(f"/queue/{queue}", "1", transaction="t")
    seen = await peer.tried("BEGIN", {"transaction": "t"})
    await peer.send(f"/queue/{queue}", "2", transaction="t")
    await peer.send_frame("COMMIT", {"transaction": "t"})
    return [seen + await peer.seen(), await left(target, queue)]


@row(8, "DISCONNECT drops open transactions", equal([["RECEIPT d", "closed"], EMPTY]))
async def disconnected(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _begun(target)
    await peer.send(f"/queue/{queue}", "x", transaction="t")
    await peer.send_frame("DISCONNECT", {"receipt": "d"})
    return [summaries(await peer.ending()), await left(target, queue)]


@row(8, "a transaction belongs to its connection", equal([BAD]))
async def own(target: Target) -> Any:
    await _begun(target, "t9")
    peer = await target.connect()
    return [await peer.tried("COMMIT", {"transaction": "t9"})]


WRONG_SENDS: list[dict[str, str]] = [
    {},
    {"destination": ""},
    {"destination": "/queue/a/b"},
    {"destination": "/temp-queue/x"},
    {"destination": "/queue/a", "message-id": "1"},
    {"destination": "/queue/a", "priority": "high"},
    {"destination": "/queue/a", "x-message-ttl": "long"},
]


@row(8, "a wrong SEND is refused when it comes, and not kept")
async def wrong_send(target: Target) -> Any:
    peer = await _begun(target)
    seen = [without_cause(await peer.tried("SEND", {"transaction": "t"} | headers, "x")) for headers in WRONG_SENDS]
    assert all(seen)
    return [seen, summaries(await peer.tried("COMMIT", {"transaction": "t", "receipt": "c"}))]


@row(8, "a destination of no known type is refused when it comes", equal("ERROR Unknown destination"))
async def unknown_destination(target: Target) -> Any:
    peer = await _begun(target)
    await peer.send("/foo/bar", "x", transaction="t")
    return summary(await peer.show())


@row(8, "a wrong SEND in no transaction at all", equal("ERROR Unknown destination"))
async def doubly_wrong(target: Target) -> Any:
    peer = await target.connect()
    await peer.send("/foo/bar", "x", transaction="t9")
    return summary(await peer.show())


@row(
    8,
    "the queue of a SEND that is never committed",
    BETTER("nothing is declared before COMMIT", theirs=[True, "RECEIPT a"], ours=[False, "RECEIPT a"]),
)
async def declared_early(target: Target) -> Any:
    peer = await _begun(target)
    queue = target.name("q")
    await peer.send(f"/queue/{queue}", "x", transaction="t")
    await peer.seen()
    there = await exists(target, queue)
    await peer.send_frame("ABORT", {"transaction": "t", "receipt": "a"})
    return [there, summary(await peer.show())]


@row(8, "the queue of a SEND that is committed", equal([("new", "x")]))
async def declared(target: Target) -> Any:
    peer = await _begun(target)
    queue = target.name("q")
    await peer.send(f"/queue/{queue}", "x", transaction="t")
    await peer.send_frame("COMMIT", {"transaction": "t"})
    await peer.seen()
    return await left(target, queue)


@row(8, "a temporary queue for the answer", equal([["/temp-queue/answers", "answer"]]))
async def temporary(target: Target) -> Any:
    peer = await _begun(target)
    topic = f"/topic/{target.name('t')}"
    service = await target.connect()
    await service.subscribe(topic, id="s")
    headers = {"destination": topic, "reply-to": "/temp-queue/answers", "transaction": "t"}
    await peer.send_frame("SEND", headers, "question")
    await peer.send_frame("COMMIT", {"transaction": "t"})
    question = await service.message("question")
    await service.send(question.headers["reply-to"], "answer")
    answer = await peer.message()
    return [[answer.headers["subscription"], answer.text]]


@row(8, "ACK takes effect at COMMIT", equal([("again", "1")]))
async def acknowledged(target: Target) -> Any:
    peer = await _begun(target)
    queue, frames = await _holding(target, peer, 2, "client-individual")
    await peer.send_frame("ACK", {"id": frames[0].ack, "transaction": "t"})
    await peer.send_frame("COMMIT", {"transaction": "t"})
    await peer.seen()
    peer.abort()
    return await left(target, queue)


@row(8, "ACK does not take effect before", equal([["RECEIPT a"], [("again", "0"), ("again", "1")]]))
async def not_acknowledged(target: Target) -> Any:
    peer = await _begun(target)
    queue, frames = await _holding(target, peer, 2, "client-individual")
    await peer.send_frame("ACK", {"id": frames[0].ack, "transaction": "t", "receipt": "a"})
    seen = summaries(await peer.seen())
    peer.abort()
    return [seen, await left(target, queue)]


@row(8, "ACK of mode client takes effect at COMMIT", equal([("again", "2")]))
async def acknowledged_cumulatively(target: Target) -> Any:
    peer = await _begun(target)
    queue, frames = await _holding(target, peer, 3, "client")
    await peer.send_frame("ACK", {"id": frames[1].ack, "transaction": "t"})
    await peer.send_frame("COMMIT", {"transaction": "t"})
    await peer.seen()
    peer.abort()
    return await left(target, queue)


@row(8, "NACK takes effect at COMMIT", equal([EMPTY, [("true", "0")]]))
async def refused(target: Target) -> Any:
    peer = await _begun(target)
    _, frames = await _holding(target, peer, 2, "client-individual")
    await peer.send_frame("NACK", {"id": frames[0].ack, "transaction": "t"})
    await peer.send_frame("NACK", {"id": frames[1].ack, "transaction": "t", "requeue": "false"})
    seen = await peer.seen()
    await peer.send_frame("COMMIT", {"transaction": "t"})
    again = await peer.message()
    return [seen, [(again.headers["redelivered"], again.text)]]


@row(8, "an ACK in a transaction that is aborted", equal([("again", "0")]))
async def acknowledgement_aborted(target: Target) -> Any:
    peer = await _begun(target)
    queue, frames = await _holding(target, peer, 1, "client")
    await peer.send_frame("ACK", {"id": frames[0].ack, "transaction": "t"})
    await peer.send_frame("ABORT", {"transaction": "t"})
    await peer.seen()
    peer.abort()
    return await left(target, queue)


@row(8, "a wrong ACK is refused when it comes")
async def wrong_ack(target: Target) -> Any:
    peer = await _begun(target)
    wrong: list[dict[str, str]] = [{}, {"id": "nonsense"}, {"id": "T_s@@x@@one"}, {"id": "T_none@@x@@1"}]
    seen = [
        without_cause(await peer.tried(command, {"transaction": "t"} | headers))
        for command in ("ACK", "NACK")
        for headers in wrong
    ]
    assert all(seen)
    return [seen, summaries(await peer.tried("COMMIT", {"transaction": "t", "receipt": "c"}))]


@row(
    8,
    "an ACK of an unknown number",
    BETTER(
        "it is refused when it comes",
        theirs=["RECEIPT a", "RECEIPT c", "ERROR precondition_failed", "closed"],
        ours=["ERROR precondition_failed", "closed"],
    ),
)
async def unknown_number(target: Target) -> Any:
    peer = await _begun(target)
    _, (frame,) = await _holding(target, peer, 1, "client")
    ack = encode("ACK", {"transaction": "t", "id": frame.ack + "00000", "receipt": "a"})
    await peer.send_raw(ack + encode("COMMIT", {"transaction": "t", "receipt": "c"}))
    return summaries(await peer.ending())


@row(
    8,
    "an ACK in a transaction, and another one before COMMIT",
    BETTER(
        "what is acknowledged is acknowledged",
        theirs=["RECEIPT c", "ERROR precondition_failed", "closed"],
        ours=["RECEIPT c"],
    ),
)
async def acknowledged_twice(target: Target) -> Any:
    peer = await _begun(target)
    _, (frame,) = await _holding(target, peer, 1, "client")
    await peer.send_frame("ACK", {"transaction": "t", "id": frame.ack})
    await peer.send_frame("ACK", {"id": frame.ack})
    await peer.send_frame("COMMIT", {"transaction": "t", "receipt": "c"})
    return summaries(await (peer.seen() if target.ours else peer.ending()))


@row(
    8,
    "COMMIT is not atomic",
    BETTER(
        "no receipt for a COMMIT that failed",
        theirs=["RECEIPT c", "ERROR not_found", "closed", [("new", "1")]],
        ours=["ERROR not_found", "closed", [("new", "1")]],
    ),
)
async def not_atomic(target: Target) -> Any:
    first = await make_queue(target)
    peer = await _begun(target)
    await peer.send(f"/queue/{first}", "1", transaction="t")
    await peer.send(f"/exchange/{target.name('none')}/k", "2", transaction="t")
    await peer.send_frame("COMMIT", {"transaction": "t", "receipt": "c"})
    return [*summaries(await peer.ending()), await left(target, first)]


@row(8, "SUBSCRIBE and UNSUBSCRIBE ignore it", equal(["RECEIPT s", "MESSAGE x", "RECEIPT u", "RECEIPT d", "closed"]))
async def ignored(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('t')}"
    await peer.send_frame("SUBSCRIBE", {"destination": destination, "id": "s", "transaction": "none", "receipt": "s"})
    await peer.send(destination, "x")
    seen = await peer.shows(2)
    await peer.send_frame("UNSUBSCRIBE", {"id": "s", "transaction": "none", "receipt": "u"})
    seen += await peer.shows(1)
    await peer.send_frame("DISCONNECT", {"transaction": "none", "receipt": "d"})
    return summaries(seen + await peer.ending())


@row(
    8,
    "open transactions",
    BETTER(
        "there is a limit, as in RabbitMQ 4.4",
        theirs=[f"RECEIPT {number}" for number in range(17)],
        ours=[*(f"RECEIPT {number}" for number in range(16)), "ERROR Transaction limit exceeded"],
    ),
)
async def too_many(target: Target) -> Any:
    peer = await target.connect()
    for number in range(17):
        await peer.send_frame("BEGIN", {"transaction": str(number), "receipt": str(number)})
    return summaries(await peer.shows(17))


@row(
    8,
    "frames in a transaction",
    BETTER(
        "there is a limit, as in RabbitMQ 4.4",
        theirs=[EMPTY, 1030, ["RECEIPT c"]],
        ours=[["ERROR Transaction too large"] * 6, 1024, ["RECEIPT c"]],
    ),
)
async def too_long(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _begun(target)
    send = {"destination": f"/queue/{queue}", "transaction": "t"}
    await peer.send_raw(b"".join(encode("SEND", send, "x") for _ in range(1030)))
    seen = summaries(await peer.seen())
    await peer.send_frame("COMMIT", {"transaction": "t", "receipt": "c"})
    receipt = summaries(await peer.shows(1))
    return [seen, len(await left(target, queue)), receipt]


@row(
    8,
    "bytes in all open transactions",
    UNRUN("no version of RabbitMQ bounds them", ours=["ERROR Transaction too large"]),
    bridge="small",
)
async def too_large(target: Target) -> Any:
    peer = await _begun(target, "a", "b")
    for transaction in "ab":
        await peer.send(f"/queue/{target.name('q')}", "x" * 6000, transaction=transaction)
    return summaries(await peer.seen())


test_row = rows_test(__name__)
