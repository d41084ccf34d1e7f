"""A job is one run of one measurement against one target. What a scenario wants measured it yields as jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import uvloop

from tests.bench import scenarios
from tests.bench.scenarios import Result, Target, Work


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    rounds: int
    seconds: float
    """Of sending, or of idling, in each run."""
    minutes: float
    """Of a soak."""
    connections: int
    """Of the idle clients."""
    members: list[int]
    """Of a chat room; a soak has the last."""
    embedded: bool
    """The bridges' own broker in place of RabbitMQ."""


@dataclass(frozen=True)
class Job:
    """``run`` fills in the figures and notes."""

    work: str
    target: str
    round: int
    run: Callable[[Result], Awaitable[None]]

    def do(self) -> Result:
        """Runs it; a failure is a note, so that it ends no other."""
        result = Result(self.work, self.target, self.round)

        async def main() -> None:
            await self.run(result)

        try:
            uvloop.run(main())
        except (OSError, TimeoutError) as error:
            result.notes.append(f"failed: {str(error) or type(error).__name__}")
        return result


def standard(target: Target, work: Work, seconds: float, number: int) -> Job:
    """A piece of work of :mod:`tests.bench.scenarios`."""
    return Job(str(work), target.name, number, partial(_standard, target, work, seconds))


async def _standard(target: Target, work: Work, seconds: float, result: Result) -> None:
    found = await scenarios.run(target, work, seconds, result.round)
    result.figures |= found.figures
    result.notes += found.notes
