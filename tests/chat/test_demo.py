"""What ``bin/demo`` starts, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from examples.chat.serve import PageServer
from tests.chat.conftest import ChatPage
from tests.support.bridge import ROOT
from tests.support.ports import accepts, free_port
from tests.support.requirements import require

pytestmark = [pytest.mark.node, pytest.mark.browser]
START_TIMEOUT = 90
STOP_TIMEOUT = 30


class Demo:
    """It runs between ``async with`` and its end, which is a Ctrl-C."""

    def __init__(self, *command: str, home: Path) -> None:
        self.port = free_port()
        self._command = [*command, "--port", str(self.port)]
        self._home = home
        self.said = ""
        self.processes: dict[str, int] = {}
        """Process ids of bridges and nginx."""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    async def __aenter__(self) -> Demo:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("STOMPBRIDGE_")}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            env=environ | {"HOME": str(self._home), "TMPDIR": str(self._home)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self.wait_said("Ctrl-C")
        except BaseException:
            os.killpg(self._process.pid, signal.SIGTERM)
            await self._process.wait()
            raise
        self.processes = {name: int(pid) for name, pid in re.findall(r"([\w-]+): process (\d+)", self.said)}
        return self

    async def wait_said(self, text: str) -> None:
        """Returns once it has printed this."""
        assert self._process.stdout is not None
        while text not in self.said:
            line = await self._process.stdout.readline()
            assert line, f"it ended: {self.said}"
            self.said += line.decode()

    async def __aexit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_TIMEOUT):
            rest, _ = await self._process.communicate()
        self.said += rest.decode()
        assert self._process.returncode == 0, self.said
        assert not accepts(self.port)
        self._check_gone()

    def _check_gone(self) -> None:
        for number in re.findall(r"process (\d+)", self.said):
            assert not Path("/proc", number).exists()
        assert not list(self._home.glob("stompbridge-*"))


async def talk(url: str) -> list[ChatPage]:
    """Two people who have said something to each other."""
    pages: list[ChatPage] = []
    try:
        for name in ("Ada", "Bob"):
            pages.append(await ChatPage.open(url))
            await pages[-1].enter(name)
        for page in pages:
            await page.say("Hello")
        for page in pages:
            await page.wait_settled(2)
    except BaseException:
        await leave(pages)
        raise
    return pages


async def leave(pages: list[ChatPage]) -> None:
    for page in pages:
        await page.close()


async def test_one_bridge(built: Path, tmp_path: Path) -> None:
    async with Demo(sys.executable, "-m", "examples.chat.demo", home=tmp_path) as demo:
        pages = await talk(demo.url)
        assert [page.complaints for page in pages] == [[], []]
        await leave(pages)


async def test_a_port_that_is_taken(built: Path, tmp_path: Path) -> None:
    server = PageServer()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.chat.demo", "--port", str(server.port)),
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    server.close()
    assert process.returncode == 1
    assert said.decode() == f"bin/demo: port {server.port} is taken; choose another with --port\n"


@pytest.mark.slow
@pytest.mark.rabbitmq
@pytest.mark.redis
@pytest.mark.timeout(240)
async def test_two_bridges_behind_nginx(built: Path, tmp_path: Path) -> None:
    """``bin/demo --rabbitmq``: a bridge that is killed is started again, and the people write on."""
    require(shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "nginx")
    async with Demo("bin/demo", "--rabbitmq", home=tmp_path) as demo:
        assert sorted(demo.processes) == ["bridge-1", "bridge-2", "nginx"]
        pages = await talk(demo.url)
        for page, prefix in zip(pages, "AB", strict=True):
            await page.type_on(prefix, 60, 50)
        await pages[0].wait_text("#messages", "A5")
        os.kill(demo.processes.pop("bridge-1"), signal.SIGKILL)
        for page in pages:
            await page.wait_settled(122, 60)
            texts = await page.texts()
            assert sorted(texts) == sorted(["Hello"] * 2 + [f"{prefix}{n}" for prefix in "AB" for n in range(60)])
        await demo.wait_said("bridge-1 ended; started again")
        await leave(pages)
