"""Framing, limits, ERROR and close."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed

from tests.support.observing import closing, make_queue, summaries, summary
from tests.support.parity import BETTER, EQUAL, UNRUN, Peer, Target, equal, error, row, rows_test
from tests.support.stomp import encode

ALIVE = b"BEGIN\ntransaction:alive\nreceipt:alive\n\n\0"
VERSIONS = ("1.0", "1.1", "1.2")


async def _answers(target: Target, version: str, *frames: bytes) -> list[Any]:
    """What comes of these bytes, up to the receipt of a frame that follows, or to the end."""
    peer = await target.connect(version=version)
    for frame in frames:
        await peer.send_raw(frame)
    await peer.send_raw(ALIVE)
    seen = []
    while (frame_seen := await peer.next_or_none()) is not None:
        if frame_seen.headers.get("receipt-id") == "alive":
            return seen
        seen.append(target.show(frame_seen))
    return [*seen, "closed"]


def _begin(*lines: str, receipt: str = "r") -> bytes:
    return "\n".join(["BEGIN", "transaction:t", *lines, f"receipt:{receipt}", "", "\0"]).encode()


RECEIPT = ("RECEIPT", {"receipt-id": "r"}, "")


def _same_everywhere(name: str, *frames: bytes, seen: Any) -> None:
    @row(12, name, equal([seen] * 3))
    async def scenario(target: Target) -> Any:
        return [await _answers(target, version, *frames) for version in VERSIONS]


_same_everywhere("CRLF is LF", _begin().replace(b"\n", b"\r\n"), seen=[RECEIPT])
_same_everywhere("CRLF and LF in one frame", _begin().replace(b"\n", b"\r\n", 2), seen=[RECEIPT])
_same_everywhere("ends of line between frames", b"\n\n\r\n\n" + _begin() + b"\r\n\n", seen=[RECEIPT])
_same_everywhere("NULs between frames", b"\0\0\n\0" + _begin() + b"\0\0", seen=[RECEIPT])
_same_everywhere("many frames in one piece", _begin() * 50, seen=[RECEIPT] * 50)
_same_everywhere("a frame byte by byte", *[bytes((byte,)) for byte in _begin()], seen=[RECEIPT])
_same_everywhere("the first of repeated headers counts", _begin("receipt:r", receipt="second"), seen=[RECEIPT])
_same_everywhere("colons in values", _begin(receipt="a:b::c:"), seen=[("RECEIPT", {"receipt-id": "a:b::c:"}, "")])
_same_everywhere(
    "escapes in values",
    _begin(receipt=r"a\cb\nc\\d\re\\n"),
    seen=[("RECEIPT", {"receipt-id": "a:b\nc\\d\re\\n"}, "")],
)
_same_everywhere("escapes in names", _begin(r"rece\\ipt:x", r"\n:y", r"re\ceipt:z"), seen=[RECEIPT])
_same_everywhere(
    "spaces at the end of a value stay", _begin(receipt="r  "), seen=[("RECEIPT", {"receipt-id": "r  "}, "")]
)
_same_everywhere("an empty value", _begin(receipt=""), seen=[("RECEIPT", {"receipt-id": ""}, "")])
_same_everywhere("a body where none belongs", b"BEGIN\ntransaction:t\nreceipt:r\n\nbody\0", seen=[RECEIPT])
_same_everywhere("not only ASCII", _begin(receipt="é€😀"), seen=[("RECEIPT", {"receipt-id": "é€😀"}, "")])


@row(12, "spaces at the start of a value", equal(["  r", "  r", "r"]))
async def leading_spaces(target: Target) -> Any:
    """1.0 takes them away."""
    seen = [await _answers(target, version, _begin(receipt="  r")) for version in reversed(VERSIONS)]
    return [headers["receipt-id"] for ((_, headers, _),) in seen]


BODIES = [
    (b"", b""),
    (b"x", b"x"),
    (b"two\nlines\r\n", b"two\nlines\r\n"),
    (b"content-length", b"a\0b\0\0c"),
    ("é€😀".encode(), "é€😀".encode()),
]


@row(12, "bodies come as they were sent", equal([body.decode() for _, body in BODIES]))
async def bodies(target: Target) -> Any:
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    for _, body in BODIES:
        await peer.send(topic, body)
    return await peer.bodies(len(BODIES))


@row(12, "a body without content-length ends at the first NUL", equal(["body"]))
async def up_to_nul(target: Target) -> Any:
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    await peer.send_raw(encode("SEND", {"destination": topic}, "body", content_length=False))
    return await peer.bodies(1)


NOT_UTF8 = b"\xff\xfe\x00\x80"


async def _opaque(target: Target) -> Any:
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    await peer.send(topic, NOT_UTF8)
    frame = await peer.next_or_none()
    return "closed" if frame is None else list(frame.body)


@row(12, "a body that is not UTF-8", equal(list(NOT_UTF8)))
async def opaque(target: Target) -> Any:
    return await _opaque(target)


@row(
    12,
    "a body that is not UTF-8, over WebSocket",
    BETTER(
        "it comes as a binary message; Web STOMP's is text, which clients refuse", theirs="closed", ours=list(NOT_UTF8)
    ),
    over="web",
)
async def opaque_web(target: Target) -> Any:
    return await _opaque(target)


@row(12, "each frame ends with NUL and LF", equal([b"\0\n"] * 4))
async def trailing_lf(target: Target) -> Any:
    peer = await target.open()
    topic = f"/topic/{target.name('t')}"
    ends = []
    for sent in (
        b"CONNECT\naccept-version:1.2\n\n\0",
        encode("SUBSCRIBE", {"destination": topic, "id": "s", "receipt": "r"}),
        encode("SEND", {"destination": topic}, "x"),
        encode("SEND"),
    ):
        await peer.send_raw(sent)
        data = await peer.ws.recv()
        ends.append((data if isinstance(data, bytes) else data.encode())[-2:])
    return ends


@row(12, "each frame ends with NUL and LF, over WebSocket", equal([b"\0\n"] * 4), over="web")
async def trailing_lf_web(target: Target) -> Any:
    return await trailing_lf(target)


@row(12, "any cut of the bytes into messages, text or binary", equal(["RECEIPT r"] * 4), over="web")
async def cuts(target: Target) -> Any:
    peer = await target.connect()
    frame = _begin()
    for pieces in (
        [frame[at : at + 3] for at in range(0, len(frame), 3)],
        [frame.decode()[:10], frame[10:]],
        ["", frame, b"", "\n", b"\n\n"],
        [frame + b"\n"],
    ):
        for piece in pieces:
            await peer.ws.send(piece)
    return summaries(await peer.shows(4))


# What is no frame

LENGTH = b"SEND\ndestination:/queue/a\ncontent-length:%b\n\nxyz\0"
NO_NUMBER = "'content-length' must be a number of bytes."
MALFORMED: list[tuple[str, bytes, str, tuple[int, str]]] = [
    (
        "an undefined escape",
        b"SEND\ndestination:/queue/a\\t\n\nx\0",
        r"'\t' is not a valid escape sequence.",
        (1007, r'{bad_escape,"\\t"}'),
    ),
    (
        "a header line without a colon",
        b"SEND\nbroken\n\nx\0",
        "A header line must have a colon.",
        (1007, '{header_no_value,"broken"}'),
    ),
    (
        "CR before anything but LF",
        b"SEND\na:\rb\n\nx\0",
        "CR must be followed by LF.",
        (1007, r'{unexpected_chars_in_header,"\rb"}'),
    ),
    (
        "content-length too small",
        LENGTH % b"1",
        "The body must end with NUL after 'content-length' bytes.",
        (1011, ""),
    ),
    ("content-length that is no number", LENGTH % b"three", NO_NUMBER, (1011, "")),
    ("content-length below zero", LENGTH % b"-1", NO_NUMBER, (1011, "")),
]


def _malformed(name: str, frame: bytes, cause: str, close: tuple[int, str]) -> None:
    why = "an ERROR says what is wrong"

    @row(
        12,
        name,
        BETTER(why, theirs=["closed"], ours=[error("Malformed frame", f"{cause}\n"), "closed"]),
    )
    async def scenario(target: Target) -> Any:
        return await _answers(target, "1.2", frame)

    @row(
        12,
        f"{name}, over WebSocket",
        BETTER(
            why,
            theirs=(["closed"], *close),
            ours=(["ERROR Malformed frame", "closed"], 1002, "Malformed frame"),
        ),
        over="web",
    )
    async def over_web(target: Target) -> Any:
        peer = await target.connect()
        await peer.send_raw(frame)
        return await closing(peer)


for _case in MALFORMED:
    _malformed(*_case)


@row(
    12,
    "an undefined escape in 1.0",
    BETTER("1.0 has no escapes: it stays as it is", theirs=["closed"], ours=[("RECEIPT", {"receipt-id": r"a\tb"}, "")]),
)
async def escape_in_10(target: Target) -> Any:
    return await _answers(target, "1.0", _begin(receipt=r"a\tb"))


@row(
    12,
    "a backslash in CONNECT",
    BETTER("CONNECT has no escapes, so that passcodes need none", theirs=["closed"], ours=["CONNECTED", "1.2"]),
)
async def escape_in_connect(target: Target) -> Any:
    peer = await target.open()
    await peer.send_raw(b"CONNECT\naccept-version:1.2\nx:a\\tb\n\n\0")
    frame = await peer.next_or_none()
    return ["closed"] if frame is None else [frame.command, frame.headers["version"]]


@row(
    12,
    "content-length on other frames than SEND",
    BETTER(
        "it is read, as the specification demands",
        theirs=[RECEIPT],
        ours=["ERROR Malformed frame", "closed"],
    ),
)
async def other_content_length(target: Target) -> Any:
    seen = await _answers(target, "1.2", _begin("content-length:3"))
    return seen if not target.ours else summaries(seen)


@row(
    12,
    "a header without a name",
    BETTER("the specification has none", theirs=[RECEIPT], ours=["ERROR Malformed frame", "closed"]),
)
async def nameless(target: Target) -> Any:
    seen = await _answers(target, "1.2", _begin(":x"))
    return seen if not target.ours else summaries(seen)


@row(
    12,
    "headers that are not UTF-8",
    BETTER(
        "the specification demands UTF-8",
        theirs=[("RECEIPT", {"receipt-id": "closed"}, "")],
        ours=["ERROR Malformed frame", "closed"],
    ),
)
async def not_utf8(target: Target) -> Any:
    frame = b"BEGIN\ntransaction:\xff\nreceipt:closed\n\n\0"
    seen = await _answers(target, "1.2", frame)
    return seen if not target.ours else summaries(seen)


UNKNOWN = ["FOO", "send", "MESSAGE", "CONNECTED", "BEGIN ", "A" * 200]


@row(
    12,
    "unknown commands",
    equal([[error("Bad command", f'Could not interpret command "{command}"\n')] for command in UNKNOWN]),
)
async def unknown_commands(target: Target) -> Any:
    return [await _answers(target, "1.2", encode(command)) for command in UNKNOWN]


# Limits


async def _outcome(target: Target, headers: dict[str, str]) -> list[str]:
    """What comes of a SEND with these headers."""
    peer = await target.connect()
    await peer.send_frame("SEND", {"destination": f"/topic/{target.name('t')}", "receipt": "r"} | headers)
    seen = summary(await peer.show())
    return [seen] if seen == "RECEIPT r" else [seen, *summaries(await peer.ending())]


@row(
    12,
    "a large body",
    BETTER(
        "there is a limit, as in RabbitMQ from 3.12.2 on", theirs=5_000_000, ours=["ERROR Frame too large", "closed"]
    ),
)
async def large_body(target: Target) -> Any:
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    # In pieces: a WebSocket message has the same limit, and another end.
    frame = encode("SEND", {"destination": topic}, b"x" * 5_000_000)
    with contextlib.suppress(ConnectionClosed):
        for at in range(0, len(frame), 1_000_000):
            await peer.send_raw(frame[at : at + 1_000_000])
    frame_seen = await peer.receive()
    if frame_seen.command == "MESSAGE":
        return len(frame_seen.body)
    return [f"{frame_seen.command} {frame_seen.message}", *summaries(await peer.ending())]


@row(12, "a body that is just not too large", equal(4_000_000))
async def body_within_limits(target: Target) -> Any:
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    frame = encode("SEND", {"destination": topic}, b"x" * 4_000_000)
    for at in range(0, len(frame), 1_000_000):
        await peer.send_raw(frame[at : at + 1_000_000])
    return len((await peer.receive(30)).body)


@row(
    12,
    "many headers",
    BETTER(
        "there is a limit, as in RabbitMQ from 4.2.6 on", theirs=["RECEIPT r"], ours=["ERROR Limit exceeded", "closed"]
    ),
)
async def many_headers(target: Target) -> Any:
    return await _outcome(target, {f"h{number}": "x" for number in range(200)})


@row(12, "a hundred headers", equal(["RECEIPT r"]))
async def hundred_headers(target: Target) -> Any:
    return await _outcome(target, {f"h{number}": "x" for number in range(98)})


@row(
    12,
    "a long header",
    BETTER("there is a limit, as in RabbitMQ 4.4", theirs=["RECEIPT r"], ours=["ERROR Limit exceeded", "closed"]),
)
async def long_header(target: Target) -> Any:
    return await _outcome(target, {"long": "x" * 100_000})


@row(12, "a header that is just not too long", equal(["RECEIPT r"]))
async def header_within_limits(target: Target) -> Any:
    return await _outcome(target, {"long": "x" * 60_000})


@row(
    12,
    "a large frame before CONNECT",
    UNRUN("a limit of RabbitMQ from 4.2.6 on", ours=[(["ERROR Limit exceeded", "closed"], 1002), (["closed"], 1009)]),
)
async def before_connect(target: Target) -> Any:
    """In pieces, and as one WebSocket message."""
    seen = []
    for pieces in (8, 1):
        peer = await target.open()
        for _ in range(pieces):
            await peer.send_raw("CONNECT\n" + "x" * (80_000 // pieces))
        seen.append((await closing(peer))[:2])
    return seen


# ERROR, and what ends the connection


@row(12, "the headers of an ERROR, in their order", equal(["message", "content-type", "version", "content-length"]))
async def headers_of_error(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_frame("SEND")
    return [name for name, _ in (await peer.receive()).pairs]


@row(12, "errors that the connection survives", equal(["RECEIPT alive"] * 8))
async def survived(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for wrong in (
        encode("SEND"),
        encode("SUBSCRIBE", {"destination": "/foo/bar", "id": "s"}),
        encode("SUBSCRIBE", {"destination": "/queue/a/b", "id": "s"}),
        encode("SUBSCRIBE", {"destination": "/topic/a", "id": "s", "ack": "sometimes"}),
        encode("UNSUBSCRIBE", {"id": "none"}),
        encode("ACK", {"id": "none"}),
        encode("COMMIT", {"transaction": "none"}),
        encode("FOO"),
    ):
        await peer.send_raw(wrong + ALIVE)
        frame = await peer.receive()
        assert frame.command == "ERROR"
        seen.append(summary(await peer.show()))
    return seen


async def _fatal(target: Target, command: str, headers: dict[str, str]) -> list[Any]:
    peer = await target.connect()
    await peer.send_frame(command, headers)
    return await peer.ending()


def _ends_it(name: str, command: str, destination: str, message: str, text: str, **more: str) -> None:
    @row(12, f"{name} ends the connection", equal([error(message, text), "closed"]))
    async def scenario(target: Target) -> Any:
        place = destination.replace("~", target.name("x"))
        return await _fatal(target, command, {"destination": place, "id": "s"} | more)


_ends_it("a SEND to no exchange", "SEND", "/exchange/~/k", "not_found", "NOT_FOUND - no exchange '~x' in vhost '/'")
_ends_it(
    "a SUBSCRIBE to no exchange", "SUBSCRIBE", "/exchange/~/k", "not_found", "NOT_FOUND - no exchange '~x' in vhost '/'"
)
_ends_it("a SUBSCRIBE to no queue", "SUBSCRIBE", "/amq/queue/~", "not_found", "NOT_FOUND - no queue '~x' in vhost '/'")
_ends_it(
    "a queue with a reserved name",
    "SUBSCRIBE",
    "/queue/amq.~",
    "access_refused",
    "ACCESS_REFUSED - queue name 'amq.~x' contains reserved prefix 'amq.*'",
)
_ends_it(
    "a SEND to the default exchange by name",
    "SEND",
    "/exchange/amq.~/k",
    "not_found",
    "NOT_FOUND - no exchange 'amq.~x' in vhost '/'",
)


@row(12, "other arguments than a queue's end the connection", EQUAL)
async def inequivalent(target: Target) -> Any:
    queue = await make_queue(target, x_max_length=5)
    return await _fatal(target, "SUBSCRIBE", {"destination": f"/queue/{queue}", "id": "s"})


@row(12, "another connection's exclusive queue ends the connection", EQUAL)
async def locked(target: Target) -> Any:
    channel = await target.channel()
    queue = target.name("q")
    await channel.queue_declare(queue, exclusive=True)
    return await _fatal(target, "SUBSCRIBE", {"destination": f"/amq/queue/{queue}", "id": "s"})


@row(12, "a second subscription of one id ends the connection", EQUAL)
async def duplicate(target: Target) -> Any:
    peer = await target.connect()
    for _ in range(2):
        await peer.send_frame("SUBSCRIBE", {"destination": f"/topic/{target.name('t')}", "id": "s"})
    return await peer.ending()


async def _limited(target: Target, **permissions: str) -> Peer:
    """A client whose login has only these permissions."""
    user = target.name("user")
    await target.api(f"users/{user}", "PUT", {"password": "secret", "tags": ""})
    await target.api(f"permissions/%2F/{user}", "PUT", dict.fromkeys(("configure", "write", "read"), "") | permissions)
    return await target.connect({"accept-version": "1.2", "login": user, "passcode": "secret"})


@row(12, "no permission to send ends the connection", EQUAL, bridge="login")
async def may_not_send(target: Target) -> Any:
    peer = await _limited(target)
    await peer.send("/exchange/parity.direct/k", "x")
    return await peer.ending()


@row(12, "no permission to declare ends the connection", EQUAL, bridge="login")
async def may_not_declare(target: Target) -> Any:
    peer = await _limited(target)
    await peer.send_frame("SUBSCRIBE", {"destination": f"/queue/{target.name('q')}", "id": "s"})
    return await peer.ending()


@row(12, "no permission to consume ends the connection", EQUAL, bridge="login")
async def may_not_consume(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await _limited(target)
    await peer.send_frame("SUBSCRIBE", {"destination": f"/amq/queue/{queue}", "id": "s"})
    return await peer.ending()


@row(
    12,
    "a fatal ERROR, over WebSocket",
    BETTER(
        "it arrives; up to 3.10.13 Web STOMP loses the last frame",
        theirs=(["closed"], 1000, "STOMP died"),
        ours=(["ERROR not_found", "closed"], 1002, "not_found"),
    ),
    over="web",
)
async def last_frame(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_frame("SUBSCRIBE", {"destination": f"/amq/queue/{target.name('none')}", "id": "s"})
    return await closing(peer)


def _cancelled(id: str | None, where: str, description: str) -> None:
    name = "with" if id else "without"
    text = f'The server has canceled a subscription.\nNo more messages will be delivered for "{description}".\n'

    @row(
        12,
        f"a queue is deleted under a subscription {name} id",
        equal([error("Server cancelled subscription", text, subscription=where), "MESSAGE still here"]),
    )
    async def scenario(target: Target) -> Any:
        queue = await make_queue(target)
        topic = f"/topic/{target.name('t')}"
        peer = await target.connect()
        await peer.request("SUBSCRIBE", {"destination": f"/amq/queue/{queue}"} | ({"id": id} if id else {}))
        await peer.subscribe(topic, id="other")
        channel = await target.channel()
        await channel.queue_delete(queue)
        seen = [await peer.show()]
        await peer.send(topic, "still here")
        return [*seen, summary(await peer.show())]


_cancelled("s0", "s0", "id='s0'")
_cancelled(None, "/amq/queue/~q", "destination='/amq/queue/~q'")


@row(12, "the id of a subscription whose queue was deleted is free again", equal(["RECEIPT s", "MESSAGE x"]))
async def after_cancel(target: Target) -> Any:
    queue = await make_queue(target)
    peer = await target.connect()
    await peer.subscribe(f"/amq/queue/{queue}", id="s")
    channel = await target.channel()
    await channel.queue_delete(queue)
    await peer.error("Server cancelled subscription")
    topic = f"/topic/{target.name('t')}"
    await peer.send_frame("SUBSCRIBE", {"destination": topic, "id": "s", "receipt": "s"})
    await peer.send(topic, "x")
    return summaries(await peer.shows(2))


@row(
    12,
    "an operator closes the connections of a user",
    BETTER(
        "the bridge connects again, and its clients stay",
        theirs=["ERROR AMQP channel died", "closed"],
        ours=["RECEIPT r", "MESSAGE x"],
    ),
    bridge="login",
)
async def closed_by_operator(target: Target) -> Any:
    user = target.name("user")
    await target.api(f"users/{user}", "PUT", {"password": "secret", "tags": ""})
    await target.api(f"permissions/%2F/{user}", "PUT", dict.fromkeys(("configure", "write", "read"), ".*"))
    peer = await target.connect({"accept-version": "1.2", "login": user, "passcode": "secret"})
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    expected = 2 if target.ours else 1  # RabbitMQ's table lags behind

    async def found() -> list[str]:
        names = [one["name"] for one in await target.api("connections") if one.get("user") == user]
        return names if len(names) == expected else []

    for name in await target.until(found, within=25):
        await target.api(f"connections/{quote(name, safe='')}", "DELETE")
    if not target.ours:
        return summaries(await peer.ending())
    await peer.send(topic, "x", receipt="r")
    return sorted(summaries(await peer.shows(2)), reverse=True)


test_row = rows_test(__name__)
