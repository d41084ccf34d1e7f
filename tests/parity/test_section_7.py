"""Receipts."""

from __future__ import annotations

from typing import Any

from tests.support.observing import closing, left, make_queue, summaries
from tests.support.parity import BETTER, EQUAL, Peer, Target, equal, error, row, rows_test
from tests.support.stomp import encode

RECEIPT = ("RECEIPT", {"receipt-id": "r:1"}, "")


async def _receipted(peer: Peer, command: str, **headers: str) -> Any:
    await peer.send_frame(command, {"receipt": "r:1"}, **headers)
    return await peer.show()


@row(7, "a receipt for each command", equal([RECEIPT] * 9))
async def each_command(target: Target) -> Any:
    peer = await target.connect()
    queue = f"/queue/{target.name('q')}"
    seen = [await _receipted(peer, "SUBSCRIBE", destination=queue, id="s", ack="client")]
    await peer.send(queue, "0")
    await peer.send(queue, "1")
    frames = await peer.messages(2)
    seen.append(await _receipted(peer, "ACK", id=frames[0].ack))
    seen.append(await _receipted(peer, "NACK", id=frames[1].ack, requeue="false"))
    seen.append(await _receipted(peer, "UNSUBSCRIBE", id="s"))
    for command in ("BEGIN", "COMMIT", "BEGIN", "ABORT"):
        seen.append(await _receipted(peer, command, transaction="t"))
    seen.append(await _receipted(peer, "SEND", destination=queue))
    return seen


@row(7, "no receipt for CONNECT", equal(["CONNECTED", "ERROR Missing transaction"]))
async def of_connect(target: Target) -> Any:
    peer = await target.open()
    await peer.send_raw(b"CONNECT\naccept-version:1.2\nreceipt:r\n\n\0")
    await peer.send_raw(b"BEGIN\n\n\0")
    return summaries(await peer.shows(2))


NO_DESTINATION = "\"SEND\" must include a 'destination' header\n"


@row(
    7,
    "a receipt asked for with a frame that is wrong",
    BETTER(
        "the ERROR names it, as the specification says it should",
        theirs=[error("Missing destination", NO_DESTINATION)],
        ours=[error("Missing destination", NO_DESTINATION, receipt_id="r")],
    ),
)
async def wrong(target: Target) -> Any:
    peer = await target.connect()
    return await peer.tried("SEND", {"receipt": "r"})


@row(7, "no receipt for a frame that is wrong", equal([["ERROR Missing destination"], ["ERROR No subscription found"]]))
async def none_where_wrong(target: Target) -> Any:
    peer = await target.connect()
    return [
        summaries(await peer.tried("SUBSCRIBE", {"receipt": "r"})),
        summaries(await peer.tried("UNSUBSCRIBE", {"receipt": "r", "id": "x"})),
    ]


NOT_FOUND = "NOT_FOUND - no queue '~none' in vhost '/'"


