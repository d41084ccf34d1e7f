"""What a connection tells the client behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stompbridge.gateway.closing import CloseReason
from stompbridge.log import get_logger

if TYPE_CHECKING:
    from stompbridge.gateway.connection import Connection

_log = get_logger(__name__)


class ConnectionListener(Protocol):
    """The client behind a connection. An exception from it is logged and ends the connection."""

    def on_open(self, connection: Connection) -> None:
        """The handshake is done; payloads follow."""

    def on_data(self, data: bytes) -> None:
        """The payload of a message, or of one fragment of it. May come several times per read from the socket."""

    def on_writable(self) -> None:
        """What had piled up is written; ``writing_paused`` is false again."""

    def on_check(self, now: float) -> float:
        """For deadlines. ``now`` is ``loop.time()``; returns the time from which on to call again, which whoever has an
        earlier deadline since then puts forward (``Connection.check_at``)."""

    def on_lost(self, reason: CloseReason) -> None:
        """The connection is over, or as good as: comes exactly once, as the last call, in a later turn of the loop
        than what caused it. Nothing is written any more, while the socket may still wait for the client's Close."""


def part(listener: ConnectionListener, reason: CloseReason) -> None:
    """Tells ``listener`` that its connection is over."""
    try:
        listener.on_lost(reason)
    except Exception:
        _log.exception("client_failed", reason=reason.label)
