"""The STOMP clients of browsers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support import javascript
from tests.support.bridge import Bridge
from tests.support.javascript import Chromium, Driver, Node, PageServer
from tests.support.pump import Pump
from tests.support.requirements import require

OpenDriver = Callable[[], Awaitable[Driver]]
RunScript = Callable[..., Awaitable[dict[str, Any]]]
"""Runs a script of this folder under Node.js, see the fixture ``script``."""
SCRIPT_TIMEOUT = 50.0


@pytest.fixture(scope="session")
def stompjs(node_binary: str) -> str:
    """Node.js's path, once the packages of ``package-lock.json`` are installed."""
    if not javascript.installed():
        npm = require(shutil.which("npm"), "npm")
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"],
            cwd=javascript.FOLDER,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        require("it" if javascript.installed() else None, f"the JavaScript clients ({done.stderr.strip()[-300:]})")
    return node_binary


@pytest.fixture(scope="session")
def page(stompjs: str) -> Iterator[PageServer]:
    """The web server of the test page."""
    server = PageServer()
    yield server
    server.close()


@pytest.fixture
async def node(stompjs: str) -> AsyncIterator[OpenDriver]:
    """``await node()`` is one more stompjs under Node.js."""
    drivers: list[Driver] = []

    async def start() -> Driver:
        drivers.append(await Node.start(stompjs))
        return drivers[-1]

    yield start
    for driver in drivers:
        await driver.close()


@pytest.fixture
async def chromium(page: PageServer) -> AsyncIterator[OpenDriver]:
    """``await chromium()`` is one more browser with stompjs in its page."""
    drivers: list[Driver] = []

    async def start() -> Driver:
        binary = require(shutil.which("chromium") or shutil.which("google-chrome"), "Chromium")
        drivers.append(await Chromium.start(binary, page.origin + "/"))
        return drivers[-1]

    yield start
    for driver in drivers:
        await driver.close()


@pytest.fixture
async def script(stompjs: str) -> RunScript:
    """``await script("file.js", "argument")`` runs it and returns the JSON that it prints."""

    async def run(*arguments: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            stompjs,
            *arguments,
            cwd=javascript.FOLDER,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(SCRIPT_TIMEOUT):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()
        report: dict[str, Any] = json.loads(out)
        return report

    return run


@pytest.fixture
async def pump(bridge: Bridge) -> AsyncIterator[Pump]:
    """A TCP port in front of the shared bridge."""
    async with Pump(bridge.url) as opened:
        yield opened
