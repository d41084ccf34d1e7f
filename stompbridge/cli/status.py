"""``stompbridge status`` and ``stompbridge ready``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from stompbridge.cli import text
from stompbridge.cli.common import FOUND, Failure, echo_json, json_option
from stompbridge.cli.remote import count, listed, pick, remote_options, words
from stompbridge.cli.text import duration, latency, number, shown, size

if TYPE_CHECKING:
    from stompbridge.cli.client import Remote

_CHECK = re.compile(r"\[([+-])\](\S+) (?:ok|failed)(?:: (.*))?")


@click.command()
@remote_options
@json_option
def status(remote: Remote, as_json: bool) -> None:
    """Show how a running bridge does: checks, sessions, traffic, broker and store."""
    answer = remote.get("/status")
    if as_json:
        echo_json(answer)
        return
    for line in lines(answer):
        click.echo(line)


def lines(answer: dict[str, Any]) -> list[str]:
    """What ``/status`` says, for people."""
    closed = pick(answer, "sessions", "closed")
    reasons = closed if isinstance(closed, dict) else {}
    pairs = {
        "bridge": f"{words(answer, 'node')}: stompbridge {words(answer, 'version')}, process {words(answer, 'pid')}, "
        f"up {duration(count(answer, 'uptime'))}",
        "ready": state(answer),
        "sessions": f"{_total(answer, 'sessions', 'open')} open, {_total(answer, 'sessions', 'sockets')} sockets of at "
        f"most {_total(answer, 'limits', 'connections')}, {_total(answer, 'sessions', 'total')} since the start",
        "closed": ", ".join(f"{name} {number(count(reasons, name))}" for name in reasons if count(reasons, name))
        or "-",
        "frames": f"{number(_sum(answer, 'frames', 'in'))} in, {number(_sum(answer, 'frames', 'out'))} out",
        "bytes": f"{size(count(answer, 'bytes', 'in'))} in, {size(count(answer, 'bytes', 'out'))} out",
        "messages": f"{_total(answer, 'messages', 'in')} in, {_total(answer, 'messages', 'out')} out, "
        f"{_total(answer, 'messages', 'suppressed')} duplicates suppressed, "
        f"{_total(answer, 'messages', 'in_doubt')} in doubt",
        "latency": f"publish to confirm {_latency(answer, 'publish')}, broker to socket {_latency(answer, 'delivery')}",
        "broker": broker(answer),
        "store": store(answer),
        "event loop": f"{latency(count(answer, 'loop', 'lag'))} late, at most "
        f"{latency(count(answer, 'loop', 'lag_max_10s'))} in the last 10 s",
        "memory": size(count(answer, "memory", "rss")),
    }
    out = text.fields(pairs)
    checks = listed(answer, "checks")
    if checks:
        rows = [("ok" if pick(c, "ok") else "FAILED", words(c, "name"), words(c, "detail")) for c in checks]
        out += ["", *text.table(("CHECK", "NAME", "DETAIL"), rows)]
    return out


def state(answer: dict[str, Any]) -> str:
    """Whether clients are sent here."""
    if pick(answer, "draining"):
        return "no: draining"
    failed = [words(check, "name") for check in listed(answer, "checks") if not pick(check, "ok")]
    return "yes" if pick(answer, "ready") else f"no: {', '.join(failed) or 'not yet'}"


def broker(answer: dict[str, Any]) -> str:
    """The broker, on one line."""
    up = "up" if pick(answer, "broker", "up") else "DOWN"
    return (
        f"{words(answer, 'broker', 'kind')} {up} ({words(answer, 'broker', 'detail')}), "
        f"{_total(answer, 'broker', 'reconnects')} reconnects, {_total(answer, 'broker', 'outbox')} waiting, "
        f"{_total(answer, 'broker', 'unconfirmed')} unconfirmed"
    )


def store(answer: dict[str, Any]) -> str:
    """The deduplication store, on one line."""
    up = "up" if pick(answer, "store", "available") else "DOWN"
    return f"{words(answer, 'store', 'kind')} {up}, {_total(answer, 'store', 'bypassed')} messages without its word"


@click.command()
@click.option("--live", is_flag=True, help="Only ask whether the process answers.")
@remote_options
@json_option
def ready(remote: Remote, live: bool, as_json: bool) -> None:
    """Ask whether clients can be served, as a container's health check does.

    Ends with 0 where they can, 1 where they cannot, 3 where no bridge answers.
    """
    code, answer = remote.text("/livez" if live else "/readyz?verbose")
    checks = [
        {"name": name, "ok": sign == "+", "detail": detail or ""} for sign, name, detail in _CHECK.findall(answer)
    ]
    if code not in (200, 503) or not (checks or live):
        raise Failure(f"{remote.url} does not answer as a stompbridge does (HTTP status {code})", FOUND)
    good = code == 200
    if as_json:
        echo_json({"ready": good, "checks": checks})
    elif good:
        click.echo("alive" if live else "ready")
    else:
        failed = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
        click.echo("not ready: " + shown("; ".join(failed) or answer.strip()))
    sys.exit(0 if good else FOUND)


def _total(answer: dict[str, Any], *path: str) -> str:
    return number(count(answer, *path))


def _sum(answer: dict[str, Any], *path: str) -> float:
    found = pick(answer, *path)
    return sum(count(found, name) for name in found) if isinstance(found, dict) else 0


def _latency(answer: dict[str, Any], which: str) -> str:
    if not count(answer, "latency", which, "count"):
        return "-"
    half, most = (latency(count(answer, "latency", which, quantile)) for quantile in ("p50", "p99"))
    return f"{half} (p50), {most} (p99)"
