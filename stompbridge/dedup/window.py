"""Which sequence numbers of a sender were seen: a sliding window, as in IPsec's anti-replay (RFC 6479, RFC 2401 C).

A bare high-water mark would drop what arrives late for the first time. The window keeps one bit for each number
behind the highest, so that a late first arrival is told from a second one.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum


class Verdict(Enum):
    """What a sequence number is."""

    NEW = "new"
    DUPLICATE = "duplicate"
    TOO_OLD = "too_old"
    """Below the window: it can not be known any more."""


class SequenceWindow:
    """The last ``size`` sequence numbers up to the highest one recorded. The first may have any value."""

    __slots__ = ("_mask", "_seen", "_size", "highest")

    def __init__(self, size: int) -> None:
        self._size = size
        self._mask = (1 << size) - 1
        self._seen = 0  # bit n: ``highest - n`` was recorded; 0: nothing was
        self.highest = -1

    def check(self, seq: int) -> Verdict:
        """What ``seq`` would be if it came now. Changes nothing."""
        behind = self.highest - seq
        if behind < 0 or not self._seen:
            return Verdict.NEW
        if behind >= self._size:
            return Verdict.TOO_OLD
        return Verdict.DUPLICATE if self._seen >> behind & 1 else Verdict.NEW

    def record(self, seq: int) -> None:
        """Notes that ``seq`` has come. A number below the window leaves no trace."""
        ahead = seq - self.highest
        if ahead > 0 or not self._seen:
            self._seen = (self._seen << ahead & self._mask) | 1 if 0 < ahead < self._size else 1
            self.highest = seq
        elif -ahead < self._size:
            self._seen |= 1 << -ahead


class _Sender(SequenceWindow):
    __slots__ = ("used",)

    def __init__(self, size: int, used: float) -> None:
        super().__init__(size)
        self.used = used


class SenderWindows:
    """One :class:`SequenceWindow` of ``size`` numbers for each sender, kept while it is used.

    Times are seconds of one clock, which the caller chooses and hands in as ``now``. A sender that was idle for
    ``ttl`` seconds is forgotten by the next :meth:`sweep`; all its numbers are new again after that.
    """

    __slots__ = ("_senders", "_size", "_ttl")

    def __init__(self, size: int, ttl: float) -> None:
        self._size = size
        self._ttl = ttl
        self._senders: dict[str, _Sender] = {}

    def __len__(self) -> int:
        return len(self._senders)

    def check(self, sender: str, seq: int) -> Verdict:
        """What the number would be if it came now. Changes nothing."""
        window = self._senders.get(sender)
        return Verdict.NEW if window is None else window.check(seq)

    def record(self, sender: str, seq: int, now: float) -> None:
        """Notes that the number has come."""
        window = self._senders.get(sender)
        if window is None:
            window = self._senders[sender] = _Sender(self._size, now)
        window.used = now
        window.record(seq)

    def check_and_record(self, sender: str, seq: int, now: float) -> Verdict:
        """What the number is; from now on it has come. A duplicate, too, keeps its sender from being forgotten."""
        window = self._senders.get(sender)
        if window is None:
            window = self._senders[sender] = _Sender(self._size, now)
        window.used = now
        verdict = window.check(seq)
        if verdict is Verdict.NEW:
            window.record(seq)
        return verdict

    def sweep(self, now: float) -> int:
        """Forgets the idle senders and returns how many they were."""
        oldest = now - self._ttl
        idle = [sender for sender, window in self._senders.items() if window.used < oldest]
        for sender in idle:
            del self._senders[sender]
        return len(idle)


class RecentIds:
    """Message ids that came lately: at most ``size`` of them, each for ``ttl`` seconds; the oldest go first."""

    __slots__ = ("_ids", "_size", "_ttl")

    def __init__(self, size: int, ttl: float) -> None:
        self._size = size
        self._ttl = ttl
        self._ids: OrderedDict[str, float] = OrderedDict()  # when each came last, in that order

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._ids

    def record(self, message_id: str, now: float) -> None:
        """Notes that the id has come."""
        ids = self._ids
        ids.pop(message_id, None)
        ids[message_id] = now
        if len(ids) > self._size:
            ids.popitem(last=False)

    def sweep(self, now: float) -> None:
        """Forgets what is over its time."""
        ids, oldest = self._ids, now - self._ttl
        while ids and next(iter(ids.values())) < oldest:
            ids.popitem(last=False)
