"""What all clients of the process send and get: counts, the sessions that are open, and what waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stompbridge.stomp.session import frame_counts

if TYPE_CHECKING:
    from stompbridge.gateway.client import Client
    from stompbridge.gateway.listener import Gateway

SLICE = 500
"""Clients that are looked at in one turn of the loop: about a millisecond."""


class Traffic:
    """Counts since the start. What there is very much of, each client counts for itself: see :func:`add_up`."""

    __slots__ = (
        "errors",
        "frames_in",
        "heartbeats",
        "logins",
        "messages_in",
        "messages_out",
        "receipts",
        "sessions",
        "sessions_total",
    )

    def __init__(self) -> None:
        self.sessions: dict[str, Client] = {}
        """Those that are open (CONNECTED), by their id."""
        self.sessions_total = 0
        """Sessions since the start; as many CONNECTED frames were sent."""
        self.frames_in: dict[str, int] = frame_counts()
        """Frames of clients, by command; those that were out of place, and bytes that were none, apart."""
        self.receipts = 0
        self.errors = 0
        self.heartbeats = 0
        """RECEIPT and ERROR frames and heart-beats that were sent."""
        self.logins = dict.fromkeys(("accepted", "refused", "throttled", "unavailable"), 0)
        """Clients whose login was looked at. ``throttled``: refused unseen after too many refusals; ``unavailable``:
        nobody could say."""
        self.messages_in = 0
        self.messages_out = 0
        """What the sessions have counted that are over."""

    def opened(self, client: Client) -> None:
        """A session is let in."""
        self.sessions[client.sender_id] = client
        self.sessions_total += 1

    def closed(self, client: Client) -> None:
        """A session is over."""
        if self.sessions.pop(client.sender_id, None) is not None:
            self.messages_in += client.messages_in
            self.messages_out += client.messages_out

    def frames_out(self, sums: Sums) -> dict[str, int]:
        """Frames to clients, by command."""
        return {
            "CONNECTED": self.sessions_total,
            "MESSAGE": sums.messages_out,
            "RECEIPT": self.receipts,
            "ERROR": self.errors,
        }


@dataclass(slots=True)
class Sums:
    """What the clients count for themselves, since the start, and what waits, now."""

    messages_in: int
    """SENDs that were taken to be published."""
    messages_out: int
    """MESSAGE frames."""
    bytes_in: int
    """Read from sockets, what TLS adds left out."""
    bytes_out: int
    """Of WebSocket frames that were written."""
    unsent: int = 0
    """Bytes written to sockets that the operating system has not taken yet."""
    unread: int = 0
    """Bytes received that are not handled yet: part of a frame, or frames behind one that has to wait."""
    behind: int = 0
    """Clients that take less than is written to them."""
    paused: int = 0
    """Clients that are not read from for now."""
    unacked: int = 0
    """Messages that clients have and have to acknowledge."""
    waiting: int = 0
    """Messages that wait behind ``prefetch-count``, or for the deduplication store."""


async def add_up(gateway: Gateway, traffic: Traffic) -> Sums:
    """Looks at every client, a few at a time, so that nobody waits for it. No total is ever below an earlier one: those
    who leave meanwhile have been noted before."""
    sums = Sums(traffic.messages_in, traffic.messages_out, gateway.ended_bytes_in, gateway.ended_bytes_out)
    connections, clients = tuple(gateway.connections), tuple(traffic.sessions.values())
    for start in range(0, len(connections), SLICE):
        for connection in connections[start : start + SLICE]:
            sums.bytes_in += connection.bytes_in
            sums.bytes_out += connection.bytes_out
            sums.unsent += connection.unsent
            sums.behind += connection.writing_paused
            sums.paused += connection.reading_paused
        await asyncio.sleep(0)
    for start in range(0, len(clients), SLICE):
        for client in clients[start : start + SLICE]:
            session = client.session
            sums.messages_in += client.messages_in
            sums.messages_out += client.messages_out
            sums.unread += session.buffered
            if session.unacked or client.named is not None:
                sums.unacked += len(session.unacked)
                sums.waiting += client.receivers.waiting
        await asyncio.sleep(0)
    return sums
