"""``stompbridge top``."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from itertools import count as numbers
from typing import TYPE_CHECKING, Any

import click

from stompbridge.cli import text
from stompbridge.cli.common import UNREACHABLE, Failure, echo_json, json_option
from stompbridge.cli.remote import count, listed, remote_options, words
from stompbridge.cli.status import broker, state, store
from stompbridge.cli.text import clip, duration, latency, number, rate, shown, size

if TYPE_CHECKING:
    from stompbridge.cli.client import Remote

_RATES = {
    "messages_in": ("messages", "in"),
    "messages_out": ("messages", "out"),
    "suppressed": ("messages", "suppressed"),
    "bytes_in": ("bytes", "in"),
    "bytes_out": ("bytes", "out"),
    "connected": ("sessions", "total"),
}
_LINE = "{:>8}  {:>8}  {:>8}  {:>10}  {:>10}  {:>10}  {:>9}  {}"
_ROWS = 200
"""Sessions that are looked at."""


@dataclass(slots=True)
class Sample:
    """What a bridge said at a moment. ``sessions`` and ``destinations`` are empty where it does not tell."""

    at: float
    status: dict[str, Any]
    sessions: list[Any] = field(default_factory=list)
    destinations: list[Any] = field(default_factory=list)


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="From one look to the next.",
)
@click.option("--count", "times", type=click.IntRange(1), metavar="N", help="End after so many. Without it: Ctrl-C.")
@remote_options
@json_option
def top(remote: Remote, interval: float, times: int | None, as_json: bool) -> None:
    """Watch a running bridge: a screen that is drawn anew, or a line each time where the output is no terminal."""
    screen = sys.stdout.isatty() and not as_json
    before: Sample | None = None
    try:
        for turn in range(times) if times is not None else numbers():
            if turn:
                time.sleep(interval)
            problem, now = "", before
            try:
                now = _ask(remote, screen)
            except Failure as failure:
                if before is None or failure.exit_code != UNREACHABLE:
                    raise
                problem = failure.message
            assert now is not None
            if screen:
                _draw(now, before if not problem else None, problem)
            elif as_json:
                _say_json(now, before, problem)
            else:
                _say_line(now, before, problem, first=not turn)
            before = now
    except KeyboardInterrupt:
        return


def _ask(remote: Remote, whole: bool) -> Sample:
    sample = Sample(time.monotonic(), remote.get("/status"))
    if whole:
        sample.destinations = listed(remote.get("/destinations", limit=10), "destinations")
        try:
            sample.sessions = listed(remote.get("/sessions", sort="bytes", limit=_ROWS), "sessions")
        except Failure:
            # Where other machines reach the listener, only the token shows sessions.
            sample.sessions = []
    return sample


def rates(now: Sample, before: Sample | None) -> dict[str, float]:
    """Events a second since the sample before; all 0 for the first one and after a restart of the bridge."""
    if before is None or now.at <= before.at or words(now.status, "pid") != words(before.status, "pid"):
        return dict.fromkeys(_RATES, 0.0)
    passed = now.at - before.at
    grown = {name: count(now.status, *path) - count(before.status, *path) for name, path in _RATES.items()}
    return {name: max(0.0, growth / passed) for name, growth in grown.items()}


def _say_json(now: Sample, before: Sample | None, problem: str) -> None:
    if problem:
        echo_json({"at": time.time(), "error": problem}, indent=None)
    else:
        echo_json({"at": time.time(), "rates": rates(now, before), "status": now.status}, indent=None)


def _say_line(now: Sample, before: Sample | None, problem: str, *, first: bool) -> None:
    if first:
        click.echo(_LINE.format("TIME", "SESSIONS", "IN/s", "OUT/s", "BYTES IN/s", "OUT/s", "LAG", "READY"))
    clock = time.strftime("%H:%M:%S")
    if problem:
        click.echo(f"{clock}  {shown(problem)}")
        return
    speed = rates(now, before)
    cells = (
        number(count(now.status, "sessions", "open")),
        rate(speed["messages_in"]),
        rate(speed["messages_out"]),
        size(speed["bytes_in"]),
        size(speed["bytes_out"]),
        latency(count(now.status, "loop", "lag_max_10s")),
        shown(state(now.status)),
    )
    click.echo(_LINE.format(clock, *cells))


def _draw(now: Sample, before: Sample | None, problem: str) -> None:
    columns, rows = shutil.get_terminal_size()
    lines = [clip(shown(line), columns) for line in screen(now, before, problem)][: rows - 1]
    # Home, each line to its end, and the rest of the screen.
    click.echo("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", nl=False, color=True)


def screen(now: Sample, before: Sample | None, problem: str) -> list[str]:
    """The screen's lines, as long as they come."""
    status, speed = now.status, rates(now, before)
    delivery, publish = (
        f"{latency(count(status, 'latency', which, 'p50'))} / {latency(count(status, 'latency', which, 'p99'))}"
        for which in ("delivery", "publish")
    )
    lines = [
        f"stompbridge {words(status, 'version')}  {words(status, 'node')}  up {duration(count(status, 'uptime'))}  "
        f"{time.strftime('%H:%M:%S')}" + (f"  NO ANSWER: {problem}" if problem else ""),
        *text.fields(
            {
                "ready": state(status),
                "sessions": f"{number(count(status, 'sessions', 'open'))} of at most "
                f"{number(count(status, 'limits', 'connections'))}, {rate(speed['connected'])} new/s",
                "messages": f"{rate(speed['messages_in'])}/s in, {rate(speed['messages_out'])}/s out, "
                f"{rate(speed['suppressed'])}/s duplicates suppressed",
                "bytes": f"{size(speed['bytes_in'])}/s in, {size(speed['bytes_out'])}/s out",
                "latency": f"publish to confirm {publish}, broker to socket {delivery} (p50 / p99 since the start)",
                "broker": broker(status),
                "store": store(status),
                "process": f"{size(count(status, 'memory', 'rss'))} of memory, event loop at most "
                f"{latency(count(status, 'loop', 'lag_max_10s'))} late",
            }
        ),
    ]
    if now.destinations:
        rows = [
            (
                words(one, "destination"),
                number(count(one, "subscribers")),
                number(count(one, "messages_in")),
                number(count(one, "messages_out")),
            )
            for one in now.destinations
        ]
        lines += ["", *text.table(("DESTINATION", "SUBSCRIBERS", "IN", "OUT"), rows, " >>>")]
    if now.sessions:
        head = ("SESSION", "USER", "ADDRESS", "AGE", "IN/s", "OUT/s", "BYTES/s", "UNACKED", "UNSENT")
        lines += ["", *text.table(head, _session_rows(now, before), "   >>>>>>")]
    return lines


def _session_rows(now: Sample, before: Sample | None) -> list[tuple[str, ...]]:
    known = {words(one, "id"): one for one in before.sessions} if before is not None else {}
    passed = now.at - before.at if before is not None else 0.0

    def speed(session: Any, *names: str) -> float:
        was = known.get(words(session, "id"))
        if was is None or passed <= 0:
            return 0.0
        return max(0.0, sum(count(session, name) - count(was, name) for name in names) / passed)

    busiest = sorted(now.sessions, key=lambda one: speed(one, "bytes_in", "bytes_out"), reverse=True)
    return [
        (
            words(one, "id"),
            words(one, "user"),
            words(one, "address"),
            duration(count(one, "age")),
            rate(speed(one, "messages_in")),
            rate(speed(one, "messages_out")),
            size(speed(one, "bytes_in", "bytes_out")),
            number(count(one, "unacked")),
            size(count(one, "unsent")),
        )
        for one in busiest[:100]
    ]
