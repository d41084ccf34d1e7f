"""CPU time and memory of processes, from ``/proc``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
"""The resolution of CPU times, in seconds."""
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its descendants have used: seconds of CPU, and resident bytes."""

    cpu: float = 0.0
    rss: int = 0


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of ``/proc/<pid>/stat`` that matter here (proc(5)); ``ticks`` is user and system time, with that of
    children waited for."""

    parent: int
    ticks: int
    pages: int


def parse_stat(text: str) -> Stat:
    """Reads one line. The command's name may hold anything, also blanks and brackets."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(int(fields[1]), sum(map(int, fields[11:15])), int(fields[21]))


def processes() -> dict[int, Stat]:
    """All processes by id; one that ends meanwhile is left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def tree(table: Mapping[int, Stat], root: int) -> set[int]:
    """The process and all its descendants."""
    members = {root} & table.keys()
    size = 0
    while size != len(members):
        size = len(members)
        members |= {pid for pid, stat in table.items() if stat.parent in members}
    return members


def usage(roots: Iterable[int]) -> Usage:
    """What these processes and their descendants have used so far, together."""
    table = processes()
    members: set[int] = set()
    for root in roots:
        members |= tree(table, root)
    stats = [table[pid] for pid in members]
    return Usage(sum(stat.ticks for stat in stats) * TICK, sum(stat.pages for stat in stats) * PAGE)


def machine_busy() -> float:
    """Seconds of CPU that the whole machine has used, from ``/proc/stat``: user, nice, system, interrupts."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) * TICK


def kernel_memory() -> int:
    """Bytes that the kernel holds for its own objects, sockets among them (``Slab`` of ``/proc/meminfo``)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["Slab"].split()[0]) * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counters at one moment: per named group of processes, of this process, and of the whole machine."""

    at: float
    groups: dict[str, Usage]
    own: float
    machine: float

    @classmethod
    def take(cls, groups: Mapping[str, Iterable[int]]) -> Snapshot:
        return cls(
            time.monotonic(), {name: usage(pids) for name, pids in groups.items()}, time.process_time(), machine_busy()
        )

    def cpu_since(self, earlier: Snapshot) -> dict[str, float]:
        """Seconds of CPU per group."""
        return {name: after.cpu - earlier.groups[name].cpu for name, after in self.groups.items()}

    def own_share_since(self, earlier: Snapshot) -> float:
        """How much of one core this process used."""
        return (self.own - earlier.own) / max(self.at - earlier.at, TICK)

    def other_share_since(self, earlier: Snapshot) -> float:
        """How much of one core everything else on the machine used; at least 0."""
        measured = sum(self.cpu_since(earlier).values()) + self.own - earlier.own
        return max(0.0, self.machine - earlier.machine - measured) / max(self.at - earlier.at, TICK)
