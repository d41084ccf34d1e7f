"""``stompbridge config``."""

from __future__ import annotations

from pathlib import Path

import click

from stompbridge.cli.common import Failure, config_option, load


@click.group("config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command()
@config_option
def check(path: Path | None) -> None:
    """Check the file, the environment and the files of users and keys, and say what is wrong."""
    settings = load(path, {})

    from stompbridge.auth.factory import make_authenticator

    authenticator = make_authenticator(settings)
    if authenticator is not None:
        try:
            authenticator.reload()
        except ValueError as error:
            raise Failure(str(error)) from None
    click.echo("The configuration is valid.")


@config_group.command()
def default() -> None:
    """Print a configuration file with every key, its meaning and its default."""
    from stompbridge import config

    click.echo(config.default_toml(), nl=False)


@config_group.command("show")
@config_option
def show_(path: Path | None) -> None:
    """Print the settings that the file and the environment make, without passwords."""
    settings = load(path, {})

    from stompbridge import config

    click.echo(config.show(settings), nl=False)
