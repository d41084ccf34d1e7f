"""``stompbridge sessions``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from stompbridge.cli import text
from stompbridge.cli.common import echo_json, json_option
from stompbridge.cli.remote import count, listed, pick, remote_options, segment, words
from stompbridge.cli.text import duration, number, shown, size

if TYPE_CHECKING:
    from stompbridge.cli.client import Remote


@click.group()
def sessions() -> None:
    """Look at the sessions of a running bridge, and end them."""


@sessions.command("list")
@click.option("--search", metavar="TEXT", help="In id, user, address, client-id or destinations; in any case.")
@click.option(
    "--sort",
    type=click.Choice(["age", "bytes", "unacked", "subscriptions"]),
    default="age",
    show_default=True,
    help="Which come first: the most of it.",
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, metavar="N", help="How many at most."
)
@remote_options
@json_option
def list_(remote: Remote, search: str | None, sort: str, limit: int, as_json: bool) -> None:
    """List sessions."""
    answer = remote.get("/sessions", search=search, sort=sort, limit=limit)
    if as_json:
        echo_json(answer)
        return
    found = listed(answer, "sessions")
    head = ("ID", "USER", "CLIENT-ID", "ADDRESS", "AGE", "STATE", "SUBS", "UNACKED", "IN", "OUT", "BYTES OUT", "UNSENT")
    for line in text.table(head, map(_row, found), "    > >>>>>>"):
        click.echo(line)
    matched, total = count(answer, "matched"), count(answer, "total")
    shown_of = f"{number(len(found))} of {number(matched)}"
    click.echo(f"\n{shown_of} sessions" + (f" that match, of {number(total)}" if search else ""))


def _row(session: Any) -> tuple[str, ...]:
    return (
        words(session, "id"),
        words(session, "user"),
        words(session, "client_id"),
        words(session, "address"),
        duration(count(session, "age")),
        words(session, "state"),
        number(count(session, "subscription_count")),
        number(count(session, "unacked")),
        number(count(session, "messages_in")),
        number(count(session, "messages_out")),
        size(count(session, "bytes_out")),
        size(count(session, "unsent")),
    )


@sessions.command()
@click.argument("session_id", metavar="ID")
@remote_options
@json_option
def show(remote: Remote, session_id: str, as_json: bool) -> None:
    """Show one session with its subscriptions."""
    answer = remote.get(f"/sessions/{segment(session_id)}")
    if as_json:
        echo_json(answer)
        return
    connected = datetime.fromtimestamp(count(answer, "connected_at"), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    pairs = {
        "id": words(answer, "id"),
        "user": words(answer, "user"),
        "client-id": words(answer, "client_id"),
        "address": words(answer, "address"),
        "node": words(answer, "node"),
        "state": words(answer, "state"),
        "connected": f"{connected}, {duration(count(answer, 'age'))} ago",
        "protocol": f"STOMP {words(answer, 'version')}, sub-protocol {words(answer, 'protocol')}, "
        f"heart-beat {words(answer, 'heartbeat')}",
        "messages": f"{number(count(answer, 'messages_in'))} in, {number(count(answer, 'messages_out'))} out, "
        f"{number(count(answer, 'unacked'))} unacknowledged",
        "bytes": f"{size(count(answer, 'bytes_in'))} in, {size(count(answer, 'bytes_out'))} out, "
        f"{size(count(answer, 'unsent'))} unsent",
    }
    for line in text.fields(pairs):
        click.echo(line)
    subscriptions = listed(answer, "subscriptions")
    if subscriptions:
        rows = [
            (words(one, "id"), words(one, "destination"), words(one, "ack"), words(one, "prefetch"), _unacked(one))
            for one in subscriptions
        ]
        click.echo()
        for line in text.table(("SUBSCRIPTION", "DESTINATION", "ACK", "PREFETCH", "UNACKED"), rows, "   >>"):
            click.echo(line)


def _unacked(subscription: Any) -> str:
    return "-" if pick(subscription, "unacked") is None else number(count(subscription, "unacked"))


@sessions.command()
@click.argument("session_id", metavar="ID")
@remote_options
@json_option
def kick(remote: Remote, session_id: str, as_json: bool) -> None:
    """Close one session. Its client may connect again. Needs the admin token."""
    answer = remote.post(f"/sessions/{segment(session_id)}/close")
    if as_json:
        echo_json(answer)
    else:
        click.echo(f"Session {shown(words(answer, 'closed'))} is closed.")
