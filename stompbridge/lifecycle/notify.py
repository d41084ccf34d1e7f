"""What the process tells its service manager: systemd's notification protocol (sd_notify(3), sd_watchdog_enabled(3)).

Datagrams to the Unix socket that ``NOTIFY_SOCKET`` names. Without one, nothing is sent and nobody misses it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from time import CLOCK_MONOTONIC, clock_gettime_ns

from stompbridge.log import get_logger

_log = get_logger(__name__)

_SEND_TIMEOUT = 1.0
"""Seconds that a full socket is waited for. The manager reads it all the time."""


class Notifier:
    """Tells the manager how the process does. Never raises: a manager that does not listen is no reason to end."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        self._watchdog: asyncio.TimerHandle | None = None
        self.watchdog_interval = _watchdog_interval(environ) if self._address else 0.0
        """Seconds between two signs of life; 0: none are asked for."""

    def ready(self, status: str) -> None:
        """The start, or a reload, is over; ``status`` is for people."""
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """What the process is about, in a line for people. The same text is not sent twice."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` follows. The time tells the manager which of its requests is meant."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str, seconds: float) -> None:
        """The process ends, which may take that long from now on, whatever the manager's own limit."""
        self._status = status
        self._send("STOPPING=1", f"STATUS={status}", _extension(seconds))

    def still_stopping(self, status: str, seconds: float) -> None:
        """It goes on; the limit is ``seconds`` from now."""
        self._status = status
        self._send(f"STATUS={status}", _extension(seconds))

    def start_watchdog(self) -> None:
        """Gives signs of life out of the event loop from now on. When the loop stands still, they stay away."""
        if self.watchdog_interval and self._watchdog is None:
            self._beat()

    def stop_watchdog(self) -> None:
        """Gives no more."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _beat(self) -> None:
        self._watchdog = asyncio.get_running_loop().call_later(self.watchdog_interval, self._beat)
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL of an abstract name.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A status is one line whatever an exception's text holds.
        data = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_TIMEOUT)
                sock.sendto(data.encode(errors="replace"), address)
        except OSError as error:
            _log.debug("not_notified", address=self._address, error=str(error))


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


def _watchdog_interval(environ: Mapping[str, str]) -> float:
    """Half of what the manager waits for a sign of life, in seconds."""
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not limit.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(limit) / 2_000_000
