"""The chat of ``examples/chat`` in browsers, over bridges with ``config/chat-app.toml``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from examples.chat.serve import DIST, FOLDER, PageServer, settings
from tests.support.bridge import ROOT, Bridge
from tests.support.browser import Page
from tests.support.requirements import require

RECONNECT = 400
HEARTBEAT = 5_000
"""Both in milliseconds."""
CONFIG = (ROOT / "config/chat-app.toml").read_text("utf-8")
LINES = """[...document.querySelectorAll('#messages li')].map((line) => ({
  text: line.querySelector('.text').textContent,
  name: line.querySelector('.name').textContent,
  own: line.classList.contains('own'),
  state: line.dataset.state,
}))"""
JOINED = "document.getElementById('messages').ariaBusy === 'false'"
TYPE_ON = """(() => {
  const [prefix, count, pause] = %s;
  let number = 0;
  const timer = setInterval(() => {
    document.getElementById('text').value = prefix + number;
    document.getElementById('compose').requestSubmit();
    number += 1;
    if (number === count) clearInterval(timer);
  }, pause);
})()"""


class ChatPage(Page):
    """A tab with the chat in it."""

    async def enter(self, name: str) -> None:
        """Gives the name that it asks for, and returns once it is connected and in its room."""
        await self.wait("document.activeElement.id === 'name'")
        await self.type(name)
        await self.press("Enter")
        await self.wait_text("#me", name)
        await self.wait_text("#state", "Connected")
        await self.wait(JOINED)

    async def say(self, text: str) -> None:
        """Writes a message and presses Enter."""
        await self.run("document.getElementById('text').focus()")
        await self.type(text)
        await self.press("Enter")

    async def join(self, room: int) -> None:
        """Writes a room's number and presses Enter."""
        await self.click("#number")
        await self.type(str(room))
        await self.press("Enter")
        await self.wait_text("#title", f"Room {room}")
        await self.wait(JOINED)

    async def type_on(self, prefix: str, count: int, pause: int) -> None:
        """Begins to send so many messages, one every ``pause`` milliseconds."""
        await self.run(TYPE_ON % json.dumps([prefix, count, pause]))

    async def lines(self) -> list[dict[str, object]]:
        """The messages on the screen."""
        lines: list[dict[str, object]] = await self.run(LINES)
        return lines

    async def texts(self) -> list[str]:
        return [str(line["text"]) for line in await self.lines()]

    async def wait_settled(self, count: int, within: float = 20) -> None:
        """Returns once so many messages are there, and all of them sent."""
        await self.wait(
            f"document.querySelectorAll('#messages li').length >= {count}"
            " && !document.querySelector('#messages [data-state=pending]')",
            within,
        )


OpenPage = Callable[..., Awaitable[ChatPage]]
ChatBridge = Callable[..., Bridge]
Serve = Callable[[], PageServer]


@pytest.fixture(scope="session")
def built(node_binary: str) -> Path:
    """The page's folder, once it is built from what is there now."""
    npm = require(shutil.which("npm"), "npm")
    if not (FOLDER / "node_modules/.package-lock.json").exists():
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
    _run([npm, "run", "build", "--silent", "--", "--logLevel", "warn"])
    return DIST


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    require("it" if done.returncode == 0 else None, f"the chat's page ({done.stderr.strip()[-300:]})")


@pytest.fixture
def serve(built: Path) -> Iterator[Serve]:
    """``serve()`` is one more web server with the page."""
    servers: list[PageServer] = []

    def start() -> PageServer:
        servers.append(PageServer())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def open_page() -> AsyncIterator[OpenPage]:
    """``await open_page(server, "Ada")`` is a browser with the chat of that server, which Ada has entered. What its
    console complains about beside lost connections is wrong."""
    pages: list[ChatPage] = []

    async def start(server: PageServer, name: str, **options: int) -> ChatPage:
        page = await ChatPage.open(server.origins[0] + "/", **options)
        pages.append(page)
        await page.enter(name)
        return page

    yield start
    for page in pages:
        await page.close()
        assert [one for one in page.complaints if "WebSocket" not in one] == []


@pytest.fixture
def chat_bridge() -> Iterator[ChatBridge]:
    """``chat_bridge([server], BROKER__KIND="memory")`` is a bridge for the pages of these servers, running. The server
    tells its page of it."""
    bridges: list[Bridge] = []

    def start(servers: list[PageServer], config: str = "", **names: str) -> Bridge:
        environ = {
            "LISTEN__ALLOWED_ORIGINS": json.dumps([origin for server in servers for origin in server.origins]),
            "APP__WORKER": str(len(bridges)),
            "BROKER__RECONNECT_MAX": "1s",
            "HEALTH__BROKER__INTERVAL": "500ms",
            "HEALTH__BROKER__TIMEOUT": "500ms",
            **names,
        }
        bridge = Bridge(
            f"{CONFIG}\n{config}", environ={f"STOMPBRIDGE_{name}": value for name, value in environ.items()}
        )
        bridges.append(bridge)
        bridge.start()
        bridge.wait_ready()
        tell(servers[0], bridge)
        return bridge

    yield start
    for bridge in bridges:
        bridge.remove()


def tell(server: PageServer, *bridges: Bridge) -> None:
    """The page of this server connects to the first of these bridges, and to the next one when it is lost."""
    server.text = settings([bridge.url for bridge in bridges], HEARTBEAT, RECONNECT)
