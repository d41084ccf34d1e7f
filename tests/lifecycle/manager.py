"""What a service manager does for a process: it listens to its notifications, and passes sockets to it."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.bridge import Bridge

LIMIT = 20.0

_ACTIVATE = """
import os, sys
numbers, names, arguments = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
# Where they are in the way of each other, they move first.
kept = [os.dup(int(number)) for number in numbers]
while min(kept) < 3 + len(kept):
    kept = [os.dup(number) for number in kept]
for index, number in enumerate(kept):
    os.dup2(number, 3 + index)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, *arguments])
"""


class Notifications:
    """The socket that a process tells its state to, with a name in the file system or an abstract one."""

    def __init__(self, *, abstract: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stompbridge-notify-")
        path = Path(self._folder.name) / "notify"
        self.address = f"@{path}" if abstract else str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if abstract else self.address)

    def __enter__(self) -> Notifications:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._folder.cleanup()

    def receive(self, within: float = LIMIT) -> list[str]:
        """The lines of the next datagram. ``TimeoutError`` when none comes."""
        self._socket.settimeout(within)
        return self._socket.recv(65536).decode().split("\n")

    def expect(self, first: str, within: float = LIMIT) -> list[str]:
        """The next datagram that begins with that line; others are passed over."""
        deadline = time.monotonic() + within
        while True:
            lines = self.receive(max(0.001, deadline - time.monotonic()))
            if lines[0] == first:
                return lines

    def pending(self) -> list[list[str]]:
        """All that has come."""
        found = []
        self._socket.setblocking(False)
        try:
            while True:
                found.append(self._socket.recv(65536).decode().split("\n"))
        except BlockingIOError:
            return found


def listening(port: int = 0, *, host: str = "127.0.0.1", backlog: int = 4096) -> socket.socket:
    """A socket as a ``.socket`` unit opens it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(backlog)
    return sock


class Activated(Bridge):
    """A bridge that the sockets are passed to, by these names."""

    def __init__(
        self,
        config: str,
        sockets: Sequence[socket.socket],
        names: str = "listen",
        *,
        node: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config, node=node, environ=environ)
        self.port = sockets[0].getsockname()[1]
        self.node = node or f"test-{self.port}-{os.urandom(2).hex()}"
        self.pass_fds = tuple(sock.fileno() for sock in sockets)
        self._names = names

    def command(self) -> list[str]:
        numbers = ",".join(str(number) for number in self.pass_fds)
        return [sys.executable, "-c", _ACTIVATE, numbers, self._names, *super().command()[1:]]
