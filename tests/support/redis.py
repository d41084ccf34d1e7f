"""A Redis server of the tests' own."""

from __future__ import annotations

import atexit
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.support.ports import free_port, wait_port

STOP_TIMEOUT = 10.0


def binary() -> str | None:
    return shutil.which("redis-server")


class Redis:
    """One server on loopback, nothing on disk but what ``save`` would need."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        found = binary()
        if found is None:
            raise FileNotFoundError("no redis-server")
        self._binary = found
        self.folder = Path(tempfile.mkdtemp(prefix="stompbridge-redis-"))
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._server.pid if self._server is not None else 0

    def start(self) -> None:
        """Start and return once it accepts connections."""
        options = ["--bind", self.host, "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        self._server = subprocess.Popen(
            [self._binary, *options, "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_port(self.port)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Stop the process where it is: connections stay open and nothing answers."""
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it and delete its folder. Done at the interpreter's end, too."""
        atexit.unregister(self.remove)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(number)
            try:
                self._server.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait(STOP_TIMEOUT)
            self._server = None
