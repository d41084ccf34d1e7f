"""What several commands share: options, errors, and the settings."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stompbridge.cli.text import shown

if TYPE_CHECKING:
    from stompbridge.config import Settings

FOUND = 1
"""Exit code: something is wrong with what was asked about, or it is not there."""
UNUSABLE = 2
"""Exit code: the arguments or the configuration cannot be used."""
UNREACHABLE = 3
"""Exit code: no bridge answers."""


class Failure(click.ClickException):
    """Ends the program with a text for people, and an exit code."""

    def __init__(self, text: str, code: int = UNUSABLE) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # click asks the instance

    def show(self, file: Any = None) -> None:
        text = "\n".join(shown(line) for line in self.message.split("\n"))
        click.echo(f"stompbridge: {text}", file=file or sys.stderr)


config_option = click.option(
    "--config",
    "path",
    envvar="STOMPBRIDGE_CONFIG",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration file. Without one: embedded broker, this machine only. [env: STOMPBRIDGE_CONFIG]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


def echo_json(value: object, indent: int | None = 2) -> None:
    """One JSON document in ASCII; without ``indent`` on one line."""
    # json leaves DEL alone, which is valid JSON and not fit for a terminal.
    click.echo(json.dumps(value, indent=indent).replace("\x7f", "\\u007f"))


def load(path: Path | None, overrides: Mapping[str, str]) -> Settings:
    """The settings. Raises :class:`Failure` with all that is wrong with them."""
    from stompbridge import config
    from stompbridge.routing.application import Application

    try:
        settings = config.load(path, os.environ, overrides)
        Application(settings.app)
    except (config.ConfigError, ValueError) as error:
        raise Failure(str(error)) from None
    return settings
