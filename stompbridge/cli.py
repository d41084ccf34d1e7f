"""The command line: nothing but argument handling."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from stompbridge import __version__, config, config_file


class _BadConfiguration(click.ClickException):
    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"stompbridge: {self.message}", file=file or sys.stderr)


def _address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """``HOST:PORT``, ``[IPv6]:PORT`` or ``PORT`` alone, as host and port."""
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise click.BadParameter(f"{value!r}: an IPv6 address is written in brackets, as in [::1]:8080")
    if not (port.isascii() and port.isdecimal()):
        raise click.BadParameter(f"{value!r} is not HOST:PORT, as in 127.0.0.1:8080")
    return host, port


def _assignments(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` texts by their dotted key."""
    assignments = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE, as in limits.frame=1MiB")
        assignments[key.strip()] = text.strip()
    return assignments


_config_option = click.option(
    "--config",
    "path",
    envvar="STOMPBRIDGE_CONFIG",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration file. Without one: embedded broker, this machine only. [env: STOMPBRIDGE_CONFIG]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="stompbridge")
def main() -> None:
    """A bridge from STOMP over WebSocket to RabbitMQ."""


@main.command()
@_config_option
@click.option("--listen", callback=_address, metavar="HOST:PORT", help="Where browsers connect.")
@click.option("--admin", callback=_address, metavar="HOST:PORT", help="Where health checks are answered.")
@click.option(
    "--broker-url",
    "broker_urls",
    multiple=True,
    metavar="URL",
    help="RabbitMQ, as in amqp://host:5672/vhost; several are tried in turn. Not with a password, which everybody "
    "could read here: for that, there are STOMPBRIDGE_BROKER__URLS and broker.urls_file.",
)
@click.option("--node", metavar="NAME", help="This process's name, different on each node.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="auto, console or json.")
@click.option("--insecure", is_flag=True, help="Listen on other than loopback although nothing authenticates clients.")
@click.option(
    "--set",
    "assignments",
    callback=_assignments,
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other key, as in limits.frame=1MiB.",
)
def serve(
    path: Path | None,
    listen: tuple[str, str] | None,
    admin: tuple[str, str] | None,
    broker_urls: tuple[str, ...],
    node: str | None,
    log_level: str | None,
    log_format: str | None,
    insecure: bool,
    assignments: dict[str, str],
) -> None:
    """Run the bridge until SIGTERM or SIGINT."""
    overrides: dict[str, str] = {}
    for section, address in (("listen", listen), ("admin", admin)):
        if address is not None:
            host, overrides[f"{section}.port"] = address
            if host:
                overrides[f"{section}.host"] = host
    if broker_urls:
        overrides |= {"broker.kind": "rabbitmq", "broker.urls": json.dumps(broker_urls), "broker.urls_file": ""}
    for key, value in (("node", node), ("log.level", log_level), ("log.format", log_format)):
        if value is not None:
            overrides[key] = value
    if insecure:
        overrides["insecure"] = "true"
    overrides |= assignments
    for key, text in overrides.items():
        _refuse_secret(key, text)
    settings = _load(path, overrides)

    from stompbridge import daemon

    sys.exit(daemon.run(settings, partial(config.load, path, os.environ, overrides)))


@main.group("config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command()
@_config_option
def check(path: Path | None) -> None:
    """Check the file, the environment and the files of users and keys, and say what is wrong."""
    settings = _load(path, {})

    from stompbridge.auth.factory import make_authenticator

    authenticator = make_authenticator(settings)
    if authenticator is not None:
        try:
            authenticator.reload()
        except ValueError as error:
            raise _BadConfiguration(str(error)) from None
    click.echo("The configuration is valid.")


@config_group.command()
def default() -> None:
    """Print a configuration file with every key, its meaning and its default."""
    click.echo(config.default_toml(), nl=False)


@config_group.command("show")
@_config_option
def show_(path: Path | None) -> None:
    """Print the settings that the file and the environment make, without passwords."""
    click.echo(config.show(_load(path, {})), nl=False)


@main.group()
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
            raise _BadConfiguration("the password is not UTF-8 text") from None
    if not password:
        raise _BadConfiguration("the password is empty")

    from stompbridge.auth.static import hash_password

    click.echo(f'password = "{hash_password(password)}"')


@main.group("acl")
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
@_config_option
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
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
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
    settings = _load(path, {})

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
        raise _BadConfiguration(str(error)) from None
    if as_json:
        answer = {"allowed": decision.allowed, "rule": decision.rule, "text": decision.text}
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        click.echo(decision.text)
    sys.exit(0 if decision.allowed else 1)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"stompbridge {__version__}")


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()


def _refuse_secret(key: str, text: str) -> None:
    """What stands on the command line stands in the list of processes."""
    if key == "auth.default_passcode" or (key.endswith(("url", "urls")) and config_file.redact(text) != text):
        variable = config.ENVIRONMENT_PREFIX + key.upper().replace(".", "__")
        files = {
            "broker.urls": "broker.urls_file",
            "dedup.redis_url": "dedup.redis_url_file",
            "auth.default_passcode": "auth.default_passcode_file",
        }
        raise _BadConfiguration(
            f"command line: {key}: everybody on this machine could read the password in the list of processes; "
            f"set the environment variable {variable}, or {files.get(key, f'{key} in the configuration file')}"
        )


def _load(path: Path | None, overrides: dict[str, str]) -> config.Settings:
    from stompbridge.routing.application import Application

    try:
        settings = config.load(path, os.environ, overrides)
        Application(settings.app)
    except (config.ConfigError, ValueError) as error:
        raise _BadConfiguration(str(error)) from None
    return settings
