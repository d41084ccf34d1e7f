"""A Redis Cluster of the tests' own: three masters on loopback, without replicas."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from redis import Redis as Client

from tests.support.ports import free_port, wait_port
from tests.support.redis import STOP_TIMEOUT, binary

SLOTS = 16384


class Master:
    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.bus_port = free_port()

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        found = binary()
        assert found is not None
        options = {
            "bind": self.host,
            "port": str(self.port),
            "cluster-port": str(self.bus_port),
            "cluster-enabled": "yes",
            "cluster-node-timeout": "1000",
            "cluster-require-full-coverage": "yes",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        quiet = subprocess.DEVNULL
        self._server = subprocess.Popen(
            [found, *arguments], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        wait_port(self.port)

    def kill(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGKILL)
            self._server.wait(STOP_TIMEOUT)
            self._server = None

    def ensure_running(self) -> None:
        if self._server is None:
            self.start()
        else:
            self.resume()

    def suspend(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def client(self) -> Client:
        return Client(host=self.host, port=self.port, socket_timeout=5)


class Cluster:
    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="stompbridge-cluster-"))
        self.masters = [Master(self._folder / str(number)) for number in range(3)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{master.host}:{master.port}" for master in self.masters)

    def start(self) -> None:
        """Starts the masters, shares out the slots, and returns once they agree."""
        share = -(-SLOTS // len(self.masters))
        for number, master in enumerate(self.masters):
            master.start()
            with master.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                last = min((number + 1) * share, SLOTS) - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", number * share, last)
                for other in self.masters[:number]:
                    client.execute_command("CLUSTER MEET", other.host, other.port, other.bus_port)
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 20
        while not all(self._is_ready(master) for master in self.masters):
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.05)

    def _is_ready(self, master: Master) -> bool:
        with master.client() as client:
            info = client.execute_command("CLUSTER INFO")
            text = str(info)
            return "'cluster_state': 'ok'" in text and f"'cluster_known_nodes': '{len(self.masters)}'" in text

    def remove(self) -> None:
        for master in self.masters:
            master.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
