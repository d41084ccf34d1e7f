"""``stompbridge serve``."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import click

from stompbridge.cli.common import Failure, config_option, load


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


@click.command()
@config_option
@click.option("--listen", callback=_address, metavar="HOST:PORT", help="Where browsers connect.")
@click.option("--admin", callback=_address, metavar="HOST:PORT", help="Where operators and health checks are answered.")
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
@click.option("--insecure", is_flag=True, help="Listen on other than loopback although nothing asks who comes.")
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
    settings = load(path, overrides)

    from stompbridge import config, daemon

    sys.exit(daemon.run(settings, partial(config.load, path, os.environ, overrides)))


def _refuse_secret(key: str, text: str) -> None:
    """What stands on the command line stands in the list of processes."""
    from stompbridge import config, config_file

    if key == "auth.default_passcode" or (key.endswith(("url", "urls")) and config_file.redact(text) != text):
        variable = config.ENVIRONMENT_PREFIX + key.upper().replace(".", "__")
        files = {
            "broker.urls": "broker.urls_file",
            "dedup.redis_url": "dedup.redis_url_file",
            "auth.default_passcode": "auth.default_passcode_file",
        }
        raise Failure(
            f"command line: {key}: everybody on this machine could read the password in the list of processes; "
            f"set the environment variable {variable}, or {files.get(key, f'{key} in the configuration file')}"
        )
