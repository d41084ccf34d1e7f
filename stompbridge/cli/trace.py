"""``stompbridge trace``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from stompbridge.cli.common import FOUND, Failure, echo_json, json_option
from stompbridge.cli.remote import count, pick, remote_options, words
from stompbridge.cli.text import number, shown, size

if TYPE_CHECKING:
    from stompbridge.cli.client import Remote

_ARROWS = {"in": "<-", "out": "->"}


@click.command()
@click.option(
    "--destination",
    metavar="DESTINATION",
    help="Only frames of it; * and # stand for words, as in topics.",
)
@click.option("--session", metavar="ID", help="Only frames of this session.")
@click.option("--bodies", is_flag=True, help="Show the first 256 characters of bodies.")
@remote_options
@json_option
def trace(remote: Remote, destination: str | None, session: str | None, bodies: bool, as_json: bool) -> None:
    """Show the frames of a running bridge's clients as they come (<-) and go (->), until Ctrl-C. Needs the admin token.

    Secrets in headers are hidden. Of more than 1,000 frames a second some are left out, and counted.
    """
    shape = "cut" if bodies else "hidden"
    try:
        for frame in remote.stream("/trace", destination=destination, session=session, bodies=shape):
            if as_json:
                echo_json(frame, indent=None)
            else:
                for line in lines(frame):
                    click.echo(line)
    except KeyboardInterrupt:
        return
    raise Failure(f"the bridge at {remote.url} has ended the trace", FOUND)


def lines(frame: dict[str, Any]) -> list[str]:
    """One frame, for people."""
    if pick(frame, "command") is None:
        return [f"... {number(count(frame, 'dropped'))} frames left out"] if "dropped" in frame else []
    headers = pick(frame, "headers")
    headers = headers if isinstance(headers, dict) else {}
    at = datetime.fromtimestamp(count(frame, "at")).strftime("%H:%M:%S.%f")[:-3]
    arrow = _ARROWS.get(words(frame, "direction"), "??")
    told = [words(frame, "command"), *([str(headers["destination"])] if "destination" in headers else [])]
    rest = [f"{name}:{value}" for name, value in headers.items() if name != "destination"]
    body = [size(count(frame, "body_bytes"))] if count(frame, "body_bytes") else []
    parts = [at, arrow, words(frame, "session"), words(frame, "user"), *told, *body, *rest]
    out = [" ".join(shown(part) for part in parts)]
    text = pick(frame, "body")
    if text:
        out.append("    " + shown(str(text)))
    return out
