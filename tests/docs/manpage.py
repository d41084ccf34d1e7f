"""The manual page of the command line, from the commands themselves.

``python -m tests.docs.manpage`` writes ``docs/man/stompbridge.1``; a test finds out when that was forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from inspect import cleandoc
from pathlib import Path

import click

from stompbridge import __version__
from stompbridge.cli import main

PATH = Path(__file__).resolve().parents[2] / "docs/man/stompbridge.1"

HELP = ("-h, --help", "--help")
SHARED = (*HELP, "--admin URL", "--token-file FILE", "--config FILE", "--json")
"""Options that several commands have, and that are told once."""

OPENING = """\
.\\" Made by python -m tests.docs.manpage: change the commands, not this.
.TH STOMPBRIDGE 1 "" "stompbridge {version}" "User Commands"
.nh
.SH NAME
stompbridge \\- a bridge from STOMP over WebSocket to RabbitMQ
.SH SYNOPSIS
.B stompbridge
.I COMMAND
.RI [ OPTIONS ]
.SH DESCRIPTION
Browser frontends speak STOMP over WebSocket; RabbitMQ speaks AMQP.
.B stompbridge serve
is the process in between.
The other commands look at its configuration, ask and control a running bridge through its admin listener, and find out
what keeps one from working.
.PP
Without a configuration file the broker is embedded in the process, and only this machine can connect.
.B stompbridge config default
prints a file with every setting, its meaning and its default.
Every setting is an environment variable, too, which wins over the file:
.I limits.frame
is
.BR STOMPBRIDGE_LIMITS__FRAME .
"""
CLOSING = """\
.SH ENVIRONMENT
.TP
.B STOMPBRIDGE_CONFIG
The configuration file, as
.BR \\-\\-config .
.TP
.B STOMPBRIDGE_ADMIN_URL
The admin listener of the bridge that is asked, as
.BR \\-\\-admin .
.TP
.BR STOMPBRIDGE_ADMIN__TOKEN ", " STOMPBRIDGE_ADMIN__TOKEN_FILE
The admin token, and the file that holds it, for the bridge and for those who control it.
.TP
.BI STOMPBRIDGE_ SECTION __ KEY
A setting.
.SH SIGNALS
What
.B stompbridge serve
does at a signal:
.TP
.BR SIGTERM ", " SIGINT
Ends in order: no new clients, sessions closed one by one, what is under way settled.
A second one ends at once.
.TP
.B SIGHUP
Reads the configuration anew: access rules, users, certificate, log level and limits, all of them or none.
.SH EXIT STATUS
.TP
.B 0
All is well.
.TP
.B 1
Something is wrong with what was asked about, or it is not there; a bridge could not start.
.TP
.B 2
The arguments or the configuration cannot be used, or a token is missing or wrong.
.TP
.B 3
No bridge answers.
.SH EXAMPLES
.TP
.B stompbridge serve \\-\\-config /etc/stompbridge/stompbridge.toml
.TP
.B stompbridge doctor \\-\\-config /etc/stompbridge/stompbridge.toml
.TP
.B stompbridge sessions list \\-\\-search alice \\-\\-sort unacked
.TP
.B stompbridge trace \\-\\-destination \\(aq/topic/room.#\\(aq \\-\\-bodies
.SH SEE ALSO
.BR rabbitmqctl (8),
.BR redis\\-server (1),
.BR systemd.service (5)
"""


def page() -> str:
    """The whole page."""
    context = click.Context(main, info_name="stompbridge", help_option_names=["-h", "--help"])
    lines = [OPENING.format(version=__version__).rstrip("\n"), ".SH COMMANDS"]
    for path, command in commands(main, context):
        lines += section(path, command)
    status = main.get_command(context, "status")
    assert status is not None
    lines += [
        '.SH "OPTIONS OF COMMANDS THAT ASK A BRIDGE"',
        "These are status, ready, top, sessions, trace, log\\-level and drain.",
        *options(status, click.Context(status), HELP),
        ".SH OPTIONS",
        *options(main, context),
    ]
    return "\n".join(lines) + "\n" + CLOSING


def commands(group: click.Group, context: click.Context, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands in the order of the help, by the words that call them; groups are left out."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, context, f"{path}{name} ")
        else:
            yield path + name, command


def section(path: str, command: click.Command) -> Iterator[str]:
    """The words, the arguments, the text, and the options of a command."""
    context = click.Context(command, info_name=path)
    arguments = [f" \\fI{roff(piece)}\\fR" for piece in command.collect_usage_pieces(context)]
    yield ".SS " + f'"stompbridge {roff(path)}{"".join(arguments)}"'
    yield from paragraphs(cleandoc(command.help or ""))
    yield from options(command, context, SHARED if asks_a_bridge(command) else HELP)


def asks_a_bridge(command: click.Command) -> bool:
    """Whether it has the options that say which bridge is meant."""
    return any(parameter.name == "token_file" for parameter in command.params)


def paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
        if number:
            yield ".PP"
        verbatim = paragraph.startswith("\b")
        if verbatim:
            yield ".nf"
        yield from (line(part) for part in paragraph.lstrip("\b\n").splitlines())
        if verbatim:
            yield ".fi"


def options(command: click.Command, context: click.Context, leave_out: Container[str] = ()) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None and record[0] not in leave_out:
            yield ".TP"
            yield f".B {roff(record[0])}"
            yield line(record[1])


def line(text: str) -> str:
    """A line of text: one that begins as a request does would be taken for one."""
    text = roff(text.strip())
    return f"\\&{text}" if text.startswith((".", "'")) else text


def roff(text: str) -> str:
    """``text`` with what roff takes for something else written so that it stays what it is."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace('"', "\\(dq")


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(page(), "utf-8")
