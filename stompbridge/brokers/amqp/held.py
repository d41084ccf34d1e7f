"""A message between ``publish`` and its ``done``."""

from __future__ import annotations

from typing import Protocol

from ..base import Done, Failure, Message

OVERHEAD = 256
"""Octets that a held message counts besides its body."""


class PublishChannel(Protocol):
    """What the publisher needs of a channel in confirm mode."""

    number: int

    @property
    def frame_max(self) -> int:
        """Octets."""

    def send(self, data: bytes) -> None:
        """Writes whole frames."""


class Entry:
    """One held message. ``order`` is its place among all, ``since`` when it came."""

    __slots__ = ("done", "message", "order", "returned", "since", "size", "tag")

    def __init__(self, message: Message, done: Done, order: int, since: float) -> None:
        self.message = message
        self.done = done
        self.order = order
        self.since = since
        self.size = len(message.body) + OVERHEAD
        self.tag = 0
        self.returned: Failure | None = None


def by_order(entry: Entry) -> int:
    return entry.order


def identity(message: Message) -> tuple[str, str | None, str | None, int]:
    return message.routing_key, message.message_id, message.sender, message.seq


def unavailable(reason: str) -> Failure:
    return Failure("broker_unavailable", f"the broker is not available: {reason}", fatal=False)
