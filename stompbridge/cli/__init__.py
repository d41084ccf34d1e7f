"""The command line: nothing but argument handling, questions to a running bridge, and their answers for people."""

from __future__ import annotations

import click

from stompbridge import __version__
from stompbridge.cli.lazy import LazyGroup

__all__ = ["main"]


@click.group(
    cls=LazyGroup,
    modules={
        "serve": "serve:serve",
        "status": "status:status",
        "ready": "status:ready",
        "top": "top:top",
        "sessions": "sessions:sessions",
        "trace": "trace:trace",
        "log-level": "control:log_level",
        "drain": "control:drain",
        "doctor": "doctor:doctor",
        "config": "configuration:config_group",
        "users": "access:users",
        "acl": "access:acl_group",
        "completion": "completion:completion",
        "version": "version:version",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="stompbridge")
def main() -> None:
    """A bridge from STOMP over WebSocket to RabbitMQ."""
