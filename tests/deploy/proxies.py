"""nginx and HAProxy as processes of the tests' own, with the project's configuration on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.bridge import ROOT, Bridge
from tests.support.certificates import Certificate
from tests.support.ports import accepts, free_port
from tests.support.requirements import require

CONFIG = ROOT / "config"
START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0


def find(name: str) -> str:
    """The program of Debian's package; the test is skipped, or fails in CI, where it is not installed."""
    return require(shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"), name)


def replaced(text: str, parts: Mapping[str, str]) -> str:
    """``text`` with each of ``parts`` in place of what it stands for; all of them have to be there."""
    for old, new in parts.items():
        assert old in text, f"{old!r} is not in the configuration any more"
        text = text.replace(old, new)
    return text


class Proxy:
    """One proxy in front of two bridges, with TLS unless ``scheme`` says otherwise."""

    program: str

    def __init__(self, bridges: list[Bridge], scheme: str = "wss") -> None:
        self.binary = find(self.program)
        self.folder = Path(tempfile.mkdtemp(prefix="stompbridge-proxy-"))
        self.port = free_port()
        self.scheme = scheme
        self.certificate = Certificate(self.folder)
        self.bridges = bridges
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/ws"

    @property
    def ssl(self) -> ssl.SSLContext | None:
        """What a client trusts."""
        return self.certificate.trust() if self.scheme == "wss" else None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Starts it and returns once it accepts connections."""
        command = self.command()
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.program} does not listen:\n{self.log}")
            time.sleep(0.02)

    def ready(self) -> bool:
        """Whether it has all its sockets."""
        return accepts(self.port)

    def remove(self) -> None:
        """Ends it and deletes its folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_TIMEOUT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self) -> list[str]:
        """Writes the configuration and returns the command line."""
        raise NotImplementedError


class Nginx(Proxy):
    """``config/nginx.conf``, within the ``http`` block that Debian's package has around it."""

    program = "nginx"

    def command(self) -> list[str]:
        first, second = self.bridges
        text = replaced(
            (CONFIG / "nginx.conf").read_text("utf-8"),
            {
                "server 127.0.0.1:8080 ": f"server 127.0.0.1:{first.port} ",
                "server 127.0.0.1:8090 ": f"server 127.0.0.1:{second.port} ",
                "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
                "/etc/ssl/chat.example/fullchain.pem": str(self.certificate.cert),
                "/etc/ssl/chat.example/privkey.pem": str(self.certificate.key),
            },
        )
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return self._run(
            f"pid {self.folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{text}\n}}\n"
        )

    def _run(self, text: str) -> list[str]:
        path = self.folder / "nginx.conf"
        path.write_text(text, "utf-8")
        return [self.binary, "-p", str(self.folder), "-c", str(path), "-g", "daemon off;"]


class ContainerNginx(Nginx):
    """``config/container/nginx.conf``, as ``compose.yaml`` mounts it."""

    def command(self) -> list[str]:
        first, second = self.bridges
        parts = {
            "bridge-1:8080": f"127.0.0.1:{first.port}",
            "bridge-2:8080": f"127.0.0.1:{second.port}",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
            "/tmp/": f"{self.folder}/",
        }
        return self._run(replaced((CONFIG / "container/nginx.conf").read_text("utf-8"), parts))


class HAProxy(Proxy):
    """``config/haproxy.cfg``, with one of its backends."""

    program = "haproxy"
    backend = "stompbridge"

    def command(self) -> list[str]:
        first, second = self.bridges
        pem = self.folder / "both.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(self.certificate.cert.read_bytes() + self.certificate.key.read_bytes())
        text = replaced(
            (CONFIG / "haproxy.cfg").read_text("utf-8"),
            {
                "127.0.0.1:8080": f"127.0.0.1:{first.port}",
                "127.0.0.1:8090": f"127.0.0.1:{second.port}",
                "port 8081": f"port {first.admin_port}",
                "port 8091": f"port {second.admin_port}",
                "bind :443 ": f"bind 127.0.0.1:{self.port} ",
                "/etc/haproxy/chat.example.pem": str(pem),
                "/run/haproxy/admin.sock": f"{self.folder}/sock",
                "log /dev/log local0": "log stderr format raw local0",
                "maxconn 60000": "maxconn 200",  # it asks for that many files
                "    user haproxy\n    group haproxy\n    daemon\n": "",
                "default_backend stompbridge": f"default_backend {self.backend}",
            },
        )
        path = self.folder / "haproxy.cfg"
        path.write_text(text, "utf-8")
        return [self.binary, "-db", "-f", str(path)]

    def ready(self) -> bool:
        # Its own socket comes last.
        return super().ready() and (self.folder / "sock").exists()

    def checked(self) -> dict[str, str]:
        """What the health check says of each bridge (``L7OK``)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(str(self.folder / "sock"))
            sock.sendall(b"show stat\n")
            data = b""
            while part := sock.recv(65536):
                data += part
        head, *rows = data.decode().lstrip("# ").splitlines()
        names = head.split(",")
        stats = [dict(zip(names, row.split(","), strict=False)) for row in rows if row]
        return {
            row["svname"]: row["check_status"]
            for row in stats
            if row["pxname"] == self.backend and row["svname"].startswith("bridge")
        }

    def wait_checked(self, expected: Mapping[str, str], timeout: float = 20.0) -> None:
        """Returns once the health checks of the bridges say this."""
        deadline = time.monotonic() + timeout
        while (said := self.checked()) != expected:
            assert time.monotonic() < deadline, f"{said} is not {expected}\n{self.log}"
            time.sleep(0.1)


class HAProxyProtocol(HAProxy):
    """The backend that speaks the PROXY protocol."""

    backend = "stompbridge-proxy-protocol"
