"""A web server for the built page and its settings."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
DIST = FOLDER / "dist"
POLICY = "default-src 'self'; connect-src 'self' ws: wss:; worker-src 'self' blob:; frame-ancestors 'none'"
"""The page's Content-Security-Policy. The worker is the STOMP client's heart-beat."""


def settings(bridges: Iterable[str] = ("/ws",), heartbeat: int = 20_000, reconnect: int = 5_000) -> str:
    """The page's ``settings.json``: addresses of bridges (the page takes the first, and the next when it is lost), and
    how often to beat and how long to wait before it connects again, both in milliseconds."""
    return json.dumps({"bridges": list(bridges), "heartbeat": heartbeat, "reconnect": reconnect})


class PageServer:
    """Serves the built page on loopback, from a thread, until ``close``. ``OSError`` when the port is taken."""

    def __init__(self, port: int = 0, text: str = "") -> None:
        """``text`` is the ``settings.json``; it can be set later, too. Port 0 takes a free one."""
        self.text = text or settings()
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(DIST))

            def do_GET(self) -> None:
                if self.path != "/settings.json":
                    super().do_GET()
                    return
                body = server.text.encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def end_headers(self) -> None:
                self.send_header("Content-Security-Policy", POLICY)
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Cache-Control", "no-cache")
                super().end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_port
        self.origins = [f"http://{host}:{self.port}" for host in ("localhost", "127.0.0.1")]
        """What a browser calls it."""
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
