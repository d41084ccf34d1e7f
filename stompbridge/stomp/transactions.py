"""What clients gather between BEGIN and COMMIT (STOMP 1.2, section "BEGIN"), within bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import errors
from .events import Delivery, Send


@dataclass(slots=True)
class Acknowledgement:
    """An ACK, or with ``ack`` false a NACK, that waits for COMMIT."""

    delivery: Delivery
    ack: bool
    requeue: bool


@dataclass(slots=True)
class _Transaction:
    actions: list[Send | Acknowledgement] = field(default_factory=list)
    size: int = 0


class Transactions:
    """A session's open transactions: at most ``max_open`` of them, of ``max_frames`` frames each, that hold
    ``max_bytes`` of headers and bodies together.

    What goes beyond a bound, or names no open transaction, raises a :class:`~stompbridge.stomp.errors.StompError`
    and changes nothing.
    """

    __slots__ = ("_max_bytes", "_max_frames", "_max_open", "_open")

    def __init__(self, max_open: int, max_frames: int, max_bytes: int) -> None:
        self._max_open = max_open
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._open: dict[str, _Transaction] = {}

    def begin(self, id: str) -> None:
        """Opens a transaction. One of the same ``id`` is dropped with what it held, as RabbitMQ's plugin does it."""
        if id not in self._open and len(self._open) >= self._max_open:
            raise errors.too_many_transactions(self._max_open)
        self._open[id] = _Transaction()

    def check(self, id: str) -> None:
        """Only looks whether there is such a transaction."""
        if id not in self._open:
            raise errors.bad_transaction(id)

    def add(self, id: str, action: Send | Acknowledgement) -> None:
        """Keeps one action for COMMIT."""
        self.check(id)
        transaction = self._open[id]
        if len(transaction.actions) >= self._max_frames:
            raise errors.transaction_too_large(self._max_frames, "frames")
        size = _size(action)
        if size + sum(other.size for other in self._open.values()) > self._max_bytes:
            raise errors.transaction_too_large(self._max_bytes, "bytes")
        transaction.actions.append(action)
        transaction.size += size

    def end(self, id: str) -> list[Send | Acknowledgement]:
        """Closes a transaction; returns what it held, in order."""
        self.check(id)
        return self._open.pop(id).actions

    def clear(self) -> None:
        """Drops all of them."""
        self._open.clear()


def _size(action: Send | Acknowledgement) -> int:
    if isinstance(action, Acknowledgement):
        return 0
    return len(action.body) + sum(len(name) + len(value) for name, value in action.headers.items())
