"""Servers for one scenario: bridges with settings of its own and, where wanted, RabbitMQ and Redis."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.bench.scenarios import Target
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis

START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0
ROOT = Path(__file__).parents[2]
CHAT_CONFIG = ROOT / "config" / "chat-app.toml"

# A binding goes at once with its last subscriber: a round must not find those of the round before.
_COMMON = {"LISTEN__HOST": "127.0.0.1", "LISTEN__BACKLOG": "4096", "BROKER__BIND_LINGER": "0s"}


class Daemon:
    """One bridge process, its log in a file as in production. It runs from the moment it is made."""

    def __init__(self, folder: Path, settings: Mapping[str, str], config: Path | None = None) -> None:
        """``settings`` are names and values of environment variables, without their prefix; they need
        ``ADMIN__PORT``."""
        self._log = Path(tempfile.mkstemp(".log", "bridge-", folder)[1])
        self._admin = int(settings["ADMIN__PORT"])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STOMPBRIDGE_")}
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stompbridge", "serve", *(["--config", str(config)] if config else [])],
                cwd=ROOT,
                env=kept | {f"STOMPBRIDGE_{name}": value for name, value in settings.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_ready(self) -> None:
        """``RuntimeError`` when it ends or is not ready within :data:`START_TIMEOUT`."""
        deadline = time.monotonic() + START_TIMEOUT
        while not _ready(self._admin):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"stompbridge does not serve:\n{self.log[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)


class Deployment:
    """Context manager: starts RabbitMQ and Redis, ends them and the bridges that were started on them."""

    def __init__(self, *, embedded: bool = False, redis: bool = False) -> None:
        """``embedded``: the bridges' own broker in place of RabbitMQ. ``redis``: start one, for bridges that ask."""
        self._embedded = embedded
        self._with_redis = redis
        self._folder = Path()
        self._rabbitmq: RabbitMQ | None = None
        self._redis: Redis | None = None
        self._daemons: list[Daemon] = []

    def __enter__(self) -> Deployment:
        self._folder = Path(tempfile.mkdtemp(prefix="stompbridge-bench-"))
        try:
            if not self._embedded:
                self._rabbitmq = RabbitMQ()
                self._rabbitmq.start()
            if self._with_redis:
                self._redis = Redis()
                self._redis.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def bridge(
        self,
        name: str,
        settings: Mapping[str, str] | None = None,
        *,
        config: Path | None = None,
        processes: int = 1,
        named: bool = False,
    ) -> Target:
        """Bridges on one port, ready. ``named``: their receivers name themselves, and where the site has Redis their
        histories are there."""
        port = free_port()
        shared = {"LISTEN__REUSE_PORT": "true"} if processes > 1 else {}
        if named and self._redis is not None:
            shared |= {"DEDUP__STORE": "redis", "DEDUP__REDIS_URL": self._redis.url}
        daemons = [self.spawn(port, {**shared, **(settings or {})}, config) for _ in range(processes)]
        for daemon in daemons:
            daemon.wait_ready()
        return self.target(name, port, daemons, named)

    def spawn(self, port: int, settings: Mapping[str, str], config: Path | None = None) -> Daemon:
        """A bridge that has just been started and may not serve yet."""
        own = {"NODE": f"bench-{len(self._daemons)}", "LISTEN__PORT": str(port), "ADMIN__PORT": str(free_port())}
        if self._rabbitmq is not None:
            own |= {"BROKER__KIND": "rabbitmq", "BROKER__URLS": json.dumps([self._rabbitmq.url])}
        else:
            own |= {"BROKER__KIND": "memory"}
        daemon = Daemon(self._folder, {**_COMMON, **own, **settings}, config)
        self._daemons.append(daemon)
        return daemon

    def target(self, name: str, port: int, daemons: list[Daemon], named: bool = False) -> Target:
        groups = {"bridge": tuple(daemon.pid for daemon in daemons)}
        if self._rabbitmq is not None:
            groups["rabbitmq"] = (self._rabbitmq.pid,)
        if named and self._redis is not None:
            groups["redis"] = (self._redis.pid,)
        return Target(name, port, "/ws", groups, named)

    def _stop(self) -> None:
        for daemon in self._daemons:
            daemon.stop()
        self._daemons.clear()
        if self._rabbitmq is not None:
            self._rabbitmq.remove()
            self._rabbitmq = None
        if self._redis is not None:
            self._redis.remove()
            self._redis = None
        shutil.rmtree(self._folder, ignore_errors=True)


def _ready(admin: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
