"""A RabbitMQ node of the tests' own: its data, ports, name, cookie and port mapper are nobody else's."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from tests.support.ports import accepts, free_port, wait_port

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


def scripts() -> Path | None:
    """Where Debian's package has its scripts, if anywhere (the wrappers in ``/usr/sbin`` change the user)."""
    for folder in sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True):
        if (folder / "rabbitmq-server").exists() and shutil.which("erl") and shutil.which("epmd"):
            return folder
    return None


class RabbitMQ:
    """One node on loopback. ``start`` after ``stop`` or ``kill`` brings the same node back, data and ports included."""

    host = "127.0.0.1"

    def __init__(self, plugins: Iterable[str] = (), settings: Iterable[str] = ()) -> None:
        """``settings`` are further lines of ``rabbitmq.conf``."""
        folder = scripts()
        if folder is None:
            raise FileNotFoundError("no rabbitmq-server")
        self._scripts = folder
        self._settings = tuple(settings)
        self.folder = Path(tempfile.mkdtemp(prefix="stompbridge-rabbitmq-"))
        self.node = f"test-{secrets.token_hex(4)}@localhost"
        self.port = free_port()
        self.stomp_port = 0
        self.web_stomp_port = 0
        self.pid = 0
        """The Erlang machine's process id while it runs."""
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._plugins: tuple[str, ...] = ()
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._enable(plugins)
        self._write_cookie()
        atexit.register(self.remove)

    @property
    def amqp_port(self) -> int:
        return self.port

    @property
    def url(self) -> str:
        return self.url_for("guest", "guest")

    def url_for(self, user: str, password: str, vhost: str = "/") -> str:
        """The AMQP address with these credentials."""
        return f"amqp://{quote(user)}:{quote(password)}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    @property
    def web_stomp_url(self) -> str:
        return f"ws://{self.host}:{self.web_stomp_port}/ws"

    @property
    def running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    @property
    def log(self) -> str:
        """What the node has logged so far."""
        parts = [self.folder / "rabbit.log", self.folder / "output.log"]
        return "".join(part.read_text(errors="replace") for part in parts if part.exists())

    def start(self, plugins: Iterable[str] | None = None, timeout: float = START_TIMEOUT) -> None:
        """Start and return once clients are served. ``plugins`` replaces the set the node was made with."""
        if self.running:
            raise RuntimeError("it runs already")
        if plugins is not None:
            self._enable(plugins)
        self._start_epmd()
        self._write_settings()
        with (self.folder / "output.log").open("ab") as output:
            self._server = subprocess.Popen(
                ["/bin/sh", "-c", 'ulimit -n "$(ulimit -Hn)"; exec "$0"', str(self._scripts / "rabbitmq-server")],
                env=self._environment() | {"detached": "1"},  # the script then becomes the Erlang machine itself
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._server.pid
        try:
            self._wait_ready(timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Orderly: queues and messages are written, connections closed with 320."""
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            try:
                self._server.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()
        self._ended()

    def kill(self) -> None:
        """As a power cut: connections break without a word."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(STOP_TIMEOUT)
        self._ended()

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        """Stop in order and start again."""
        self.stop()
        self.start(timeout=timeout)

    def suspend(self) -> None:
        """Stop the process where it is: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """End all that runs and delete the folder. Done at the interpreter's end, too."""
        atexit.unregister(self.remove)
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(STOP_TIMEOUT)
            self._epmd = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def ctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` on this node and return what it prints; about a second each."""
        done = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "--quiet", "--node", self.node, *arguments],
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang on the node."""
        return self.ctl("eval", expression).strip()

    def queues(self, *columns: str, vhost: str = "/") -> list[dict[str, str]]:
        """The queues of a virtual host; ``name`` and the columns asked for, as text."""
        names = ("name", *columns)
        lines = self.ctl("list_queues", "--vhost", vhost, "--no-table-headers", *names).splitlines()
        rows = (line.split("\t") for line in lines)
        # A queue that goes while it is looked at has no columns.
        return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]

    def _enable(self, plugins: Iterable[str]) -> None:
        self._plugins = tuple(plugins)
        if {"rabbitmq_stomp", "rabbitmq_web_stomp"} & set(self._plugins) and not self.stomp_port:
            self.stomp_port = free_port()
        if "rabbitmq_web_stomp" in self._plugins and not self.web_stomp_port:
            self.web_stomp_port = free_port()

    def _write_cookie(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20).upper())
        cookie.chmod(0o400)

    def _write_settings(self) -> None:
        lines = [
            f"listeners.tcp.1 = {self.host}:{self.port}",
            "disk_free_limit.absolute = 1MB",
            "log.file.level = info",
            *self._settings,
        ]
        if self.stomp_port:
            lines.append(f"stomp.listeners.tcp.1 = {self.host}:{self.stomp_port}")
        if self.web_stomp_port:
            lines += [f"web_stomp.tcp.ip = {self.host}", f"web_stomp.tcp.port = {self.web_stomp_port}"]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        (self.folder / "rabbitmq-env.conf").touch()

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return kept | {
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_CRASH_DUMP": "/dev/null",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": str(folder / "rabbit.log"),
            "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"),
        }

    def _start_epmd(self) -> None:
        if self._epmd is not None and self._epmd.poll() is None:
            return
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(self._epmd_port), "-address", self.host],
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_port(self._epmd_port)

    def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._ready():
            if not self.running:
                raise RuntimeError(f"RabbitMQ ended while starting:\n{self.log[-4000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"RabbitMQ does not serve after {timeout:g} s:\n{self.log[-4000:]}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        if not _answers_amqp(self.port):
            return False
        if "rabbitmq_web_stomp" in self._plugins and not accepts(self.web_stomp_port):
            return False
        return "rabbitmq_stomp" not in self._plugins or accepts(self.stomp_port)

    def _ended(self) -> None:
        self._server = None
        self.pid = 0


def _answers_amqp(port: int) -> bool:
    """Whether the broker greets with Connection.Start, which it does once it is up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
            sock.sendall(b"AMQP\x00\x00\x09\x01")
            return sock.recv(1) == b"\x01"
    except OSError:
        return False
