"""User destinations: ``/user/queue/x`` is a client's own, ``/user/NAME/queue/x`` all sessions of one user, on any node.

They are routing keys of one topic exchange, ``NAME.queue.x``, so that any program can send to a user with a plain AMQP
publish. ``/user/queue/x`` and ``/user/NAME/queue/x`` are Spring's forms.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote_to_bytes

from stompbridge.routing.values import short_string
from stompbridge.stomp import errors

EXCHANGE = "stompbridge.user"
"""A durable topic exchange. Clients reach it through ``/user`` only."""

OWN = frozenset({"queue", "topic", "exchange", "amq"})
"""A SEND to ``/user`` with one of these behind it is to the client's own."""
_NOT_A_PATH = re.compile(r"[*#]|^/|//|/$|^$").search
_NOT_A_NAME = re.compile(r"[*#]|%(?![0-9A-Fa-f]{2})|^$").search
_ENCODED = {ord(char): f"%{ord(char):02X}" for char in ".*#/%"}


def parse_user(text: str, command: Literal["SEND", "SUBSCRIBE"]) -> tuple[str, str]:
    """The user whom a destination that begins with ``/user`` names, empty where it is the client's own, and the end
    of the routing key: the path with ``.`` for ``/`` and ``/`` for ``%2F``.

    A SUBSCRIBE is always to the client's own. A SEND is to the client's own if the first part is ``queue``, ``topic``,
    ``exchange`` or ``amq``; otherwise this part is a name, percent-encoded (RFC 3986, section 2.1) as far as need be.
    Raises :class:`~stompbridge.stomp.errors.StompError` for what is neither; ``*`` and ``#`` match nothing here.
    """
    rest = text.removeprefix("/user")
    path = rest[1:]
    user = ""
    if command == "SEND" and path.partition("/")[0] not in OWN:
        encoded, _, path = path.partition("/")
        try:
            user = "" if _NOT_A_NAME(encoded) else unquote_to_bytes(encoded).decode()
        except UnicodeDecodeError:
            user = ""
        if not user:
            raise errors.invalid_destination(rest, "user")
    if _NOT_A_PATH(path):
        raise errors.invalid_destination(rest, "user")
    return user, path.replace("/", ".").replace("%2F", "/")


def routing_key(user: str, path: str) -> str:
    """The key of a user's messages. The name is one word of it, whatever is in it: its ``.``, ``*``, ``#``, ``/`` and
    ``%`` are percent-encoded. Raises ``StompError`` when the key gets too long for AMQP."""
    return short_string("the routing key", f"{user.translate(_ENCODED)}.{path}")
