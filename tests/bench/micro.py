"""What one call of each hot piece costs, alone: ``python -m tests.bench.micro [--only WORD] [--repeats N]``.

The figure that counts is the smallest of the repeats, since whatever disturbs a measurement only adds to it. Times are
nanoseconds for one message (or one receiver, where the row says so), not for one call where a call handles many.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from websockets.speedups import apply_mask

from stompbridge.brokers.amqp.codec import SENDER_HEADER, SEQ_HEADER, encode_ack, encode_publish, frame
from stompbridge.brokers.amqp.splitter import Splitter
from stompbridge.brokers.base import Broker, Done, Message
from stompbridge.brokers.topics import TopicTrie
from stompbridge.config import App, Route
from stompbridge.dedup.window import SenderWindows
from stompbridge.gateway.frames import ws_frame
from stompbridge.gateway.handshake import StompServerProtocol
from stompbridge.gateway.receiver import Receiver
from stompbridge.histogram import Histogram
from stompbridge.routing.application import Application
from stompbridge.routing.destinations import parse
from stompbridge.routing.headers import message_from_send, message_head, shared_part
from stompbridge.routing.hub import FrameKey, Hub
from stompbridge.routing.snowflake import Snowflake
from stompbridge.stomp.parser import FrameParser
from stompbridge.stomp.session import AckMode, ServerSession, SessionSettings, Subscription, frame_counts
from tests.bench import report, wire

MEGABYTE = 1 << 20
BATCH = 10
RECEIVERS = 1000
PATTERNS = 1000
SENDERS = 500
CALL_SECONDS = 0.05

BODY = wire.body(wire.FIRST_NUMBER, wire.now())
HEADERS = {
    "destination": "/exchange/chat.exchange/roomId.7",
    "content-type": "application/json",
    "client": "web-2.11",
    "content-length": str(len(BODY)),
}
SEND = wire.stomp("SEND", HEADERS, BODY)
MASK = b"\x12\x34\x56\x78"


@dataclass(frozen=True, slots=True)
class Piece:
    """One row: what is called, and how many messages a call handles."""

    name: str
    call: Callable[[], object]
    messages: int = 1


def message() -> Message:
    """As it comes from a SEND of the chat application's page."""
    made = message_from_send(HEADERS, BODY, "chat.exchange", "roomId.7")
    made.sender, made.seq = "session-abcdefghijklmnopqrstuv", 12345
    made.message_id = f"{made.sender}:{made.seq}"
    return made


def masked(payload: bytes) -> bytes:
    """A client's frame with a mask that is not zero."""
    head = wire.client_head(len(payload))[:-4]
    return head + MASK + apply_mask(payload, MASK)


def delivery(channel: int, tag: int) -> bytes:
    """Basic.Deliver with header and body: the content frames are those of a publish."""

    def short(text: str) -> bytes:
        return bytes((len(text),)) + text.encode()

    method = b"\x00\x3c\x00\x3c" + short("stompbridge.chat") + tag.to_bytes(8, "big") + b"\x00"
    content = encode_publish(channel, message(), 131072, False)
    publish = 8 + int.from_bytes(content[3:7], "big")
    return frame(1, channel, method + short("chat.exchange") + short("roomId.7")) + content[publish:]


# One function for each part of the way of a message through the bridge.


def receive() -> list[Piece]:
    def pieces(count: int) -> Callable[[], object]:
        receiver = Receiver(StompServerProtocol(MEGABYTE), MEGABYTE, 1024)
        data = masked(SEND) * count

        def call() -> None:
            receiver.feed(data)
            while receiver.next() is not None:
                pass

        return call

    return [
        Piece("WebSocket receive path, 1 frame in a read", pieces(1)),
        Piece(f"WebSocket receive path, {BATCH} frames in a read", pieces(BATCH), BATCH),
    ]


