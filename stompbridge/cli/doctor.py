"""``stompbridge doctor``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stompbridge.cli.common import FOUND, UNUSABLE, Failure, config_option, echo_json, json_option, load
from stompbridge.cli.text import shown

if TYPE_CHECKING:
    from stompbridge.config import Settings
    from stompbridge.doctor.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "skipped": "bright_black"}


@click.command()
@config_option
@json_option
def doctor(path: Path | None, as_json: bool) -> None:
    """Try whether a bridge can work with a configuration: broker, permissions, exchanges, store, certificate, limits,
    ports, secrets. It may run meanwhile; nobody's messages are touched.

    Ends with 0 where nothing is wrong (there may be warnings), 1 where something is, 2 where the configuration is not
    valid.
    """
    _silence()
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            _say(finding)

    settings = _settings(path, add)
    if settings is not None:
        import asyncio

        asyncio.run(_examine(settings, path, add))
    count = {result: sum(finding.result == result for finding in findings) for result in _COLOURS}
    if as_json:
        worst = "error" if count["error"] else "warning" if count["warning"] else "ok"
        echo_json({"result": worst, "count": count, "checks": [asdict(finding) for finding in findings]})
    else:
        click.echo(f"\n{count['error']} errors, {count['warning']} warnings, {count['ok']} ok")
    sys.exit(UNUSABLE if settings is None else FOUND if count["error"] else 0)


async def _examine(settings: Settings, path: Path | None, add: Callable[[Finding], None]) -> None:
    from stompbridge.doctor.examine import examine

    async for finding in examine(settings, path):
        add(finding)


def _settings(path: Path | None, add: Callable[[Finding], None]) -> Settings | None:
    """The settings, or a finding for each thing that is wrong with them."""
    from stompbridge.doctor.finding import error, ok

    try:
        settings = load(path, {})
    except Failure as failure:
        for line in failure.message.splitlines():
            add(error("configuration", line, _remedy(line)))
        return None
    add(ok("configuration", f"{path or 'defaults and environment'}: valid"))
    return settings


def _remedy(line: str) -> str:
    if "can be read by everybody" in line:
        return "take away the right to read it: chmod o-rwx FILE"
    if "is not the key of the certificate" in line:
        return "the key that the certificate was made with, or a certificate for this key"
    if "cannot be read" in line:
        return "the path, and the rights of this user and of the one that the bridge runs as"
    return "correct it; stompbridge config default shows every key with its meaning"


def _say(finding: Finding) -> None:
    subject = f" {shown(finding.subject)}" if finding.subject else ""
    mark = click.style(f"{finding.result:<8}", fg=_COLOURS[finding.result])
    click.echo(f"{mark} {finding.name}{subject}: {shown(finding.detail)}")
    if finding.remedy:
        click.echo(f"         remedy: {shown(finding.remedy)}")


def _silence() -> None:
    """What the parts would log is told by findings."""
    import structlog

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    logging.disable(logging.CRITICAL)
