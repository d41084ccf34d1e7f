"""MESSAGE: what is in it, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.support.parity import BETTER, Peer, Target, equal, row, rows_test

FULL: dict[str, Any] = {
    "content_type": "text/plain",
    "content_encoding": "gzip",
    "delivery_mode": 2,
    "priority": 3,
    "correlation_id": "c",
    "reply_to": "answers",
    "expiration": "60000",
    "message_id": "m-1",
    "timestamp": datetime.fromtimestamp(1_700_000_000, UTC),
    "message_type": "kind",
    "user_id": "guest",
    "app_id": "app",
}
ORDER = [
    "subscription",
    "destination",
    "message-id",
    "redelivered",
    "ack",
    "alpha",
    "zebra",
    "app-id",
    "user-id",
    "type",
    "timestamp",
    "amqp-message-id",
    "expiration",
    "reply-to",
    "correlation-id",
    "priority",
    "persistent",
    "content-encoding",
    "content-type",
    "content-length",
]


async def _subscribed(target: Target, version: str = "1.2", kind: str = "queue", **headers: str) -> Peer:
    """A client that gets the messages of exchange ``parity.direct`` with the row's name as their key, through a queue
    or, as the bridge does it, through the queue that all share."""
    peer = await target.connect(version=version)
    name = target.name("k")
    if kind == "queue":
        headers |= {"x-queue-name": name}
    await peer.subscribe(f"/exchange/parity.direct/{name}", id="s", **{"ack": "client", **headers})
    return peer


async def _shown(target: Target, body: bytes | str = "x", version: str = "1.2", **properties: Any) -> Any:
    seen = []
    for kind in ("queue", "mailbox"):
        if kind == "mailbox" and "message_id" in properties:
            properties["message_id"] += "2"
        peer = await _subscribed(target, version, kind)
        await target.publish("parity.direct", target.name("k"), body, **properties)
        seen.append(await peer.show())
        await peer.disconnect()
    return seen


@row(5, "the order of the headers", equal([ORDER, ORDER, [name for name in ORDER if name != "ack"]]))
async def order(target: Target) -> Any:
    seen = []
    for version, kind, ack in (("1.2", "queue", "client"), ("1.2", "mailbox", "client"), ("1.1", "mailbox", "auto")):
        peer = await _subscribed(target, version, kind, ack=ack)
        properties = FULL | {"message_id": f"m-{len(seen)}"}
        await target.publish("parity.direct", target.name("k"), headers={"zebra": "1", "alpha": "2"}, **properties)
        frame = await peer.message()
        seen.append([name for name, _ in frame.pairs])
        await peer.disconnect()
    return seen


@row(5, "every property")
async def every_property(target: Target) -> Any:
    return await _shown(target, **FULL)


@row(5, "no property at all")
async def no_property(target: Target) -> Any:
    return await _shown(target)


@row(5, "through the default exchange")
async def default_exchange(target: Target) -> Any:
    peer = await target.connect()
    await peer.subscribe(f"/queue/{target.name('q')}", id="s", ack="client")
    await target.publish("", target.name("q"), **FULL)
    return await peer.show()


for _version in ("1.0", "1.1", "1.2"):
    for _ack in ("auto", "client", "client-individual"):

        @row(5, f"message-id and ack in {_version} with ack:{_ack}")
        async def ack_header(target: Target, version: str = _version, ack: str = _ack) -> Any:
            seen = []
            for kind in ("queue", "mailbox"):
                peer = await _subscribed(target, version, kind, ack=ack)
                await target.publish("parity.direct", target.name("k"))
                frame = await peer.message()
                same = frame.headers.get("ack", frame.headers["message-id"]) == frame.headers["message-id"]
                seen += [target.show(frame), same]
                await peer.disconnect()
            return seen


@row(5, "content-length only where there is a body", equal([None, "1", "4"]))
async def content_length(target: Target) -> Any:
    peer = await _subscribed(target, ack="auto")
    seen = []
    for body in ("", "x", "é€"[:1] + "ab"):
        await target.publish("parity.direct", target.name("k"), body)
        seen.append((await peer.message()).headers.get("content-length"))
    return seen


@row(5, "a line feed follows the frame", equal([True, True]))
async def trailing_lf(target: Target) -> Any:
    peer = await _subscribed(target)
    seen = []
    for body in ("", "x"):
        await target.publish("parity.direct", target.name("k"), body)
        data = await peer.ws.recv()
        raw = data.encode() if isinstance(data, str) else data
        seen.append(raw.endswith(b"\0\n"))
    return seen


@row(5, "redelivered")
async def redelivered(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/queue/{target.name('q')}"
    await peer.subscribe(destination, id="s", ack="client")
    await peer.send(destination, "x")
    first = await peer.message()
    await peer.send_frame("NACK", {"id": first.ack})
    return [target.show(first), await peer.show()]


@row(5, "delivery mode 2", equal("true"))
async def persistent(target: Target) -> Any:
    peer = await _subscribed(target)
    await target.publish("parity.direct", target.name("k"), delivery_mode=2)
    return (await peer.message()).headers.get("persistent")


@row(5, "delivery mode 1", BETTER("not persistent, so it is not said", ours=None, theirs="1"))
async def transient(target: Target) -> Any:
    peer = await _subscribed(target)
    await target.publish("parity.direct", target.name("k"), delivery_mode=1)
    return (await peer.message()).headers.get("persistent")


async def _headers(target: Target, headers: dict[str, Any], names: list[str] | None = None) -> Any:
    peer = await _subscribed(target)
    await target.publish("parity.direct", target.name("k"), headers=headers)
    frame = await peer.message()
    return {name: value for name, value in frame.headers.items() if name in (names or headers)}


@row(5, "strings and integers of the header table")
async def simple_values(target: Target) -> Any:
    return await _headers(
        target,
        {"text": "x", "empty": "", "middle": 2**20, "negative": -(2**20), "big": 2**40, "smallest": -(2**63)},
    )


@row(
    5,
    "other values of the header table",
    BETTER(
        "said, and not dropped",
        ours={
            "yes": "true",
            "no": "false",
            "half": "0.5",
            "time": "1700000000",
            "price": "12.50",
            "list": '[1,"two",true]',
            "table": '{"a":1,"b":{"c":"d"}}',
            "bytes": "raw",
            "small": "7",
        },
        theirs={},
    ),
)
async def other_values(target: Target) -> Any:
    seen = await _headers(
        target,
        {
            "yes": True,
            "no": False,
            "half": 0.5,
            "time": datetime.fromtimestamp(1_700_000_000, UTC),
            "price": Decimal("12.50"),
            "list": [1, "two", True],
            "table": {"a": 1, "b": {"c": "d"}},
            "bytes": bytearray(b"raw"),
            "small": 7,
            "void": None,
        },
    )
    return seen


@row(
    5,
    "headers of the server's own names",
    BETTER(
        "said once", ours={}, theirs={"destination": 2, "message-id": 2, "subscription": 2, "redelivered": 2, "ack": 2}
    ),
)
async def own_names(target: Target) -> Any:
    peer = await _subscribed(target)
    names = ["destination", "message-id", "subscription", "redelivered", "ack"]
    await target.publish("parity.direct", target.name("k"), headers=dict.fromkeys(names, "forged"))
    frame = await peer.message()
    assert "forged" not in frame.headers.values()
    counts = {name: [each for each, _ in frame.pairs].count(name) for name in names}
    return {name: count for name, count in counts.items() if count > 1}


@row(5, "content-length of the header table", equal("1"))
async def forged_length(target: Target) -> Any:
    peer = await _subscribed(target)
    await target.publish("parity.direct", target.name("k"), headers={"content-length": "1000"})
    frame = await peer.message()
    return ",".join(value for name, value in frame.pairs if name == "content-length")


@row(5, "properties go before headers of their names")
async def shadowed(target: Target) -> Any:
    peer = await _subscribed(target)
    names = ["type", "priority", "persistent", "app-id", "content-type", "reply-to", "timestamp"]
    await target.publish("parity.direct", target.name("k"), headers=dict.fromkeys(names, "header"))
    frame = await peer.message()
    return {name: value for name, value in frame.headers.items() if name in names}


@row(5, "reply-to gets a prefix where it is no destination")
async def reply_to(target: Target) -> Any:
    peer = await _subscribed(target)
    seen = []
    for text in (
        "answers",
        "amq.gen-x",
        "/exchange/e/k",
        "/topic/k",
        "/queue/q",
        "/amq/queue/q",
        "/reply-queue/q",
        "/temp-queue/q",
        "/other",
        "queue/q",
        "/queueing",
    ):
        await target.publish("parity.direct", target.name("k"), reply_to=text)
        seen.append((text, (await peer.message()).headers.get("reply-to")))
    return seen


@row(5, "names and values are escaped in every version")
async def escaped(target: Target) -> Any:
    seen = []
    for version in ("1.0", "1.1", "1.2"):
        peer = await _subscribed(target, version)
        headers = {"co:lon": "a:b", "line\nfeed": "one\ntwo", "back\\slash": "a\\b", "carriage": "a\rb", "tab": "a\tb"}
        await target.publish("parity.direct", target.name("k"), headers=headers, correlation_id="c:d\n\\")
        frame = await peer.message()
        seen.append({name: frame.headers.get(name) for name in (*headers, "correlation-id")})
        await peer.disconnect()
    return seen


async def _odd_id(target: Target, id: str) -> Any:
    seen = []
    for version in ("1.1", "1.2"):
        peer = await target.connect(version=version)
        destination = f"/topic/{target.name('k')}"
        await peer.subscribe(destination, id=id, ack="client")
        await peer.send(destination, "x")
        try:
            frame = await peer.message()
        except AssertionError as problem:
            return str(problem).split(":")[0]
        name = "id" if version == "1.2" else "message-id"
        ack_id = frame.headers["ack" if version == "1.2" else "message-id"]
        seen += [target.show(frame)[1]["subscription"], await peer.tried("ACK", {name: ack_id})]
        await peer.disconnect()
    return seen


@row(5, "an id that has to be escaped", equal(["a:b c", [], "a:b c", []]))
async def escaped_id(target: Target) -> Any:
    return await _odd_id(target, "a:b c")


@row(
    5,
    "an id with a line feed or a backslash",
    BETTER("escaped in message-id, too", ours=["a\nb\\c", [], "a\nb\\c", []], theirs="header without colon"),
)
async def line_feed_id(target: Target) -> Any:
    return await _odd_id(target, "a\nb\\c")


@row(5, "headers of a SEND come out")
async def user_headers(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    await peer.subscribe(destination)
    await peer.send(
        destination, "x", colour="red", id="7", priority="1", content_type="a/b", selector="none", x_y="z:\n"
    )
    return await peer.show()


@row(5, "bodies that are no text", over="web")
async def binary(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    await peer.subscribe(destination)
    seen = []
    for body in (b"text", "é€😀".encode(), b"a\0b", b""):
        await peer.send(destination, body)
        frame = await peer.message()
        seen.append((frame.body, frame.binary))
    return seen


@row(
    5,
    "a body that is not UTF-8",
    BETTER("goes out as a binary message", ours=[(b"\xff\xfe", True), (b"text", False)], theirs=["closed"]),
    over="web",
)
async def not_utf8(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    await peer.subscribe(destination)
    seen: list[Any] = []
    for body in (b"\xff\xfe", b"text"):
        await peer.send(destination, body)
        frame = await peer.next_or_none()
        if frame is None:
            return [*seen, "closed"]
        seen.append((frame.body, frame.binary))
    return seen


@row(5, "big bodies")
async def big(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    await peer.subscribe(destination)
    seen = []
    for size in (65_535, 131_072, 1_000_000):
        await peer.send(destination, b"x" * size)
        seen.append(len((await peer.message()).body))
    return seen


test_row = rows_test(__name__)
