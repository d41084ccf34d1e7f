"""The chat on this machine: ``bin/demo`` runs it once everything is installed and the page is built.

It starts one bridge with the embedded broker, or two bridges on a RabbitMQ and a Redis of its own behind nginx.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from examples.chat.serve import DIST, POLICY, PageServer, settings
from tests.support.ports import accepts, free_port, wait_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0
CHECK_INTERVAL = 3.0
HEARTBEAT = 5_000
RECONNECT = 2_000
"""Both in milliseconds, and short: what happens is to be seen."""
NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    include /etc/nginx/mime.types;
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream bridges {{
{servers}
    }}
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    server {{
        listen 127.0.0.1:{port};
        root {dist};
        add_header Content-Security-Policy "{policy}";
        add_header X-Content-Type-Options nosniff;
        add_header Cache-Control no-cache;
        location = /settings.json {{ default_type application/json; return 200 '{settings}'; }}
        location = /ws {{
            proxy_pass http://bridges;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_connect_timeout 2s;
        }}
    }}
}}
"""


class Ended(Exception):
    """Ctrl-C, SIGTERM, or what could not be started."""


class Program:
    """A program that writes its output to a file, and is asked to end at the end."""

    def __init__(self, name: str, command: list[str], folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._environ = os.environ | dict(environ or {})
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def restart(self) -> None:
        self.process = self._start()

    def check(self) -> None:
        """Raises :class:`Ended` where it does not run any more."""
        if not self.running:
            raise Ended(f"{self.name} ended:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Twice asked, a bridge does not wait for its clients."""
        for _ in range(2):
            if self.running:
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_TIMEOUT / 5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT)
        if self.running:
            self.process.kill()
            self.process.wait()


class Bridge(Program):
    """``stompbridge serve`` with ``config/chat-app.toml``, and what ``environ`` changes of it."""

    def __init__(self, number: int, folder: Path, origins: list[str], environ: Mapping[str, str]) -> None:
        self.port, self._admin_port = free_port(), free_port()
        names = {
            "NODE": f"demo-{number}",
            "LISTEN__PORT": str(self.port),
            "LISTEN__ALLOWED_ORIGINS": json.dumps(origins),
            "ADMIN__PORT": str(self._admin_port),
            "APP__WORKER": str(number),
            "HEALTH__BROKER__INTERVAL": "2s",
            "HEALTH__BROKER__TIMEOUT": "1s",
            **environ,
        }
        command = [sys.executable, "-m", "stompbridge", "serve", "--config", str(ROOT / "config/chat-app.toml")]
        super().__init__(
            f"bridge-{number}", command, folder, {f"STOMPBRIDGE_{name}": value for name, value in names.items()}
        )

    def wait_ready(self) -> None:
        """Returns once clients are served and the broker is reached."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{self._admin_port}/readyz", timeout=5).close()
                return
            time.sleep(0.05)
        raise Ended(f"{self.name} is not ready after {START_TIMEOUT:g} s; see {self.log}")


@contextlib.contextmanager
def embedded(port: int, folder: Path) -> Iterator[list[Program]]:
    """One bridge, and the page from this process."""
    server = PageServer(port)
    bridge = None
    try:
        bridge = Bridge(1, folder, server.origins, {"BROKER__KIND": "memory"})
        bridge.wait_ready()
        server.text = settings([f"ws://127.0.0.1:{bridge.port}/ws"], HEARTBEAT, RECONNECT)
        yield [bridge]
    finally:
        if bridge is not None:
            bridge.stop()
        server.close()


@contextlib.contextmanager
def cluster(port: int, folder: Path) -> Iterator[list[Program]]:
    """Two bridges on RabbitMQ and Redis; nginx serves the page and spreads the connections."""
    programs: list[Program] = []
    rabbitmq, redis = RabbitMQ(), Redis()
    try:
        redis.start()
        rabbitmq.start()
        environ = {
            "BROKER__URLS": json.dumps([rabbitmq.url]),
            "DEDUP__STORE": "redis",
            "DEDUP__REDIS_URL": redis.url,
        }
        bridges = [Bridge(number, folder, [], environ) for number in (1, 2)]
        programs += bridges
        for bridge in bridges:
            bridge.wait_ready()
        config = folder / "nginx.conf"
        config.write_text(
            NGINX.format(
                folder=folder,
                port=port,
                dist=DIST,
                policy=POLICY,
                settings=settings(["/ws"], HEARTBEAT, RECONNECT),
                servers="\n".join(f"        server 127.0.0.1:{bridge.port} fail_timeout=2s;" for bridge in bridges),
            )
        )
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        programs.append(Program("nginx", [nginx, "-p", str(folder), "-e", "stderr", "-c", str(config)], folder))
        wait_port(port, START_TIMEOUT)
        yield programs
    finally:
        for program in reversed(programs):
            program.stop()
        rabbitmq.remove()
        redis.remove()


def watch(programs: list[Program]) -> NoReturn:
    """Starts what ends again, as a service manager would, until a signal comes."""
    while True:
        time.sleep(CHECK_INTERVAL)
        for program in programs:
            if not program.running:
                program.restart()
                print(f"  {program.name} ended; started again as process {program.process.pid}", flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended


def main() -> int:
    """Runs until it is told to end; 0 then, 1 when something could not be started."""
    parser = argparse.ArgumentParser(prog="bin/demo", description="A chat in the browser, over stompbridge.")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="where the page is (default: 8000)")
    parser.add_argument("--rabbitmq", action="store_true", help="two bridges on RabbitMQ and Redis, behind nginx")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    folder = Path(tempfile.mkdtemp(prefix="stompbridge-demo-"))
    try:
        if accepts(options.port):
            raise Ended(f"port {options.port} is taken; choose another with --port")
        with (cluster if options.rabbitmq else embedded)(options.port, folder) as programs:
            print(f"\n  The chat:  http://localhost:{options.port}/   (open it twice)\n")
            for program in programs:
                print(f"  {program.name}: process {program.process.pid}, log in {program.log}")
            print("\n  Ctrl-C ends all of it. What is killed before is started again.", flush=True)
            watch(programs)
    except Ended as reason:
        if str(reason):
            print(f"bin/demo: {reason}", file=sys.stderr)
        return 1 if str(reason) else 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