@row(
    7,
    "a receipt after a fatal error of SUBSCRIBE",
    BETTER(
        "no promise that does not hold",
        theirs=[error("not_found", NOT_FOUND), ("RECEIPT", {"receipt-id": "r"}, ""), "closed"],
        ours=[error("not_found", NOT_FOUND, receipt_id="r"), "closed"],
    ),
)
async def after_fatal(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/amq/queue/{target.name('none')}"
    await peer.send_frame("SUBSCRIBE", {"destination": destination, "id": "s", "receipt": "r"})
    return await peer.ending()


@row(
    7,
    "a receipt before a fatal error of ACK",
    BETTER(
        "no promise that does not hold",
        theirs=["RECEIPT r", "ERROR precondition_failed", "closed"],
        ours=["ERROR precondition_failed", "closed"],
    ),
)
async def before_fatal(target: Target) -> Any:
    peer = await target.connect()
    await peer.subscribe(f"/queue/{target.name('q')}", id="s", ack="client")
    await peer.send_frame("ACK", {"id": "T_s@@x@@12345678", "receipt": "r"})
    return summaries(await peer.ending())


def _confirmed(kind: str, **headers: str) -> None:
    @row(7, f"SEND is confirmed: {kind}", equal([f"RECEIPT r{number}" for number in range(5)]))
    async def scenario(target: Target) -> Any:
        peer = await target.connect()
        destination = "/" + kind.split()[-1] + "/" + target.name("q")
        for number in range(5):
            await peer.send(destination, str(number), receipt=f"r{number}", **headers)
        return summaries(await peer.shows(5))


_confirmed("transient to a queue")
_confirmed("persistent to a queue", persistent="true")
_confirmed("to nobody on a topic")
_confirmed("to nobody on exchange/parity.direct")


@row(7, "SENDs with and without a receipt", equal([f"RECEIPT r{number}" for number in range(0, 60, 3)]))
async def some(target: Target) -> Any:
    """Publisher confirms are counted from the first receipt on, and may stand for several messages."""
    peer = await target.connect()
    destination = f"/queue/{target.name('q')}"
    await peer.send(destination, "before")
    for number in range(60):
        more = {"receipt": f"r{number}"} if number % 3 == 0 else {}
        await peer.send(destination, str(number), persistent="true", **more)
    return summaries(await peer.shows(20))


@row(7, "many receipts in one write", equal([f"RECEIPT r{number}" for number in range(100)]))
async def many(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/queue/{target.name('q')}"
    frames = (encode("SEND", {"destination": destination, "receipt": f"r{number}"}, "x") for number in range(100))
    await peer.send_raw(b"".join(frames))
    return summaries(await peer.shows(100))


@row(7, "what is sent after the receipt of SUBSCRIBE arrives", equal(["0", "1", "2", "3", "4"]))
async def of_subscribe(target: Target) -> Any:
    sender, bodies = await target.connect(), []
    for number in range(5):
        peer = await target.connect()
        destination = f"/topic/{target.name(str(number))}"
        await peer.subscribe(destination, id="s")
        await sender.send(destination, str(number))
        bodies += await peer.bodies(1)
    return bodies


@row(7, "nothing arrives after the receipt of UNSUBSCRIBE", equal([["RECEIPT u"], []]))
async def of_unsubscribe(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('t')}"
    await peer.subscribe(destination, id="s")
    await peer.send_frame("UNSUBSCRIBE", {"id": "s", "receipt": "u"})
    receipt = summaries(await peer.shows(1))
    await peer.send(destination, "late")
    return [receipt, await peer.seen()]


async def _full_queue(target: Target) -> tuple[Peer, str]:
    queue = await make_queue(target, x_max_length=1, x_overflow="reject-publish")
    peer = await target.connect()
    destination = f"/amq/queue/{queue}"
    await peer.send_and_wait(destination, "first")
    return peer, destination


@row(
    7,
    "a message that a full queue rejects",
    BETTER(
        "an ERROR with the receipt's name, and the session goes on; over TCP RabbitMQ's crashes",
        theirs=["closed"],
        ours=["ERROR Message rejected r", "still here"],
    ),
)
async def rejected(target: Target) -> Any:
    peer, destination = await _full_queue(target)
    await peer.send(destination, "second", receipt="r")
    frame = await peer.next_or_none()
    if frame is None:
        return ["closed"]
    await peer.alive()
    return [f"{frame.command} {frame.message} {frame.headers.get('receipt-id')}", "still here"]


@row(
    7,
    "a message that a full queue rejects, over WebSocket",
    BETTER(
        "an ERROR with the receipt's name; Web STOMP never answers",
        theirs=[],
        ours=["ERROR Message rejected r"],
    ),
    over="web",
)
async def rejected_web(target: Target) -> Any:
    peer, destination = await _full_queue(target)
    await peer.send(destination, "second", receipt="r")
    try:
        frame = await peer.receive(within=2)
    except TimeoutError:
        return []
    return [f"{frame.command} {frame.message} {frame.headers.get('receipt-id')}"]


@row(
    7,
    "the receipts of a transaction",
    BETTER(
        "that of COMMIT comes when all its messages are confirmed",
        theirs=["RECEIPT c", "RECEIPT 0", "RECEIPT 1", "RECEIPT 2"],
        ours=["RECEIPT 0", "RECEIPT 1", "RECEIPT 2", "RECEIPT c"],
    ),
)
async def committed(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/queue/{target.name('q')}"
    await peer.send_frame("BEGIN", {"transaction": "t"})
    for number in range(3):
        await peer.send(destination, str(number), transaction="t", receipt=str(number), persistent="true")
    await peer.alive()  # none of them comes before COMMIT
    await peer.send_frame("COMMIT", {"transaction": "t", "receipt": "c"})
    return summaries(await peer.shows(4))


@row(7, "the receipts of a transaction that is aborted", equal(["RECEIPT a"]))
async def aborted(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_frame("BEGIN", {"transaction": "t"})
    await peer.send(f"/queue/{target.name('q')}", "x", transaction="t", receipt="never")
    await peer.send_frame("ABORT", {"transaction": "t", "receipt": "a"})
    return summaries(await peer.seen())


@row(7, "acknowledgements of a transaction have their receipts at once", equal(["RECEIPT a", "RECEIPT c"]))
async def acknowledged(target: Target) -> Any:
    peer = await target.connect()
    queue = f"/queue/{target.name('q')}"
    await peer.subscribe(queue, id="s", ack="client")
    await peer.send(queue, "x")
    frame = await peer.message()
    await peer.send_frame("BEGIN", {"transaction": "t"})
    await peer.send_frame("ACK", {"id": frame.ack, "transaction": "t", "receipt": "a"})
    seen = await peer.shows(1)
    await peer.send_frame("COMMIT", {"transaction": "t", "receipt": "c"})
    return summaries(seen + await peer.shows(1))


@row(7, "the receipt of DISCONNECT", equal([("RECEIPT", {"receipt-id": "d"}, ""), "closed"]))
async def disconnected(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_frame("DISCONNECT", {"receipt": "d"})
    return await peer.ending()


@row(7, "DISCONNECT without a receipt", equal(["closed"]))
async def disconnected_silently(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_frame("DISCONNECT")
    return await peer.ending()


@row(
    7,
    "the receipt of DISCONNECT, over WebSocket",
    BETTER(
        "it arrives; up to 3.10.13 Web STOMP loses the last frame",
        theirs=(["closed"], 1000, "STOMP died"),
        ours=(["RECEIPT d", "closed"], 1000, "disconnected"),
    ),
    over="web",
)
async def disconnected_web(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_frame("DISCONNECT", {"receipt": "d"})
    return await closing(peer)


@row(
    7,
    "receipts that are due at DISCONNECT",
    BETTER(
        "all of them come first",
        theirs=["RECEIPT d", "closed", 20],
        ours=[*(f"RECEIPT {number}" for number in range(20)), "RECEIPT d", "closed", 20],
    ),
)
async def pending(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    send = {"destination": f"/queue/{queue}", "persistent": "true"}
    frames = [encode("SEND", send | {"receipt": str(number)}, str(number)) for number in range(20)]
    await peer.send_raw(b"".join([*frames, encode("DISCONNECT", {"receipt": "d"})]))
    return [*summaries(await peer.ending()), len(await left(target, queue))]


@row(7, "what comes after DISCONNECT", EQUAL)
async def after_disconnect(target: Target) -> Any:
    peer = await target.connect()
    queue = await make_queue(target)
    send = encode("SEND", {"destination": f"/queue/{queue}", "receipt": "r"}, "late")
    await peer.send_raw(encode("DISCONNECT", {"receipt": "d"}) + send)
    return [summaries(await peer.ending()), await left(target, queue)]


test_row = rows_test(__name__)
