"""A session and its client's bytes, in each way that they can arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import Version
from stompbridge.stomp.session import Connect, Done, Event, Keep, Refused, ServerSession, SessionSettings, frame_counts

SETTINGS: dict[str, Any] = {
    "send_floor_ms": 1000,
    "receive_floor_ms": 1000,
    "close_on_error": False,
    "max_frame": 1000,
    "max_frame_before_connect": 200,
    "max_headers": 10,
    "max_header_bytes": 500,
    "max_subscriptions": 3,
    "max_transactions": 2,
    "max_transaction_frames": 3,
    "max_transaction_bytes": 200,
}


class Peer:
    """A session, driven by what its client sends: whole, byte by byte, or with heart-beats after it."""

    def __init__(self, how: str, **changes: int) -> None:
        self.how = how
        self.received = frame_counts()
        self.session = ServerSession(SessionSettings(**{**SETTINGS, **changes}), "session-1", self.received)

    def send(self, data: bytes) -> list[Event]:
        pieces = [data + b"\n\r\n" if self.how == "with more after it" else data]
        if self.how == "byte by byte":
            pieces = [data[at : at + 1] for at in range(len(data))]
        events = []
        for piece in pieces:
            self.session.feed(piece)
            while (event := self.session.next_event()) is not None:
                events.append(self._kept(event) if isinstance(event, Keep) else event)
        return events

    def _kept(self, event: Keep) -> Event:
        """Keeps a SEND for COMMIT, as if any destination could be served."""
        try:
            self.session.keep(event)
        except StompError as error:
            return Refused(error, event.receipt)
        return Done(None)

    def command(self, command: str, *headers: str, body: bytes = b"") -> Event:
        """Sends one frame, which makes one event."""
        (event,) = self.send("\n".join([command, *headers, "", ""]).encode() + body + b"\0")
        return event

    def connect(self, version: Version = Version.V12) -> Peer:
        event = self.command("CONNECT", f"accept-version:{version}")
        assert isinstance(event, Connect)
        self.session.accept("stompbridge")
        return self


@pytest.fixture(params=["whole", "byte by byte", "with more after it"])
def make_peer(request: pytest.FixtureRequest) -> Callable[..., Peer]:
    return lambda **changes: Peer(request.param, **changes)
