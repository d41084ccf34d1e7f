"""What a check has found, and the limit of time that every check has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warning", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``name`` says what was checked and stays the same from version to version; ``subject`` tells apart what there are
    several of: a server's address, an exchange. ``remedy`` says what to do about it."""

    name: str
    result: Result
    detail: str
    remedy: str = ""
    subject: str = ""


def ok(name: str, detail: str, subject: str = "") -> Finding:
    return Finding(name, "ok", detail, "", subject)


def warning(name: str, detail: str, remedy: str, subject: str = "") -> Finding:
    return Finding(name, "warning", detail, remedy, subject)


def error(name: str, detail: str, remedy: str, subject: str = "") -> Finding:
    return Finding(name, "error", detail, remedy, subject)


def skipped(name: str, detail: str, subject: str = "") -> Finding:
    return Finding(name, "skipped", detail, "", subject)


async def within(seconds: float, name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
    """What the check finds; one that takes longer, or fails itself, is an error under ``name``."""
    try:
        async with asyncio.timeout(seconds):
            return await check
    except TimeoutError:
        return [
            error(name, f"the check did not end within {seconds:g} s", "look for what does not answer, and try again")
        ]
    except Exception as problem:
        detail = f"the check itself failed: {type(problem).__name__}: {problem}"
        return [error(name, detail, "this is a fault of the program: report it")]


async def reach(host: str, port: int, seconds: float) -> str:
    """Why nothing accepts TCP connections there; empty where something does."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except OSError as problem:
        return reason(problem)
    writer.transport.abort()
    return ""


def reason(problem: Exception) -> str:
    """An exception's text for people, on one line."""
    if isinstance(problem, ConnectionRefusedError) or "Connect call failed" in str(problem):
        return "connection refused"
    text = (getattr(problem, "strerror", None) or str(problem) or type(problem).__name__).split()
    return " ".join(text)
