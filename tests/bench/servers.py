"""The servers under test, each on free loopback ports, ended by process id."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from tests.bench.scenarios import Target
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis

TARGETS = ("stompbridge", "webstomp", "memory", "named", "named-redis")
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
ROOT = Path(__file__).parents[2]

# A binding goes at once with its last subscriber: a round must not find those of the round before.
_CONFIG = """\
node = "bench"
[listen]
host = "127.0.0.1"
port = {port}
backlog = 4096
[admin]
port = {admin}
[broker]
kind = "{kind}"
{urls}
bind_linger = "0s"
[dedup]
{dedup}
"""


def raise_file_limit() -> None:
    """As many open files as the system lets this process, and those it starts, have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Servers:
    """Context manager: starts what the targets need, and ends it. ``stompbridge`` and ``webstomp`` share RabbitMQ."""

    def __init__(self, targets: list[str], python: str = sys.executable) -> None:
        """``memory`` is stompbridge with its embedded broker. ``named`` and ``named-redis`` are stompbridge whose
        clients name themselves, with their histories in the process or in Redis."""
        self.targets: dict[str, Target] = {}
        self._names = targets
        self._python = python
        self._folder = Path()
        self._rabbitmq: RabbitMQ | None = None
        self._redis: Redis | None = None
        self._bridges: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Servers:
        self._folder = Path(tempfile.mkdtemp(prefix="stompbridge-bench-"))
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        url = ""
        beam: tuple[int, ...] = ()
        if set(self._names) - {"memory"}:
            self._rabbitmq = RabbitMQ(plugins=["rabbitmq_web_stomp"])
            self._rabbitmq.start()
            url, beam = self._rabbitmq.url, (self._rabbitmq.pid,)
            self.targets["webstomp"] = Target("webstomp", self._rabbitmq.web_stomp_port, "/ws", {"rabbitmq": beam})
        if "stompbridge" in self._names:
            port, pid = self._start_bridge("stompbridge", url)
            self.targets["stompbridge"] = Target("stompbridge", port, "/ws", {"bridge": (pid,), "rabbitmq": beam})
        if "memory" in self._names:
            port, pid = self._start_bridge("memory", "")
            self.targets["memory"] = Target("memory", port, "/ws", {"bridge": (pid,)})
        if "named" in self._names:
            port, pid = self._start_bridge("named", url)
            self.targets["named"] = Target("named", port, "/ws", {"bridge": (pid,), "rabbitmq": beam}, named=True)
        if "named-redis" in self._names:
            self._redis = Redis()
            self._redis.start()
            dedup = f'store = "redis"\nredis_url = "{self._redis.url}"'
            port, pid = self._start_bridge("named-redis", url, dedup)
            groups = {"bridge": (pid,), "rabbitmq": beam, "redis": (self._redis.pid,)}
            self.targets["named-redis"] = Target("named-redis", port, "/ws", groups, named=True)

    def _start_bridge(self, name: str, url: str, dedup: str = "") -> tuple[int, int]:
        port, admin = free_port(), free_port()
        config, log = self._folder / f"{name}.toml", self._folder / f"{name}.log"
        kind, urls = ("rabbitmq", f'urls = ["{url}"]') if url else ("memory", "")
        config.write_text(_CONFIG.format(port=port, admin=admin, kind=kind, urls=urls, dedup=dedup))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self._python, "-m", "stompbridge", "serve", "--config", str(config)],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if not name.startswith("STOMPBRIDGE_")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._bridges.append(process)
        deadline = time.monotonic() + START_TIMEOUT
        while not _ready(admin):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"stompbridge does not serve:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        return port, process.pid

    def _stop(self) -> None:
        for process in self._bridges:
            process.send_signal(signal.SIGTERM)
        for process in self._bridges:
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT)
        self._bridges.clear()
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
