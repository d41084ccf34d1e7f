"""``stompbridge version``."""

from __future__ import annotations

import click

from stompbridge import __version__


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"stompbridge {__version__}")
