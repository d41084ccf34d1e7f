"""``stompbridge log-level`` and ``stompbridge drain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stompbridge.cli.common import echo_json, json_option
from stompbridge.cli.remote import count, remote_options, words
from stompbridge.cli.text import duration, number, shown

if TYPE_CHECKING:
    from stompbridge.cli.client import Remote


@click.command("log-level")
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error"]))
@remote_options
@json_option
def log_level(remote: Remote, level: str, as_json: bool) -> None:
    """Set the log level of a running bridge, until SIGHUP or a restart. Needs the admin token."""
    answer = remote.post("/log-level", {"level": level})
    if as_json:
        echo_json(answer)
    else:
        level, was = shown(words(answer, "level")), shown(words(answer, "was"))
        click.echo(f"The log level is {level}, until SIGHUP or a restart; it was {was}.")


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(0, 86400),
    metavar="SECONDS",
    help="Spread the ends of sessions over so long, and not over drain_time.",
)
@remote_options
@json_option
def drain(remote: Remote, seconds: float | None, as_json: bool) -> None:
    """End a running bridge as SIGTERM does: not ready, no new clients, sessions closed one by one. Needs the admin
    token."""
    answer = remote.post("/drain", None if seconds is None else {"seconds": seconds})
    if as_json:
        echo_json(answer)
    else:
        sessions, within = number(count(answer, "sessions")), duration(count(answer, "seconds"))
        click.echo(f"The bridge is ending: {sessions} sessions are closed within {within}.")
