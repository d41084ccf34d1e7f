"""Commands that are imported when they are asked for: none pays for what another needs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import click


class LazyGroup(click.Group):
    """A group whose commands are the attributes in ``modules``, ``module:attribute`` of this package by command name,
    and are listed in that order."""

    def __init__(self, *args: Any, modules: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = dict(modules)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._modules.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        return cast(click.Command, getattr(import_module(f"stompbridge.cli.{module}"), attribute))
