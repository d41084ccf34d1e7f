"""What has come already, of stamped messages and of others."""

from __future__ import annotations

from stompbridge.dedup.window import RecentIds, SenderWindows, Verdict
from stompbridge.routing.identity import Identity

IDS = 10_000
"""How many message ids are remembered in one place."""


class Seen:
    """The identities that came through one place, such as a mailbox or a queue."""

    __slots__ = ("_ids", "_windows")

    def __init__(self, window: int, ttl: float) -> None:
        self._windows = SenderWindows(window, ttl)
        self._ids = RecentIds(IDS, ttl)

    def __len__(self) -> int:
        return len(self._windows) + len(self._ids)

    def check(self, identity: Identity) -> Verdict:
        """What the message would be if it came now."""
        if isinstance(identity, str):
            return Verdict.DUPLICATE if identity in self._ids else Verdict.NEW
        return self._windows.check(*identity)

    def record(self, identity: Identity, now: float) -> None:
        """The message has come."""
        if isinstance(identity, str):
            self._ids.record(identity, now)
        else:
            self._windows.record(*identity, now)

    def check_and_record(self, identity: Identity, now: float) -> Verdict:
        """What the message is; from now on it has come."""
        if isinstance(identity, str):
            verdict = self.check(identity)
            self._ids.record(identity, now)
            return verdict
        return self._windows.check_and_record(*identity, now)

    def sweep(self, now: float) -> None:
        """Forgets what is over its time."""
        self._windows.sweep(now)
        self._ids.sweep(now)
