"""The command line: nothing but argument handling."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from stompbridge import __version__, config


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
    help="RabbitMQ, as in amqp://user:password@host:5672/vhost; several are tried in turn.",
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
    settings = _load(path, overrides | assignments)

    from stompbridge import daemon

    sys.exit(daemon.run(settings))


@main.group("config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command()
@_config_option
def check(path: Path | None) -> None:
    """Check the file and the environment, and say what is wrong."""
    _load(path, {})
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


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"stompbridge {__version__}")


def _load(path: Path | None, overrides: dict[str, str]) -> config.Settings:
    from stompbridge.routing.application import Application

    try:
        settings = config.load(path, os.environ, overrides)
        Application(settings.app)
    except (config.ConfigError, ValueError) as error:
        raise _BadConfiguration(str(error)) from None
    return settings
