"""Commands for a running bridge: the options that say which one is meant, and what is in its answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from stompbridge.cli.target import DEFAULT_URL, find

_Command = TypeVar("_Command", bound=Callable[..., Any])


def remote_options(command: _Command) -> _Command:
    """The options that say which bridge is meant. The command gets a :class:`.Remote` as ``remote``."""

    @wraps(command)
    def run(*args: Any, admin: str | None, token_file: Path | None, path: Path | None, **kwargs: Any) -> Any:
        from stompbridge.cli.client import Remote  # with all of HTTP, which no help needs

        return command(*args, remote=Remote(find(admin, token_file, path)), **kwargs)

    options = (
        click.option(
            "--admin",
            metavar="URL",
            help=f"The bridge's admin listener. [env: STOMPBRIDGE_ADMIN_URL; default: that of --config, {DEFAULT_URL}]",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The file with the admin token. [env: STOMPBRIDGE_ADMIN__TOKEN_FILE, or the token itself in "
            "STOMPBRIDGE_ADMIN__TOKEN; default: that of --config]",
        ),
        click.option(
            "--config",
            "path",
            envvar="STOMPBRIDGE_CONFIG",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The bridge's configuration file, which names both. [env: STOMPBRIDGE_CONFIG]",
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run  # type: ignore[return-value]  # it takes other arguments


def segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")


def pick(value: object, *path: str) -> Any:
    """What is at a path of keys in nested objects; ``None`` where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def count(value: object, *path: str) -> float:
    """A number at a path, 0 where there is none."""
    found = pick(value, *path)
    return found if isinstance(found, int | float) else 0


def words(value: object, *path: str) -> str:
    """A text at a path, ``-`` where there is none."""
    found = pick(value, *path)
    return str(found) if found not in (None, "") else "-"


def listed(value: object, *path: str) -> list[Any]:
    """A list at a path, empty where there is none."""
    found = pick(value, *path)
    return found if isinstance(found, list) else []
