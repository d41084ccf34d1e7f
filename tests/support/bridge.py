"""The program as its users run it: a process, a configuration file, a log."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0


class Bridge:
    """One ``stompbridge serve`` on free loopback ports. ``start`` after ``stop`` or ``kill`` uses the same ports."""

    def __init__(self, config: str = "", *, node: str = "", environ: Mapping[str, str] | None = None) -> None:
        """``config`` is the TOML text; ports, node and log format come by environment variables, over it."""
        self.folder = Path(tempfile.mkdtemp(prefix="stompbridge-test-"))
        self.config = self.folder / "stompbridge.toml"
        self.config.write_text(config)
        self.port = free_port()
        self.admin_port = free_port()
        self.scheme = "ws"
        self.node = node or f"test-{self.port}"
        self.lines: list[str] = []
        self.pass_fds: tuple[int, ...] = ()
        """Files that the process gets."""
        self._environ = dict(environ or {})
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/ws"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        with self._changed:
            return "\n".join(self.lines)

    def command(self) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", "stompbridge", "serve", "--config", str(self.config)]

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start and return once it says that it listens."""
        self.spawn()
        try:
            self.wait_log("listening", timeout)
        except BaseException:
            self.kill()
            raise

    def spawn(self) -> None:
        """Start and do not wait for anything."""
        if self.running:
            raise RuntimeError("it runs already")
        with self._changed:
            self.lines.clear()
        self._process = subprocess.Popen(
            self.command(),
            env=self._environment(),
            pass_fds=self.pass_fds,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def stop(self) -> int:
        """SIGTERM, wait, and return the exit code."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)
        return self.wait_ended()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self.wait_ended()

    def wait_ended(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for the process to end by itself and return its exit code."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise TimeoutError(f"the bridge does not end within {timeout:g} s:\n{self.log[-4000:]}") from None
        finally:
            if self._reader is not None:
                self._reader.join(5)
            if self._process.stdout is not None:
                self._process.stdout.close()
        return code

    def remove(self) -> None:
        """End it and delete its folder. Done at the interpreter's end, too."""
        atexit.unregister(self.remove)
        if self.running:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def reconfigure(self, config: str) -> None:
        """Another configuration for the next start."""
        self.config.write_text(config)

    def events(self, event: str = "") -> list[dict[str, Any]]:
        """The log's records, of one event if one is named."""
        records = []
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and (not event or record.get("event") == event):
                    records.append(record)
        return records

    def wait_log(self, event: str, timeout: float = 10.0, **fields: Any) -> dict[str, Any]:
        """Wait for a record of this event with these fields; what was logged before counts."""
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                seen = len(self.lines)
            for record in self.events(event):
                if all(record.get(name) == value for name, value in fields.items()):
                    return record
            if not self.running and self._drained():
                raise AssertionError(f"the bridge ended, no {event!r} in its log:\n{self.log[-4000:]}")
            with self._changed:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no {event!r} {fields} in the log:\n{chr(10).join(self.lines)[-4000:]}")
                if len(self.lines) == seen:
                    self._changed.wait(min(left, 0.25))

    def assert_clean_log(self) -> None:
        """No traceback, no warning of Python's, and nothing that is no JSON record."""
        log = self.log
        for sign in ("Traceback", "Error in sys.excepthook", "Warning:", "Task exception", "never retrieved"):
            assert sign not in log, f"{sign!r} in the log:\n{log[-6000:]}"
        for line in log.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                raise AssertionError(f"no JSON record: {line!r}") from None
            assert "exception" not in record, f"an exception in the log: {line}"

    def get(self, path: str, timeout: float = 10.0) -> tuple[int, str]:
        """GET a path of the admin port: status and body."""
        try:
            with urllib.request.urlopen(self.admin_url + path, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def wait_ready(self, timeout: float = START_TIMEOUT, status: int = 200) -> str:
        """Poll ``/readyz?verbose`` until it answers with this status; returns the body."""
        deadline = time.monotonic() + timeout
        while True:
            code, body = self.get("/readyz?verbose")
            if code == status:
                return body
            if time.monotonic() > deadline:
                raise AssertionError(f"/readyz is {code} after {timeout:g} s:\n{body}\n{self.log[-4000:]}")
            time.sleep(0.05)

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STOMPBRIDGE_")}
        return (
            kept
            | {
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "STOMPBRIDGE_NODE": self.node,
                "STOMPBRIDGE_LISTEN__PORT": str(self.port),
                "STOMPBRIDGE_ADMIN__PORT": str(self.admin_port),
                "STOMPBRIDGE_LOG__FORMAT": "json",
            }
            | self._environ
        )

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def _drained(self) -> bool:
        return self._reader is None or not self._reader.is_alive()
