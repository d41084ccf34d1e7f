"""The sessions that ended last."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct

from stompbridge.gateway.closing import CloseReason

if TYPE_CHECKING:
    from stompbridge.gateway.client import Client

KEPT = 1000
"""Sessions."""


class Closed(Struct, frozen=True, kw_only=True):
    """A session that has ended."""

    id: str
    user: str | None
    address: str
    """``ip:port``."""
    closed_at: float
    """In seconds since 1970."""
    age: float
    """Seconds since its socket was opened."""
    reason: str
    """A label of :class:`CloseReason`."""
    detail: str
    """For people."""
    messages_in: int
    messages_out: int


class Recent:
    """Keeps the last :data:`KEPT` sessions that were let in and are over."""

    def __init__(self) -> None:
        self._closed: deque[Closed] = deque(maxlen=KEPT)

    def add(self, client: Client, reason: CloseReason) -> None:
        """A session has ended."""
        self._closed.append(
            Closed(
                id=client.sender_id,
                user=None if client.identity is None else client.user,
                address=client.connection.remote,
                closed_at=time.time(),
                age=client.shared.now() - client.opened_at,
                reason=reason.label,
                detail=client.parting or reason.text,
                messages_in=client.messages_in,
                messages_out=client.messages_out,
            )
        )

    def newest(self, limit: int) -> list[Closed]:
        """At most ``limit`` of them, the last first."""
        return list(islice(reversed(self._closed), limit))
