"""The STOMP clients of browsers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from tests.support import javascript
from tests.support.javascript import Chromium, Driver, Node, PageServer
from tests.support.requirements import require

OpenDriver = Callable[[], Awaitable[Driver]]


@pytest.fixture(scope="session")
def stompjs(node_binary: str) -> str:
    """Node.js's path, once the packages of ``package-lock.json`` are installed."""
    if not javascript.STOMPJS.exists():
        npm = require(shutil.which("npm"), "npm")
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"],
            cwd=javascript.FOLDER,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        require("it" if javascript.STOMPJS.exists() else None, f"@stomp/stompjs ({done.stderr.strip()[-300:]})")
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
