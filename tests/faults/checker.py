"""What became of every message of a run, in the manner of Jepsen's queue tests.

Messages are numbered for each sender from 0. Senders belong to a stream, and so do the groups of receivers that have
a right to all of its messages: a group is one receiver, or several that share a queue.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import NamedTuple


class Id(NamedTuple):
    """One message: its sender and its number."""

    sender: str
    number: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The classes, each with the number of messages in it. All but the first three count for each group."""

    attempted: int = 0
    """Sent."""
    confirmed: int = 0
    """Sent, and answered with a RECEIPT."""
    refused: int = 0
    """Answered with an ERROR each time that they were sent."""
    delivered: int = 0
    """Received at least once."""
    lost: int = 0
    """Confirmed and never received."""
    recovered: int = 0
    """Received although no RECEIPT came."""
    duplicated: int = 0
    """Copies that the same receiver had before and that are not marked in doubt, or that it had acknowledged."""
    marked: int = 0
    """Copies that the same receiver had before, marked ``redelivered:true``."""
    disordered: int = 0
    """Came after a later one of the same sender, redelivered ones apart."""
    unexpected: int = 0
    """Received and never sent."""

    def line(self, title: str) -> str:
        """One line for people."""
        shown = (f"{field.name} {getattr(self, field.name)}" for field in fields(self))
        return f"{title}: {', '.join(shown)}"

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


class Copies:
    """What one receiver identity has got, over all of its sessions."""

    __slots__ = ("acknowledged", "disordered", "duplicated", "group", "highest", "marked", "seen")

    def __init__(self, group: str) -> None:
        self.group = group
        self.seen: Counter[Id] = Counter()
        self.acknowledged: set[Id] = set()
        self.highest: dict[str, int] = {}
        self.duplicated: list[Id] = []
        self.marked: list[Id] = []
        self.disordered: list[Id] = []

    def deliver(self, message: Id, redelivered: bool) -> None:
        """One copy has come."""
        if self.seen[message]:
            if redelivered:
                self.marked.append(message)
            if not redelivered or message in self.acknowledged:
                self.duplicated.append(message)
        if not redelivered and not self.seen[message]:
            if message.number < self.highest.get(message.sender, -1):
                self.disordered.append(message)
            else:
                self.highest[message.sender] = message.number
        self.seen[message] += 1


class Ledger:
    """Takes down what happens, and classes it."""

    def __init__(self) -> None:
        self.attempted: set[Id] = set()
        self.confirmed: set[Id] = set()
        self.refused: set[Id] = set()
        self.receivers: dict[str, Copies] = {}
        self.deliveries = 0
        self.acknowledgements = 0
        self.owed = 0
        """Confirmed messages that a group has not got yet."""
        self._streams: dict[str, str] = {}
        self._groups: dict[str, str] = {}
        self._got: dict[str, set[Id]] = {}

    def add_sender(self, sender: str, stream: str) -> None:
        """A sender's messages belong to the stream."""
        self._streams[sender] = stream

    def add_receiver(self, receiver: str, stream: str, group: str = "") -> None:
        """``group`` has a right to the stream; without one, the receiver has it alone."""
        name = group or receiver
        if name not in self._groups:
            self._groups[name] = stream
            self._got[name] = set()
            self.owed += sum(self._streams[message.sender] == stream for message in self.confirmed)
        self.receivers[receiver] = Copies(name)

    def attempt(self, message: Id) -> None:
        """It is sent, perhaps not for the first time."""
        self.attempted.add(message)

    def confirm(self, message: Id) -> None:
        """Its RECEIPT has come."""
        if message not in self.confirmed:
            self.confirmed.add(message)
            self.owed += sum(message not in self._got[group] for group in self._entitled(message))
        self.refused.discard(message)

    def refuse(self, message: Id) -> None:
        """An ERROR has come for it."""
        if message not in self.confirmed:
            self.refused.add(message)

    def deliver(self, receiver: str, message: Id, redelivered: bool) -> None:
        """A receiver has got it."""
        self.deliveries += 1
        copies = self.receivers[receiver]
        copies.deliver(message, redelivered)
        got = self._got[copies.group]
        if message not in got:
            got.add(message)
            self.owed -= message in self.confirmed

    def acknowledge(self, receiver: str, message: Id) -> None:
        """The RECEIPT for the receiver's ACK has come: it must not get the message again."""
        self.acknowledgements += 1
        self.receivers[receiver].acknowledged.add(message)

    def missing(self) -> dict[str, set[Id]]:
        """Confirmed messages that nobody of a group has got, by group."""
        missing: dict[str, set[Id]] = {}
        for message in self.confirmed:
            for group in self._entitled(message):
                if message not in self._got[group]:
                    missing.setdefault(group, set()).add(message)
        return missing

    def figures(self) -> Figures:
        """All classes at this moment."""
        everyone = list(self.receivers.values())
        return Figures(
            attempted=len(self.attempted),
            confirmed=len(self.confirmed),
            refused=len(self.refused),
            delivered=sum(len(ids) for ids in self._got.values()),
            lost=sum(len(ids) for ids in self.missing().values()),
            recovered=sum(len((ids & self.attempted) - self.confirmed) for ids in self._got.values()),
            duplicated=sum(len(copies.duplicated) for copies in everyone),
            marked=sum(len(copies.marked) for copies in everyone),
            disordered=sum(len(copies.disordered) for copies in everyone),
            unexpected=sum(len(ids - self.attempted) for ids in self._got.values()),
        )

    def _entitled(self, message: Id) -> list[str]:
        stream = self._streams[message.sender]
        return [group for group, wanted in self._groups.items() if wanted == stream]