def stomp_in() -> list[Piece]:
    parser = FrameParser(MEGABYTE, 100, 65536)

    def parse_one() -> None:
        parser.feed(SEND)
        parser.next_frame()
        parser.next_frame()

    session = connected_session()

    def session_send() -> None:
        session.feed(SEND)
        while session.next_event() is not None:
            pass

    acking = connected_session()
    subscription = Subscription("0", "/topic/a", AckMode.CLIENT, "T_0", {})
    ack = b"ACK\nid:T_0@@boot@@123456\n\n\0"

    def session_ack() -> None:
        acking.track("T_0@@boot@@123456", subscription, None)
        acking.feed(ack)
        while acking.next_event() is not None:
            pass

    return [
        Piece(f"STOMP parser, SEND of {len(SEND)} bytes", parse_one),
        Piece("STOMP session, SEND event", session_send),
        Piece("STOMP session, track and ACK event", session_ack),
    ]


def connected_session() -> ServerSession:
    settings = SessionSettings(
        send_floor_ms=1000,
        receive_floor_ms=1000,
        close_on_error=False,
        max_frame=MEGABYTE,
        max_frame_before_connect=65536,
        max_headers=100,
        max_header_bytes=65536,
        max_subscriptions=100,
        max_transactions=16,
        max_transaction_frames=100,
        max_transaction_bytes=1_000_000,
    )
    session = ServerSession(settings, "session-1", frame_counts())
    session.feed(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0")
    session.next_event()
    session.accept("stompbridge")
    return session


def route() -> list[Piece]:
    rule = Route(
        destination="/app/message/{roomId}",
        exchange="chat.exchange",
        routing_key="roomId.{roomId}",
        stamp={"roomId": "{roomId:int}", "senderSessionId": "{session}", "seq": "{snowflake}"},
    )
    application = Application(App(route=(rule,)))
    windows = SenderWindows(1024, 600.0)
    names = [f"session-{number}" for number in range(SENDERS)]
    at = 0

    def window() -> None:
        nonlocal at
        at += 1
        windows.check_and_record(names[at % SENDERS], at // SENDERS, 1.0)

    return [
        Piece("destination of a SEND", lambda: parse("/exchange/chat.exchange/roomId.7", "SEND")),
        Piece("message from SEND headers", lambda: message_from_send(HEADERS, BODY, "chat.exchange", "roomId.7")),
        Piece("/app route with three stamps", lambda: application.apply("/app/message/7", BODY, "session-1", 7)),
        Piece("snowflake", Snowflake(1, 1_288_834_974_657).next),
        Piece(f"sender window, {SENDERS} senders", window),
    ]


def match() -> list[Piece]:
    exact: TopicTrie[list[str]] = TopicTrie(list)
    for number in range(PATTERNS):
        exact.node(f"roomId.{number}")
    wild: TopicTrie[list[str]] = TopicTrie(list)
    for number in range(PATTERNS):
        wild.node(f"roomId.{number}.*")
    wild.node("roomId.#")
    hostile: TopicTrie[list[str]] = TopicTrie(list)
    hostile.node(".".join(["#", "a"] * 8))
    long_key = ".".join(["a"] * 40)
    return [
        Piece(f"topic match, {PATTERNS} exact patterns", lambda: exact.match("roomId.7")),
        Piece(f"topic match, {PATTERNS} patterns with * and one with #", lambda: wild.match("roomId.7.x")),
        Piece("topic match, '#.a' eight times and 40 words", lambda: hostile.match(long_key)),
    ]


def amqp() -> list[Piece]:
    published, bare = message(), Message("chat.exchange", "roomId.7", BODY)
    splitter = Splitter()
    splitter.channels.add(2)
    one, many = delivery(2, 7), delivery(2, 7) * BATCH
    confirm = frame(1, 2, b"\x00\x3c\x00\x50" + (7).to_bytes(8, "big") + b"\x00")
    _, [event] = splitter.feed(one)
    decoded = cast(Message, event.message)  # type: ignore[union-attr]
    if (decoded.sender, decoded.seq) != (published.sender, published.seq) or SENDER_HEADER in decoded.headers:
        raise AssertionError(f"{SENDER_HEADER} and {SEQ_HEADER} were not understood")
    return [
        Piece("AMQP publish encode, headers and identity", lambda: encode_publish(2, published, 131072, True)),
        Piece("AMQP publish encode, body alone", lambda: encode_publish(2, bare, 131072, True)),
        Piece("AMQP split and decode, 1 delivery in a read", lambda: splitter.feed(one)),
        Piece(f"AMQP split and decode, {BATCH} deliveries in a read", lambda: splitter.feed(many), BATCH),
        Piece("AMQP split, 1 confirm in a read", lambda: splitter.feed(confirm)),
        Piece("AMQP ack encode", lambda: encode_ack(2, 7, True)),
    ]


class Silent:
    """A receiver that drops everything, and the broker behind it."""

    frame_key = FrameKey("T_0", "0", False, True)

    def write(self, frames: bytes, count: int = 1) -> None:
        pass

    def deliver(self, frame: bytes, ack_id: str, message: Message) -> None:
        pass

    def exchange_type(self, exchange: str) -> str:
        return "topic"

    def bind(self, exchange: str, key: str, done: Done) -> None:
        done(None)


def deliver() -> list[Piece]:
    received = message()
    received.sender = None
    shared = shared_part(received, "/exchange/chat.exchange/roomId.7")
    # Without a name no copy is recognised: the same message is to be delivered again and again.
    nameless = message()
    nameless.sender = nameless.message_id = None
    head = message_head("0", "T_0@@boot@@12345", False, shared)
    hub = Hub(cast(Broker, Silent()), ws_frame, "boot", 1024, 600.0)
    for _ in range(RECEIVERS):
        hub.subscribe("chat.exchange", "roomId.7", Silent(), lambda failure: None)
    hub.subscribe("chat.exchange", "roomId.8", Silent(), lambda failure: None)
    alone = message_from_send(HEADERS, BODY, "chat.exchange", "roomId.8")
    return [
        Piece("MESSAGE head", lambda: message_head("0", "T_0@@boot@@12345", False, shared)),
        Piece("MESSAGE rest", lambda: shared_part(received, "/exchange/chat.exchange/roomId.7")),
        Piece("WebSocket frame around it", lambda: ws_frame(head + shared.rest, False)),
        Piece("hub, message to 1 receiver", lambda: hub.on_mailbox_messages("chat.exchange", [alone])),
        Piece(
            f"hub, message to {RECEIVERS} receivers, each",
            lambda: hub.on_mailbox_messages("chat.exchange", [nameless]),
            RECEIVERS,
        ),
        Piece(
            f"hub, {BATCH} messages to {RECEIVERS} receivers, each",
            lambda: hub.on_mailbox_messages("chat.exchange", [nameless] * BATCH),
            RECEIVERS * BATCH,
        ),
    ]


def count() -> list[Piece]:
    """What it costs that ``/metrics`` can tell."""
    histogram, frames = Histogram(), frame_counts()

    def a_frame() -> None:
        frames["SEND"] += 1

    return [
        Piece("a duration, once for each confirm and each batch of deliveries", lambda: histogram.observe(0.0012)),
        Piece("the time, once for each of them", lambda: time.monotonic() - 1.0),
        Piece("a frame, once for each from a client", a_frame),
    ]


PARTS: Mapping[str, Callable[[], list[Piece]]] = {
    "receive": receive,
    "stomp": stomp_in,
    "route": route,
    "amqp": amqp,
    "match": match,
    "deliver": deliver,
    "count": count,
}


def measure(piece: Piece, repeats: int, seconds: float) -> list[float]:
    """Nanoseconds for one message, once for each repeat; each takes about ``seconds``."""
    timer = timeit.Timer(piece.call)
    count = 1
    while (took := timer.timeit(count)) < seconds / 10 and count < 10_000_000:
        count *= 4
    count = max(1, int(count * seconds / max(took, 1e-9)))
    gc.collect()
    return [timer.timeit(count) / count / piece.messages * 1e9 for _ in range(repeats)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.micro", description=__doc__)
    parser.add_argument("--only", default="", help="rows with this text, or of one of the parts " + ", ".join(PARTS))
    parser.add_argument("--repeats", type=int, choices=range(1, 101), default=9, metavar="1..100")
    options = parser.parse_args(argv)
    rows = [["part", "piece", "ns", "median"]]
    for name, make in PARTS.items():
        for piece in make():
            if options.only in f"{name} {piece.name}":
                figures = measure(piece, options.repeats, CALL_SECONDS)
                rows.append([name, piece.name, f"{min(figures):,.0f}", f"{statistics.median(figures):,.0f}"])
    sys.stdout.write(report.align(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
