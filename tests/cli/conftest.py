from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stompbridge.cli import main
from tests.support import configs
from tests.support.bridge import Bridge

TOKEN = "0123456789abcdef-token"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "ADMIN_URL", "ADMIN__HOST", "ADMIN__PORT", "ADMIN__TOKEN", "ADMIN__TOKEN_FILE"):
        monkeypatch.delenv(f"STOMPBRIDGE_{name}", raising=False)


@pytest.fixture(scope="module")
def operated() -> Iterator[Bridge]:
    """A bridge with an admin token."""
    bridge = Bridge(configs.memory(), environ={"STOMPBRIDGE_ADMIN__TOKEN": TOKEN})
    try:
        bridge.start()
        bridge.wait_ready()
        yield bridge
        assert bridge.stop() == 0
        bridge.assert_clean_log()
    finally:
        bridge.remove()


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=dict(environ))


Ask = Callable[..., Result]


@pytest.fixture
def ask(operated: Bridge) -> Ask:
    """Runs a command against the bridge, with the token."""

    def run(*arguments: str, **environ: str) -> Result:
        return invoke(
            *arguments, **({"STOMPBRIDGE_ADMIN_URL": operated.admin_url, "STOMPBRIDGE_ADMIN__TOKEN": TOKEN} | environ)
        )

    return run


class Fake:
    """Something on a port that speaks HTTP, and answers what it is told to."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.seen: list[tuple[str, str, str, bytes]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                fake.seen.append((self.command, self.path, self.headers.get("authorization", ""), body))
                status, data = fake.answers.get(self.path.partition("?")[0], (404, b"not here"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                """Not to the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def says(self, path: str, document: object, status: int = 200) -> None:
        self.answers[path] = status, json.dumps(document).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    yield server
    server.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN + "\n")
    return path
