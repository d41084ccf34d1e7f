"""Free ports on the loopback interface."""

from __future__ import annotations

import socket
import time

_given: set[int] = set()


def free_port() -> int:
    """A TCP port that nothing listens on and that this process has not given out before."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def wait_port(port: int, timeout: float = 10.0) -> None:
    """Return once the port accepts connections; ``TimeoutError`` otherwise."""
    deadline = time.monotonic() + timeout
    while not accepts(port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port} after {timeout:g} s")
        time.sleep(0.02)
