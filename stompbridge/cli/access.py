"""``stompbridge users`` and ``stompbridge acl``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import click

from stompbridge.cli.common import Failure, config_option, json_option, load


@click.group()
def users() -> None:
    """Work on the file of users (auth.users_file)."""


@users.command("hash")
def hash_() -> None:
    """Hash a password, and print its line for the file of users.

    On a terminal it is asked for; otherwise it is the first line of standard input.
    """
    if _on_a_terminal():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        try:
            password = sys.stdin.buffer.readline().decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise Failure("the password is not UTF-8 text") from None
    if not password:
        raise Failure("the password is empty")

    from stompbridge.auth.static import hash_password

    click.echo(f'password = "{hash_password(password)}"')


@click.group("acl")
def acl_group() -> None:
    """Look at the access rules."""


def _headers(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for value in values:
        name, colon, text = value.partition(":")
        if not colon:
            raise click.BadParameter(f"{value!r} is not NAME:VALUE, as in durable:true")
        headers.setdefault(name, text)
    return headers


@acl_group.command()
@config_option
@click.option("--user", required=True, help="The user's name; '' for a client whom nobody authenticates.")
@click.option("--group", "groups", multiple=True, help="A group that the user is in.")
@click.argument("action", type=click.Choice(["subscribe", "send"]))
@click.argument("destination")
@click.option(
    "--header",
    "headers",
    callback=_headers,
    multiple=True,
    metavar="NAME:VALUE",
    help="A header of the frame, as in durable:true.",
)
@json_option
def test(
    path: Path | None,
    user: str,
    groups: tuple[str, ...],
    action: Literal["subscribe", "send"],
    destination: str,
    headers: dict[str, str],
    as_json: bool,
) -> None:
    """Say whether a user may subscribe to, or send to, a destination, and which rule decides.

    Ends with 0 where it is allowed, 1 where it is refused, 2 where the question makes no sense.
    """
    settings = load(path, {})

    from stompbridge.auth.acl import Acl, unruled
    from stompbridge.auth.base import Identity
    from stompbridge.brokers.memory import MemoryBroker  # which knows the configured exchanges' types
    from stompbridge.stomp.errors import StompError

    acl = Acl(settings.acl, MemoryBroker(settings.broker).exchange_type)
    permissions = acl.permissions(Identity(user, frozenset(groups)))
    try:
        if permissions is None:
            decision = unruled(action, destination)
        else:
            decision = permissions.explain(action, destination, headers)
    except StompError as error:
        raise Failure(str(error)) from None
    if as_json:
        answer = {"allowed": decision.allowed, "rule": decision.rule, "text": decision.text}
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        click.echo(decision.text)
    sys.exit(0 if decision.allowed else 1)


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()
