"""SEND: which header becomes which AMQP property."""

from __future__ import annotations

from typing import Any

from tests.support.parity import BETTER, Target, equal, error, row, rows_test
from tests.support.stomp import encode

PROPERTIES = (
    "content_type",
    "content_encoding",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "message_type",
    "user_id",
    "app_id",
)
OWN = "x-stompbridge-"


async def _published(target: Target, body: bytes | str = "x", **headers: str) -> dict[str, Any]:
    """What an AMQP program gets of a SEND: its properties that are set, and its header table."""
    peer = await target.connect()
    queue = target.name("q")
    await peer.send_frame("SEND", {"destination": f"/queue/{queue}"} | _named(headers), body)
    return await _taken(target, queue)


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def _taken(target: Target, queue: str, all_of_them: bool = False) -> dict[str, Any]:
    async def declared() -> bool:
        return await target.queue(queue) is not None

    await target.until(declared)
    channel = await target.channel()

    async def take() -> Any:
        message = await channel.basic_get(queue, no_ack=True)
        return message if message.delivery_tag is not None else None

    message = await target.until(take)
    properties = {name: getattr(message.header.properties, name) for name in PROPERTIES}
    found = {name: value for name, value in properties.items() if value not in (None, "")}
    if target.plain(str(found.get("message_id", ""))).startswith("SESSION:"):
        del found["message_id"]
    headers = message.header.properties.headers or {}
    found["headers"] = {name: value for name, value in headers.items() if not name.startswith(OWN)}
    if not all_of_them:
        # RabbitMQ passes on what was for the server. That is a row of its own.
        found["headers"].pop("content-length", None)
    found["body"] = message.body
    return found


MAPPED = {
    "content-type": ("application/json", "content_type", "application/json"),
    "content-encoding": ("gzip", "content_encoding", "gzip"),
    "persistent": ("true", "delivery_mode", 2),
    "priority": ("7", "priority", 7),
    "correlation-id": ("c-1", "correlation_id", "c-1"),
    "amqp-message-id": ("m-1", "message_id", "m-1"),
    "type": ("kind", "message_type", "kind"),
    "user-id": ("guest", "user_id", "guest"),
    "app-id": ("app", "app_id", "app"),
    "expiration": ("60000", "expiration", "60000"),
}

for _header, (_value, _property, _amqp) in MAPPED.items():

    @row(4, f"{_header} is a property", equal({_property: _amqp, "headers": {}, "body": b"x"}))
    async def mapped(target: Target, header: str = _header, value: str = _value) -> Any:
        return await _published(target, **{header: value})


@row(4, "timestamp is a property")
async def timestamp(target: Target) -> Any:
    found = await _published(target, timestamp="1700000000")
    return found["timestamp"].isoformat(), found["headers"]


for _reply_to in ("/queue/answers", "/topic/a.b", "/exchange/e/k", "answers", "/amq/queue/a", "/reply-queue/amq.gen-x"):

    @row(4, f"reply-to:{_reply_to} is passed on", equal({"reply_to": _reply_to, "headers": {}, "body": b"x"}))
    async def reply_to(target: Target, text: str = _reply_to) -> Any:
        return await _published(target, reply_to=text)


@row(
    4,
    "every other header travels",
    equal(
        {
            "headers": {
                "colour": "red",
                "id": "7",
                "x-message-ttl": "60000",
                "durable": "true",
                "ack": "client",
                "selector": "none",
                "subscription": "s",
                "redelivered": "true",
                "heart-beat": "0,0",
                "login": "x",
                "empty": "",
                "with:colon": "a:b",
                "line": "one\ntwo\r\\three",
                "ünïcode": "é€😀",
                "CaSe": "Kept",
                "content_type": "underscore",
            },
            "body": b"x",
        }
    ),
)
async def others(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    headers = {
        "destination": f"/queue/{queue}",
        "colour": "red",
        "id": "7",
        "x-message-ttl": "60000",
        "durable": "true",
        "ack": "client",
        "selector": "none",
        "subscription": "s",
        "redelivered": "true",
        "heart-beat": "0,0",
        "login": "x",
        "empty": "",
        "with:colon": "a:b",
        "line": "one\ntwo\r\\three",
        "ünïcode": "é€😀",
        "CaSe": "Kept",
        "content_type": "underscore",
    }
    await peer.send_raw(encode("SEND", headers, "x", content_length=False))
    return await _taken(target, queue)


@row(
    4,
    "headers for the server",
    BETTER("stay there", ours=[], theirs=["content-length", "receipt", "transaction"]),
)
async def transport(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    await peer.send_frame("BEGIN", {"transaction": "t"})
    await peer.send(f"/queue/{queue}", "x", receipt="r", transaction="t")
    await peer.tried("COMMIT", {"transaction": "t"})
    return sorted((await _taken(target, queue, all_of_them=True))["headers"])


@row(4, "the first of repeated headers")
async def repeated(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    await peer.send_raw(f"SEND\ndestination:/queue/{queue}\ncolour:red\ncolour:blue\ntype:a\ntype:b\n\nx\0")
    return await _taken(target, queue)


@row(4, "message-id", equal([error("Invalid header", "'message-id' is not allowed on 'SEND'.\n")]))
async def message_id(target: Target) -> Any:
    peer = await target.connect()
    return await peer.tried("SEND", {"destination": f"/queue/{target.name('q')}", "message-id": "1"})


@row(4, "an integer that is none", equal([[("ERROR", "Processing error")]] * 4))
async def no_integer(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for header in ("priority", "timestamp"):
        for value in ("high", "1.5"):
            answers = await peer.tried("SEND", {"destination": f"/queue/{target.name('q')}", header: value})
            seen.append([(answer[0], answer[1]["message"]) for answer in answers])
    return seen


@row(4, "persistent:false is a message that is not persistent")
async def transient(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    await peer.send_and_wait(f"/queue/{queue}", "first")
    await _taken(target, queue)
    await peer.send(f"/queue/{queue}", "x", persistent="false")
    return await _taken(target, queue)


@row(
    4,
    "user-id of somebody else",
    equal(
        [
            error(
                "precondition_failed",
                "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
            ),
            "closed",
        ]
    ),
)
async def wrong_user(target: Target) -> Any:
    peer = await target.connect()
    await peer.send(f"/topic/{target.name('k')}", "x", user_id="somebody")
    return await peer.ending()


@row(4, "what no queue takes is dropped, with its receipt")
async def unroutable(target: Target) -> Any:
    peer = await target.connect()
    destinations = (
        f"/topic/{target.name('k')}",
        f"/exchange/parity.direct/{target.name('k')}",
        "/exchange/parity.fanout",
    )
    return [(await peer.send_and_wait(destination, "x")).command for destination in destinations]


@row(4, "mandatory and immediate say nothing")
async def flags(target: Target) -> Any:
    peer = await target.connect()
    seen = await peer.tried(
        "SEND", {"destination": f"/topic/{target.name('k')}", "mandatory": "true", "immediate": "true"}, "x"
    )
    return [*seen, await peer.send_and_wait(f"/topic/{target.name('k')}", "x") is not None]


@row(4, "bodies come as they were")
async def bodies(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    seen = []
    for body in (b"", b"x", b"a\0b", b"\0", b"\xff\xfe", "é€😀".encode(), b"\n", b"x" * 100_000, bytes(range(256))):
        await peer.send(f"/queue/{queue}", body)
        seen.append((await _taken(target, queue))["body"])
    return seen


@row(4, "content-type is not made up")
async def no_content_type(target: Target) -> Any:
    return await _published(target, "text")


test_row = rows_test(__name__)
