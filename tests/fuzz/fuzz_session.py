"""Fuzzes the STOMP parser and session with Atheris: python tests/fuzz/fuzz_session.py -max_total_time=60 corpus/

The first byte chooses the session's settings, the rest is what a client sends, in plain or with one byte for each of
the protocol's words. It is fed whole, in pieces and byte by byte, which must make no difference. What else must hold is
asserted below.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import atheris
from fuzzing import cut, run

with atheris.instrument_imports(include=["stompbridge"]):
    from stompbridge.stomp import errors, events
    from stompbridge.stomp.frames import Frame, Version
    from stompbridge.stomp.parser import FrameParser
    from stompbridge.stomp.session import ServerSession, SessionSettings, State, frame_counts

OPENINGS = (
    b"",
    b"CONNECT\naccept-version:1.2\n\n\0",
    b"STOMP\naccept-version:1.1\nheart-beat:1000,1000\n\n\0",
    b"CONNECT\n\n\0",
)
BEFORE_CONNECT = 100
# Every error that a session may raise has its text in one module.
DOCUMENTED = frozenset(re.findall(r'StompError\(\s*"([^"]+)"', Path(errors.__file__).read_text()))


def settings(mode: int) -> SessionSettings:
    tight = bool(mode & 8)
    return SessionSettings(
        send_floor_ms=1000,
        receive_floor_ms=1000,
        close_on_error=bool(mode & 4),
        max_frame=150 if tight else 10_000,
        max_frame_before_connect=BEFORE_CONNECT,
        max_headers=4 if tight else 100,
        max_header_bytes=80 if tight else 10_000,
        max_subscriptions=2 if tight else 100,
        max_transactions=2,
        max_transaction_frames=2 if tight else 100,
        max_transaction_bytes=100 if tight else 10_000,
    )


WORDS = tuple(
    word.encode()
    for word in (
        "CONNECT\n", "STOMP\n", "SEND\n", "SUBSCRIBE\n", "UNSUBSCRIBE\n", "ACK\n", "NACK\n", "BEGIN\n", "COMMIT\n",
        "ABORT\n", "DISCONNECT\n", "destination:/queue/a\n", "destination:/queue/b\n", "destination:", "id:1\n",
        "id:2\n", "id:/temp-queue/x\n", "ack:client\n", "ack:client-individual\n", "receipt:r\n", "transaction:t\n",
        "transaction:u\n", "content-length:0\n", "content-length:1\n", "content-length:", "requeue:false\n",
        "durable:true\n", "heart-beat:1,2\n", "accept-version:1.1\n", "message-id:", "id:", "T_1@@s@@", "T_2@@s@@",
        "Q_/queue/a@@s@@", "@@", "\\c", "\\n", "\\t", "\r\n", "\n\n", "\n\0", "\n\n\0", "é", "FOO\n", "a:b\n", "True",
    )
)  # fmt: skip


def spell_out(data: bytes) -> bytes:
    """From 128 on a byte is a word, below it itself."""
    return b"".join(bytes((octet,)) if octet < 128 else WORDS[octet % len(WORDS)] for octet in data)


class Conversation:
    """One session, whose every message is acknowledged or not as the client likes."""

    def __init__(self, mode: int) -> None:
        self.settings = settings(mode)
        self.session = ServerSession(self.settings, "session-1", frame_counts())
        self.log: list[str] = []
        self.over = False
        self.number = 0
        self.waiting: dict[str, events.Delivery] = {}

    def feed(self, data: bytes) -> None:
        session = self.session
        session.feed(data)
        while (event := session.next_event()) is not None:
            assert not self.over, event
            self.log.append(describe(event))
            self.take(event)
            self.deliver()
        assert list(session.unacked.values()) == list(self.waiting.values())
        for delivery in self.waiting.values():
            assert session.subscriptions[delivery.subscription.tag] is delivery.subscription
        assert len(session.subscriptions) <= self.settings.max_subscriptions
        if session.state in (State.AWAITING_CONNECT, State.CONNECTED):
            connected = session.state is State.CONNECTED
            limit = self.settings.max_frame if connected else BEFORE_CONNECT
            # The end of the frame, or of its blank line, may be on its way.
            assert session.buffered <= limit + 4, session.buffered

    def take(self, event: events.Event) -> None:
        session = self.session
        match event:
            case events.Connect():
                frame = parse(session.accept("stompbridge/1"))
                assert frame.command == "CONNECTED"
                assert frame.headers["version"] == event.version
            case events.Refused():
                self.refused(event)
            case events.Keep():
                try:
                    session.keep(event)
                except errors.StompError as error:
                    self.refused(events.Refused(error, event.receipt))
            case events.Unsubscribe():
                self.gone(event.released)
                assert all(delivery.subscription is event.subscription for delivery in event.released)
            case events.Settle():
                self.gone(event.deliveries)
            case events.Commit():
                for action in event.actions:
                    if isinstance(action, events.Settle):
                        self.gone(action.deliveries)
            case events.Disconnect():
                self.over = True
        receipt = getattr(event, "receipt", None)
        if receipt is not None:
            frame = parse(session.receipt(receipt))
            assert (frame.command, frame.headers) == ("RECEIPT", {"receipt-id": receipt})

    def refused(self, event: events.Refused) -> None:
        error = event.error
        assert error.message in DOCUMENTED, error
        before = self.session.closing
        frame = parse(self.session.error(error, event.receipt))
        assert frame.command == "ERROR"
        assert frame.headers["message"] == error.message
        assert frame.headers.get("receipt-id") == event.receipt
        assert frame.body == error.body.encode()
        assert self.session.closing is before is (error.fatal or self.settings.close_on_error)
        self.over = before

    def gone(self, deliveries: list[events.Delivery]) -> None:
        """Settled or released: once, and only what was sent."""
        for delivery in deliveries:
            assert self.waiting.pop(delivery.ack_id) is delivery

    def deliver(self) -> None:
        if self.over:
            return
        for subscription in self.session.subscriptions.values():
            if subscription.ack is not events.AckMode.AUTO and len(self.waiting) < 20:
                self.number += 1
                ack_id = f"{subscription.tag}@@s@@{self.number}"
                self.waiting[ack_id] = self.session.track(ack_id, subscription, None)


def describe(event: object) -> str:
    """All that an event says."""
    if isinstance(event, list):
        return f"[{', '.join(describe(each) for each in event)}]"
    if isinstance(event, errors.StompError):
        return f"{event.message!r} {event.body!r} {event.fatal} {event.headers}"
    if isinstance(event, events.Delivery):
        return event.ack_id
    if type(event).__module__ == events.__name__ and not isinstance(event, events.AckMode):
        values = (describe(getattr(event, field.name)) for field in fields(event))  # type: ignore[arg-type]
        return f"{type(event).__name__}({', '.join(values)})"
    return repr(event)


def parse(data: bytes) -> Frame:
    """What a client reads: one frame and nothing else."""
    parser = FrameParser(1_000_000, 100, 1_000_000)
    parser.version = Version.V12
    parser.feed(data)
    frame = parser.next_frame()
    assert frame is not None
    assert parser.next_frame() is None
    assert parser.buffered == 0
    return frame


def test_one_input(data: bytes) -> None:
    mode = data[0] if data else 0
    stream = OPENINGS[mode & 3] + (spell_out(data[1:]) if mode & 128 else data[1:])
    logs = []
    for size in (0, 1, 2 + (mode >> 4 & 7)):
        conversation = Conversation(mode)
        for piece in cut(stream, size):
            conversation.feed(piece)
        logs.append((conversation.log, conversation.session.state))
    assert logs[0] == logs[1] == logs[2], logs


SEEDS = [
    b"\x01SEND\ndestination:/queue/a\nreceipt:1\n\nhello\0\nSEND\ndestination:/topic/b\ncontent-length:3\n\na\0b\0",
    b"\x01SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n\0ACK\nid:T_1@@s@@1\n\n\0NACK\nid:T_1@@s@@2\n\n\0",
    b"\x02SUBSCRIBE\nid:1\ndestination:/a\nack:client-individual\n\n\0ACK\nmessage-id:T_1@@s@@1\nsubscription:1\n\n\0",
    b"\x03SUBSCRIBE\ndestination:/a\nack:client\n\n\0\nUNSUBSCRIBE\ndestination:/a\n\n\0ACK\nmessage-id:Q_/a@@s@@1\n\n\0",
    b"\x11BEGIN\ntransaction:t\n\n\0SEND\ndestination:/a\ntransaction:t\n\nx\0COMMIT\ntransaction:t\nreceipt:r\n\n\0",
    b"\x01SUBSCRIBE\nid:1\ndestination:/a\nack:client\n\n\0BEGIN\ntransaction:t\n\n\0ACK\nid:T_1@@s@@1\ntransaction:t\n\n\0"
    b"COMMIT\ntransaction:t\n\n\0",
    b"\x09BEGIN\ntransaction:t\n\n\0ABORT\ntransaction:t\n\n\0DISCONNECT\nreceipt:bye\n\n\0SEND\n\n\0",
    b"\x00CONNECT\r\naccept-version:1.0,1.2\r\nheart-beat:5000,x\r\n\r\n\0\r\n\n\0SEND\ndestination:/a\\n\\cb\n\n\0",
    b"\x05FOO\n\n\0",
    b"\x01ACK\n\n\0SUBSCRIBE\n\n\0SEND\n\n\0UNSUBSCRIBE\n\n\0UNSUBSCRIBE\nid:/temp-queue/x\n\n\0UNSUBSCRIBE\nid:1\n\n\0COMMIT\n\n\0"
    b"SUBSCRIBE\nid:1\ndestination:/a\nack:x\n\n\0ACK\nid:a@@b@@c\n\n\0ACK\nid:x\n\n\0SEND\ndestination:/a\ntransaction:t\n\n\0",
    *(bytes((mode, *range(128, 128 + len(WORDS)))) for mode in (0x80, 0x81, 0x82, 0x83, 0x89)),
    b"\x09SEND\ndestination:/a\ncontent-length:149\n\n\0",
]

if __name__ == "__main__":
    run(test_one_input, SEEDS, "stomp.dict")
