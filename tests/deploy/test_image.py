"""The Dockerfile, built and run without a container engine, for which it takes root and a network.

The base is made from Debian's packages (debootstrap), the image by buildah, and its container by runc: read-only root
file system, user 10001, no capability, nothing of this machine but its network.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stompbridge import __version__
from tests.support.ports import free_port
from tests.support.stomp import open_client

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:bookworm-slim"
IMAGE = "localhost/stompbridge"
MIRROR = "http://deb.debian.org/debian"
PROGRAMS = ("debootstrap", "buildah", "runc")
MAX_BYTES = 150_000_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.getuid() != 0, reason="takes root"),
    *(pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed") for name in PROGRAMS),
]


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


class Image:
    """What buildah makes, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._storage = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        self._environ = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}

    def buildah(self, *arguments: str) -> str:
        return run("buildah", *self._storage, *arguments, env=self._environ).strip()

    def make_base(self) -> None:
        base = self.folder / "base"
        run("debootstrap", "--variant=minbase", "bookworm", str(base), MIRROR)
        # How this machine reaches a package index.
        for path in ("etc/pip.conf", "usr/local/share/ca-certificates"):
            here = Path("/", path)
            if here.is_dir():
                shutil.copytree(here, base / path, dirs_exist_ok=True)
            elif here.is_file():
                shutil.copy(here, base / path)
        run("tar", "--create", "--file", str(self.folder / "base.tar"), "--directory", str(base), ".")
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, str(self.folder / "base.tar"), "/")
        self.buildah("commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(base)

    def build(self) -> None:
        self.buildah("build", "--format", "docker", "--pull=never", "--tag", IMAGE, str(ROOT))

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", IMAGE))
        return found

    def unpack(self) -> Path:
        return Path(self.buildah("mount", self.buildah("from", "--pull-never", IMAGE)))

    def remove(self) -> None:
        self.buildah("umount", "--all")
        # Its storage is a mount point of its own.
        subprocess.run(["umount", "--quiet", "--lazy", str(self.folder / "storage/overlay")], check=False, timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)


class Container:
    """The image as runc runs it."""

    def __init__(self, root: Path, settings: dict[str, Any], folder: Path, environ: dict[str, str]) -> None:
        self._state = ("--root", str(folder / "runc"))
        self._folder = folder
        self.name = f"stompbridge-{os.getpid()}"
        run("runc", "spec", cwd=folder)
        spec = json.loads((folder / "config.json").read_text())
        user, _, group = settings["User"].partition(":")
        spec["root"] = {"path": str(root), "readonly": True}
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*settings["Entrypoint"], *settings["Cmd"]],
            "env": [*settings["Env"], *(f"{name}={value}" for name, value in environ.items())],
            "capabilities": {},
            "noNewPrivileges": True,
        }
        spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "network"]
        (folder / "config.json").write_text(json.dumps(spec))
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["runc", *self._state, "run", self.name],
            cwd=folder,
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the container, as its health check is run."""
        return subprocess.run(
            ["runc", *self._state, "exec", self.name, *command], capture_output=True, text=True, check=False, timeout=60
        )

    def stop(self) -> int:
        if self.running:
            subprocess.run(["runc", *self._state, "kill", self.name, "TERM"], check=False, timeout=60)
        code = self._process.wait(60)
        self._log.close()
        return code


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    made = Image(tmp_path_factory.mktemp("image"))
    try:
        made.make_base()
        made.build()
        yield made
    finally:
        made.remove()


async def test_the_image(image: Image, tmp_path: Path) -> None:
    settings = image.inspect()["Docker"]["config"]
    assert settings["User"] == "10001:10001"
    assert settings["Healthcheck"]["Test"] == ["CMD", "stompbridge", "ready"]
    root = image.unpack()
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert not [path for path in files if path.name in {"sh", "bash", "dash", "apt-get", "dpkg", "pip"}]
    assert not [path for path in files if path.stat().st_mode & 0o6000]

    port, admin_port = free_port(), free_port()
    environ = {"STOMPBRIDGE_LISTEN__PORT": str(port), "STOMPBRIDGE_ADMIN__PORT": str(admin_port)}
    environ["STOMPBRIDGE_ADMIN_URL"] = f"http://127.0.0.1:{admin_port}"
    container = Container(root, settings, tmp_path, environ)
    try:
        deadline = time.monotonic() + 60
        while (health := container.execute(*settings["Healthcheck"]["Test"][1:])).returncode != 0:
            late = time.monotonic() > deadline or not container.running
            assert not late, f"{health.stdout}{health.stderr}\n{container.log}"
            await asyncio.sleep(0.2)
        client = await open_client(f"ws://127.0.0.1:{port}/ws")
        await client.connect()
        await client.request("SUBSCRIBE", {"id": "0", "destination": "/topic/a"})
        await client.request("SEND", {"destination": "/topic/a"}, "hello")
        assert (await client.expect("MESSAGE")).text == "hello"
        touched = container.execute("/opt/stompbridge/bin/python", "-c", "open('/tmp/x', 'w')")
        assert "Read-only file system" in touched.stderr
        assert "no such file" in container.execute("/bin/sh").stderr
        assert container.execute("stompbridge", "--version").stdout == f"stompbridge {__version__}\n"
        await client.disconnect()
    finally:
        code = container.stop()
    assert code == 0, container.log
    assert "Traceback" not in container.log
    assert '"stopped"' in container.log
