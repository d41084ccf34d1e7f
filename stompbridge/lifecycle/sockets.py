"""Listening sockets: opened here, or passed by the process that started this one (sd_listen_fds(3))."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

_FIRST = 3
"""The number of the first descriptor that is passed."""
_OWN_NAMES = {"": "listen", "unknown": "listen", "listen": "listen", "admin": "admin"}


class PassedSocketError(ValueError):
    """What was passed can not be served."""


@dataclass(frozen=True, slots=True)
class Passed:
    """Sockets that listen already. Whoever passed them has them open, too: when this process takes no more
    connections from them, those that come wait for the next process."""

    listen: tuple[socket.socket, ...] = ()
    admin: tuple[socket.socket, ...] = ()


def passed(environ: MutableMapping[str, str]) -> Passed:
    """What ``LISTEN_FDS``, ``LISTEN_PID`` and ``LISTEN_FDNAMES`` say, which are taken out of ``environ``: they are for
    no child of this process. ``admin`` is a name for the admin port, ``listen`` for where browsers connect, which a
    socket without a name, or with its unit's, is for, too.

    Raises :class:`PassedSocketError`.
    """
    count, pid, names = (environ.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"))
    if not count.isdecimal() or pid != str(os.getpid()):
        return Passed()
    labels = names.split(":") if names else []
    kept: dict[str, list[socket.socket]] = {"listen": [], "admin": []}
    for index in range(int(count)):
        label = labels[index] if index < len(labels) else ""
        name = "listen" if label.endswith(".socket") else _OWN_NAMES.get(label, "")
        if not name:
            raise PassedSocketError(f"a socket is passed as {label!r}; FileDescriptorName= must be listen or admin")
        kept[name].append(_open(_FIRST + index, name))
    return Passed(tuple(kept["listen"]), tuple(kept["admin"]))


def _open(descriptor: int, name: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise PassedSocketError(f"descriptor {descriptor}, passed as {name}, is no socket: {error.strerror}") from None
    fault = ""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        fault = "is not TCP (ListenStream= with a port)"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        fault = "does not listen (Accept= must be no)"
    if fault:
        sock.close()
        raise PassedSocketError(f"the socket passed as {name} {fault}")
    sock.setblocking(False)
    os.set_inheritable(descriptor, False)
    return sock


async def serve_passed(
    factory: Callable[[], asyncio.BaseProtocol], sockets: Sequence[socket.socket], backlog: int
) -> list[asyncio.Server]:
    """Serves sockets that were passed. The servers own them."""
    loop = asyncio.get_running_loop()
    return [await loop.create_server(factory, sock=sock, backlog=backlog) for sock in sockets]


async def close_empty(servers: Sequence[asyncio.Server], factory: Callable[[], asyncio.BaseProtocol]) -> int:
    """Closes servers whose sockets are nobody else's, and serves what waited to be accepted: for its clients it is
    connected, and the kernel would reset it with the socket. Returns how many connections those were."""
    loop = asyncio.get_running_loop()
    waiting: list[socket.socket] = []
    for server in servers:
        # Duplicates keep the sockets listening while the loop lets go of them.
        listening = [socket.socket(fileno=os.dup(opened.fileno())) for opened in server.sockets]
        server.close()
        for sock in listening:
            with sock:
                waiting += _backlog(sock)
    for connection in waiting:
        await loop.connect_accepted_socket(factory, connection)
    return len(waiting)


def _backlog(sock: socket.socket) -> list[socket.socket]:
    """All that wait at this moment."""
    sock.setblocking(False)
    taken: list[socket.socket] = []
    while True:
        try:
            connection, _ = sock.accept()
        except ConnectionAbortedError:
            continue
        except OSError:
            # None waits any more, or there are no files left for one.
            return taken
        connection.setblocking(False)
        taken.append(connection)
