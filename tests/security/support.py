"""What the tests against attackers share."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.bridge import Bridge

KIB = 1024
MIB = 1024 * KIB

Answer = tuple[int, dict[str, Any] | bytes]
"""Status and body."""


@contextmanager
def running(bridge: Bridge) -> Iterator[Bridge]:
    """The bridge while it runs; its log has to be clean at the end."""
    try:
        bridge.start()
        yield bridge
        assert bridge.stop() == 0, bridge.log[-4000:]
        bridge.assert_clean_log()
    finally:
        bridge.remove()


def cpu(bridge: Bridge) -> float:
    """Seconds of CPU time that the process has used."""
    fields = Path(f"/proc/{bridge.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Webhook:
    """A server that answers the question about a client with ``respond(question)``, in a thread of its own."""

    def __init__(self, respond: Callable[[dict[str, Any]], Answer]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = respond(question)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/who"

    def toml(self, *more: str) -> str:
        """The configuration that asks it."""
        auth = '[auth]\nbackend = "http"\nfailures = 10000'
        return "\n".join([auth, *more, f'[auth.http]\nurl = "{self.url}"'])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
