"""What is declared for a frame, by its headers."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from tests.support.parity import BETTER, Peer, Target, equal, row, rows_test


def _short(answers: list[Any]) -> list[Any]:
    """Answers without bodies: what RabbitMQ says of a ``Processing error`` is a dump of its own state."""
    return [answer if isinstance(answer, str) else (answer[0], answer[1].get("message")) for answer in answers]


def _made(durable: bool, auto_delete: bool, exclusive: bool, **arguments: Any) -> dict[str, Any]:
    arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
    return {"durable": durable, "auto_delete": auto_delete, "exclusive": exclusive, "arguments": arguments}


async def _declared(target: Target, queue: str) -> dict[str, Any] | None:
    found = await target.queue(queue)
    return found and {name: found[name] for name in ("durable", "auto_delete", "exclusive", "arguments")}


NAMED = {
    "": _made(True, False, False),
    "durable:true": _made(True, False, False),
    "durable:True": _made(True, False, False),
    "persistent:true": _made(True, False, False),
    "durable:false": _made(False, True, True),
    "durable:False": _made(False, True, True),
    "durable:false auto-delete:false": _made(False, False, True),
    "durable:false exclusive:false": _made(False, True, False),
    "durable:false auto-delete:false exclusive:false": _made(False, False, False),
    "auto-delete:true": _made(True, True, False),
    "auto-delete:false": _made(True, False, False),
    "exclusive:true": _made(False, False, True),
    "exclusive:true durable:true": _made(False, False, True),
    "exclusive:false": _made(True, False, False),
    "durable:false persistent:true": _made(True, False, False),
    "durable:true persistent:false": _made(False, True, True),
    "x-queue-name:other": _made(True, False, False),
}


def _headers(text: str) -> dict[str, str]:
    return dict(pair.split(":", 1) for pair in text.split())


for _text, _queue in NAMED.items():

    @row(2, f"SUBSCRIBE to /queue with {_text or 'nothing'}", equal(_queue))
    async def subscribe_named(target: Target, text: str = _text) -> Any:
        peer = await target.connect()
        await peer.subscribe(f"/queue/{target.name('q')}", **_headers(text))
        return await _declared(target, target.name("q"))

    if "persistent" not in _text:

        @row(2, f"SEND to /queue with {_text or 'nothing'}", equal(_queue))
        async def send_named(target: Target, text: str = _text) -> Any:
            peer = await target.connect()
            await peer.send_and_wait(f"/queue/{target.name('q')}", "x", **_headers(text))
            return await _declared(target, target.name("q"))


@row(2, "SEND to /queue with persistent:true", equal(_made(True, False, False)))
async def send_persistent(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_and_wait(f"/queue/{target.name('q')}", "x", persistent="true")
    return await _declared(target, target.name("q"))


@row(
    2,
    "SEND to /queue with persistent:false",
    BETTER("only the message is transient", ours=_made(True, False, False), theirs=_made(False, True, True)),
)
async def send_transient(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_and_wait(f"/queue/{target.name('q')}", "x", persistent="false")
    return await _declared(target, target.name("q"))


@row(2, "SUBSCRIBE to /queue with persistent:false", equal(_made(False, True, True)))
async def subscribe_transient(target: Target) -> Any:
    peer = await target.connect()
    await peer.subscribe(f"/queue/{target.name('q')}", persistent="false")
    return await _declared(target, target.name("q"))


async def _own_queue(target: Target, destination: str, exchange: str, text: str) -> Any:
    """What a subscription to an exchange declared, and whether it has the name that it is to have."""
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"{destination}/{key}", id="s0", **_headers(text.replace("NAME", target.name("named"))))
    ((queue),) = await target.bound(exchange, key)
    return target.plain(queue), await _declared(target, queue)


MAILBOX = _made(True, False, False, x_expires=300_000, x_max_length_bytes=64 * 1024 * 1024, x_queue_type="classic")
RANDOM = "stomp-subscription-RANDOM"
OWN = {
    "durable:true": (RANDOM, _made(True, True, False)),
    "persistent:true": (RANDOM, _made(True, True, False)),
    "durable:false persistent:true": (RANDOM, _made(True, True, False)),
    "durable:true auto-delete:false": (RANDOM, _made(True, False, False)),
    "durable:true auto-delete:false exclusive:false": (RANDOM, _made(True, False, False)),
    "auto-delete:false": (RANDOM, _made(False, False, False)),
    "exclusive:true": (RANDOM, _made(False, True, True)),
    "exclusive:true auto-delete:false": (RANDOM, _made(False, False, True)),
    "x-queue-name:NAME": ("~named", _made(False, True, False)),
    "x-queue-name:NAME durable:true": ("~named", _made(True, True, False)),
    "x-queue-name:NAME durable:true auto-delete:false": ("~named", _made(True, False, False)),
    "x-queue-name:NAME auto-delete:false": ("~named", _made(False, False, False)),
    "x-queue-name:NAME exclusive:true": ("~named", _made(False, True, True)),
}

for _text, _own in OWN.items():

    @row(2, f"SUBSCRIBE to /topic with {_text}", equal(_own))
    async def subscribe_topic(target: Target, text: str = _text) -> Any:
        return await _own_queue(target, "/topic", "amq.topic", text)

    @row(2, f"SUBSCRIBE to /exchange with {_text}", equal(_own))
    async def subscribe_exchange(target: Target, text: str = _text) -> Any:
        return await _own_queue(target, "/exchange/parity.direct", "parity.direct", text)


@row(
    2,
    "SUBSCRIBE to /topic without headers",
    BETTER(
        "all subscriptions of a bridge share one queue",
        ours=(
            True,
            _made(True, False, False, x_expires=300_000, x_max_length_bytes=64 * 1024 * 1024, x_queue_type="classic"),
        ),
        theirs=(False, _made(False, True, False)),
    ),
)
async def plain_topic(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"/topic/{key}")
    ((queue),) = await target.bound("amq.topic", key)
    return queue.startswith("stompbridge."), await _declared(target, queue)


@row(
    2,
    "SUBSCRIBE to an exchange of another type",
    BETTER(
        "exclusive, as in RabbitMQ since 4.0.9",
        ours=(RANDOM, _made(False, True, True)),
        theirs=(RANDOM, _made(False, True, False)),
    ),
)
async def other_exchange(target: Target) -> Any:
    return await _own_queue(target, "/exchange/parity.headers", "parity.headers", "")


@row(2, "the stable name of a durable subscription")
async def stable_name(target: Target) -> Any:
    seen = []
    for destination, exchange, id in (
        ("/topic/{}", "amq.topic", "s0"),
        ("/exchange/parity.topic/{}", "parity.topic", "s0"),
        ("/exchange/parity.direct/{}", "parity.direct", "other"),
        ("/topic/{}.é", "amq.topic", "ü"),
        ("/topic/{}", "amq.topic", ""),
    ):
        peer = await target.connect()
        key = target.name(f"k{len(seen)}")
        await peer.subscribe(destination.format(key), id=id, durable="true")
        bound = key + ".é" if destination.endswith("é") else key
        strings = [
            b"\x6b" + len(text).to_bytes(2, "big") + text if text else b"\x6a" for text in (bound.encode(), id.encode())
        ]
        digest = hashlib.md5(b"\x83\x68\x02" + b"".join(strings), usedforsecurity=False).digest()
        name = "stomp-subscription-" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
        seen.append(await target.bound(exchange, bound) == [name])
    return seen


@row(2, "one queue for a topic and an exchange of the same key and id")
async def shared_name(target: Target) -> Any:
    key = target.name("k")
    for destination in (f"/topic/{key}", f"/exchange/parity.topic/{key}"):
        peer = await target.connect()
        await peer.subscribe(destination, id="s", durable="true")
    return await target.bound("amq.topic", key) == await target.bound("parity.topic", key)


@row(2, "a durable subscription keeps what comes while nobody is there")
async def durable_keeps(target: Target) -> Any:
    key = target.name("k")
    seen: list[Any] = []
    for auto_delete in ("false", "true"):
        destination = f"/topic/{key}.{auto_delete}"
        first = await target.connect()
        await first.subscribe(destination, id="s", durable="true", auto_delete=auto_delete)
        await first.disconnect()
        second = await target.connect()
        if auto_delete == "true":
            await target.until(lambda: _is_gone(target, f"{key}.true"))
        await second.send_and_wait(destination, "kept")
        await second.subscribe(destination, id="s", durable="true", auto_delete=auto_delete)
        await second.send_and_wait(destination, "later")
        seen.append(await second.show())
    return seen


async def _is_gone(target: Target, key: str) -> bool:
    return not await target.bound("amq.topic", key)


@row(2, "a queue that is not deleted by itself survives its subscription")
async def survives(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"/topic/{key}", auto_delete="false")
    await peer.disconnect()
    ((queue),) = await target.bound("amq.topic", key)
    return await _declared(target, queue)


@row(2, "x-queue-name says nothing for /queue")
async def queue_name_ignored(target: Target) -> Any:
    peer = await target.connect()
    await peer.subscribe(f"/queue/{target.name('q')}", x_queue_name=target.name("other"))
    return [await _declared(target, target.name("q")), await _declared(target, target.name("other"))]


WRONG = ["yes", "TRUE", "", "1"]


@row(2, "durable that is no boolean", equal([[("ERROR", "Processing error")]] * 8))
async def no_boolean(target: Target) -> Any:
    peer = await target.connect()
    return [
        _short(await peer.tried("SUBSCRIBE", {"destination": destination, "id": "s", "durable": value}))
        for destination in (f"/queue/{target.name('q')}", f"/topic/{target.name('k')}")
        for value in WRONG
    ]


@row(
    2,
    "auto-delete and exclusive that are no booleans",
    BETTER("said and not guessed at", ours=[[("ERROR", "Processing error")]] * 8, theirs=[[]] * 8),
)
async def no_other_boolean(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for header in ("auto-delete", "exclusive"):
        for value in WRONG:
            headers = {"destination": f"/queue/{target.name(header + value)}", "id": header + value, header: value}
            seen.append(_short(await peer.tried("SUBSCRIBE", headers)))
    return seen


ARGUMENTS = {
    "x-message-ttl": "60000",
    "x-expires": "600000",
    "x-max-length": "10",
    "x-max-length-bytes": "100000",
    "x-max-priority": "5",
    "x-dead-letter-exchange": "parity.topic",
    "x-dead-letter-routing-key": "dead",
    "x-queue-type": "classic",
}
VALUES = {name: int(value) if value.isdigit() else value for name, value in ARGUMENTS.items()}


@row(2, "queue arguments of a SUBSCRIBE to /queue", equal(_made(True, False, False) | {"arguments": VALUES}))
async def arguments_subscribe(target: Target) -> Any:
    peer = await target.connect()
    await peer.subscribe(f"/queue/{target.name('q')}", **ARGUMENTS)
    return await _declared(target, target.name("q"))


@row(2, "queue arguments of a SEND to /queue", equal(_made(True, False, False) | {"arguments": VALUES}))
async def arguments_send(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_and_wait(f"/queue/{target.name('q')}", "x", **ARGUMENTS)
    return await _declared(target, target.name("q"))


@row(2, "queue arguments of a SUBSCRIBE to /topic")
async def arguments_topic(target: Target) -> Any:
    name, queue = await _own_queue(
        target, "/topic", "amq.topic", " ".join(f"{name}:{value}" for name, value in ARGUMENTS.items())
    )
    return name, queue["arguments"]


@row(2, "arguments of numbers are long, spaces around values do not count")
async def argument_types(target: Target) -> Any:
    peer = await target.connect()
    queue = target.name("q")
    await peer.subscribe(f"/queue/{queue}", **{"x-max-length": " 10 ", "x-queue-type": " classic "})
    # A type that is not the same is another value to RabbitMQ.
    channel = await target.channel()
    await channel.queue_declare(
        queue, durable=True, arguments={"x-max-length": 10, "x-queue-type": "classic"}, passive=False
    )
    return await _declared(target, queue)


IGNORED = {
    "x-overflow": "reject-publish",
    "x-queue-mode": "lazy",
    "x-single-active-consumer": "true",
    "x-queue-master-locator": "min-masters",
    "x-ha-policy": "all",
    "arguments": "x",
}


@row(2, "arguments that are not passed on", equal([_made(True, False, False)] * 2))
async def arguments_ignored(target: Target) -> Any:
    peer = await target.connect()
    await peer.subscribe(f"/queue/{target.name('a')}", **IGNORED)
    await peer.send_and_wait(f"/queue/{target.name('b')}", "x", **IGNORED)
    return [await _declared(target, target.name("a")), await _declared(target, target.name("b"))]


@row(2, "an argument that is no number", equal([[("ERROR", "Processing error")]] * 8))
async def no_number(target: Target) -> Any:
    peer = await target.connect()
    return [
        _short(await peer.tried(command, {"destination": f"/queue/{target.name('q')}", "id": "s", "x-expires": value}))
        for command in ("SEND", "SUBSCRIBE")
        for value in ("soon", "", "1.5", "0x10")
    ]


@row(2, "an argument that RabbitMQ refuses")
async def refused(target: Target) -> Any:
    seen = []
    for command in ("SEND", "SUBSCRIBE"):
        peer = await target.connect()
        await peer.send_frame(command, {"destination": f"/queue/{target.name('q')}", "id": "s", "x-expires": "-1"})
        seen.append(await peer.ending())
    return seen


@row(2, "an argument that differs from that of the queue")
async def differs(target: Target) -> Any:
    first = await target.connect()
    name = target.name("q")
    await first.subscribe(f"/queue/{name}", id="s", x_max_length="10")
    seen = []
    for headers in ({}, {"x-max-length": "11"}, {"x-max-length": "10", "durable": "false", "exclusive": "false"}):
        peer = await target.connect()
        await peer.send_frame("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "s"} | headers)
        seen.append(await peer.ending())
    return [seen, await first.seen()]


@row(2, "a durable subscription that differs from the last")
async def durable_differs(target: Target) -> Any:
    key = target.name("k")
    first = await target.connect()
    await first.subscribe(f"/topic/{key}", id="s", durable="true", auto_delete="false")
    peer = await target.connect()
    headers = {"destination": f"/topic/{key}", "id": "s", "durable": "true", "x-max-length": "1"}
    await peer.send_frame("SUBSCRIBE", headers)
    return _short(await peer.ending())


@row(2, "an exclusive queue is its connection's", equal([[("ERROR", "resource_locked"), "closed"]] * 4 + [[], "gone"]))
async def exclusive(target: Target) -> Any:
    owner = await target.connect()
    name = target.name("q")
    await owner.subscribe(f"/queue/{name}", durable="false", auto_delete="false")
    seen: list[Any] = []
    for command, destination, headers in (
        ("SUBSCRIBE", f"/queue/{name}", {"durable": "false", "auto-delete": "false"}),
        ("SUBSCRIBE", f"/queue/{name}", {}),
        ("SUBSCRIBE", f"/amq/queue/{name}", {}),
        ("SEND", f"/queue/{name}", {}),
    ):
        peer = await target.connect()
        await peer.send_frame(command, {"destination": destination, "id": "s"} | headers)
        seen.append(_short(await peer.ending()))
    seen.append(await owner.seen())
    await owner.disconnect()
    await target.until(lambda: _no_queue(target, name))
    return [*seen, "gone"]


async def _no_queue(target: Target, name: str) -> bool:
    return await target.queue(name) is None


@row(2, "what RabbitMQ says of a queue that is another connection's")
async def locked(target: Target) -> Any:
    owner = await target.connect()
    await owner.subscribe(f"/queue/{target.name('q')}", exclusive="true")
    peer = await target.connect()
    await peer.send_frame("SUBSCRIBE", {"destination": f"/amq/queue/{target.name('q')}", "id": "s"})
    return await peer.ending()


@row(2, "others may send to an exclusive queue that they do not declare")
async def exclusive_sent_to(target: Target) -> Any:
    owner = await target.connect()
    await owner.subscribe(f"/queue/{target.name('q')}", exclusive="true")
    peer = await target.connect()
    await peer.send_and_wait(f"/amq/queue/{target.name('q')}", "x")
    return await owner.show()


@row(2, "an exclusive queue that a SEND declared goes with its connection")
async def exclusive_sent(target: Target) -> Any:
    owner = await target.connect()
    name = target.name("q")
    await owner.send_and_wait(f"/queue/{name}", "x", durable="false")
    before = await _declared(target, name)
    await owner.disconnect()
    return [before, await target.until(lambda: _no_queue(target, name))]


@row(2, "an exclusive queue is left by a connection that breaks")
async def exclusive_broken(target: Target) -> Any:
    owner = await target.connect()
    name = target.name("q")
    await owner.subscribe(f"/queue/{name}", exclusive="true")
    owner.abort()
    return await target.until(lambda: _no_queue(target, name))


async def _stream(target: Target, count: int) -> tuple[Peer, str]:
    peer = await target.connect()
    name = target.name("stream")
    await peer.subscribe(f"/queue/{name}", id="first", ack="client", prefetch_count="1", x_queue_type="stream")
    for number in range(count):
        await peer.send_and_wait(f"/queue/{name}", str(number))
    return peer, f"/queue/{name}"


@row(2, "from where a stream is read")
async def stream(target: Target) -> Any:
    _, destination = await _stream(target, 5)
    seen: list[Any] = []
    for offset, count in (("first", 5), ("offset=2", 3), ("last", 1), ("timestamp=0", 5), ("next", 1)):
        peer = await target.connect()
        headers = {"x-stream-offset": offset, "x-queue-type": "stream"}
        await peer.subscribe(destination, id="s", ack="client", prefetch_count="10", **headers)
        if offset == "next":
            await peer.send_and_wait(destination, "next")
        frames = await peer.messages(1 if offset == "last" else count)
        seen.append((offset, [(frame.text, frame.headers.get("x-stream-offset")) for frame in frames]))
    seen[2] = ("last", len(seen[2][1]))  # where the last chunk begins is a matter of time
    return seen


@row(2, "an offset that is no number", equal([[("ERROR", "Processing error")]] * 2))
async def no_offset(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for offset in ("offset=x", "timestamp=soon"):
        headers = {"destination": f"/queue/{target.name('q')}", "id": offset, "x-stream-offset": offset}
        seen.append(_short(await peer.tried("SUBSCRIBE", headers)))
    return seen


@row(2, "any other offset is none")
async def other_offset(target: Target) -> Any:
    _, destination = await _stream(target, 3)
    seen = []
    for offset in ("1h", "middle", " first"):
        peer = await target.connect()
        headers = {"x-stream-offset": offset, "x-queue-type": "stream"}
        await peer.subscribe(destination, id="s", ack="client", prefetch_count="10", **headers)
        seen.append(await peer.seen())
    return seen


test_row = rows_test(__name__)
