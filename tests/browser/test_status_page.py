"""The status page in a browser, over real bridges."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stompbridge.auth.static import hash_password
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.browser import Page
from tests.support.kinds import Connect, StartBridge

pytestmark = pytest.mark.browser
FOLDER = Path(__file__).parents[2] / "stompbridge/admin/page"
TOKEN = "a-token-for-tests-only"
ADMIN = f'[admin]\ntoken = "{TOKEN}"'
IMAGE = "<img src=x onerror=\"document.title='owned'\">"
"""Markup that would run a script."""
OpenPage = Callable[..., Awaitable[Page]]
SHOWN = "#plots article:nth-child({}) .values b:nth-of-type(1)"
"""The first number of a plot."""


@pytest.fixture
async def open_page() -> AsyncIterator[OpenPage]:
    """``await open_page(bridge)`` is the bridge's page, once it has its numbers. It asks nobody but the bridge."""
    pages: list[tuple[Page, Bridge]] = []

    async def open_one(bridge: Bridge, **options: int) -> Page:
        page = await Page.open(f"{bridge.admin_url}/", **options)
        pages.append((page, bridge))
        await page.wait("document.body.dataset.reach === 'found'")
        return page

    yield open_one
    for page, bridge in pages:
        await page.close()
        assert page.requests
        asked = {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")}
        assert asked == {f"127.0.0.1:{bridge.admin_port}"}


async def unlock(page: Page, token: str = TOKEN) -> None:
    await page.click("#unlock")
    await page.wait("document.activeElement.id === 'token'")
    await page.type(token)
    await page.press("Enter")


def no_overflow(selector: str = "html") -> str:
    """An expression: nothing of the page or of an element has to be scrolled to sideways."""
    return f"document.querySelector('{selector}').scrollWidth <= document.querySelector('{selector}').clientWidth"


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_files(path: Path) -> None:
    """What strangers sent cannot become markup, and no file needs more than the strict policy grants."""
    text = path.read_text("utf-8")
    outside = re.sub(r"https?://www\.w3\.org/2000/svg", "", text)
    assert not re.search(r"//[\w.-]+\.\w|@import|url\(", outside)
    if path.suffix == ".js":
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|setAttribute\('on", text
        )
        assert not re.search(r"localStorage|sessionStorage|document\.cookie|indexedDB", text)
    elif path.suffix == ".html":
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! type=\"module\" src=\"page\.js\">)", text)
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        used = set(re.findall(r"\$\('([\w-]+)'\)", "".join(file.read_text("utf-8") for file in FOLDER.glob("*.js"))))
        assert used <= set(ids)


async def test_numbers_come_from_traffic(open_page: OpenPage, start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge(configs.memory())
    page = await open_page(bridge)
    await page.wait_text("#state", "ready")
    assert await page.text("#node") == bridge.node
    assert await page.run("document.title") == f"{bridge.node}: ready – stompbridge"
    assert await page.text(SHOWN.format(1)) == "0"
    await page.wait_text("#checks", "probe came back in")
    await page.wait_text("#broker-badge", "up")
    await page.wait_text("#store-badge", "available")
    await page.wait_text("#sessions-empty", "Nobody is connected.")

    clients = [await connect(bridge) for _ in range(3)]
    for number, client in enumerate(clients):
        await client.subscribe(f"/topic/busy.{number}")
    for number in range(20):
        await clients[0].send("/topic/busy.1", f"{number}")
    await clients[0].send_and_wait("/topic/busy.2", "x", idempotency_key="once")
    await clients[0].send_and_wait("/topic/busy.2", "x", idempotency_key="once")
    await clients[1].messages(20)
    await page.wait(f"document.querySelector('{SHOWN.format(1)}').textContent === '3'")
    await page.wait_text("#plots article:nth-child(2)", "22 in, 21 out since the start")
    await page.wait_text("#plots article:nth-child(5)", "1 since the start")
    await page.wait(f"Number(document.querySelector('{SHOWN.format(2)}').textContent) > 0")
    await page.run("document.querySelector('#search-form').requestSubmit()")
    await page.wait_text("#destination-rows", "/topic/busy.1")
    await page.wait("document.querySelectorAll('#session-rows tr').length === 3")
    # A line for each series of each plot that has values.
    await page.wait("document.querySelector('#plots article:nth-child(1) .line-0').getAttribute('d').includes('L')")

    # Earlier values, by the keyboard and by the pointer.
    await page.run("document.querySelector('#plots').focus()")
    await page.press("ArrowLeft")
    await page.wait_text("#moment", "at ")
    await page.press("Escape")
    await page.wait("document.querySelector('#moment').textContent === ''")

    # Search and details, by the keyboard.
    await page.run("document.querySelector('#search').focus()")
    await page.type("BUSY.2")
    await page.wait("document.querySelectorAll('#session-rows tr').length === 1")
    await page.wait_text("#sessions-count", "1 of 3 match")
    await page.wait_text("#session-rows", clients[2].session)
    await page.press("Tab")
    for _ in range(4):
        await page.press("Tab")
    assert await page.run("document.activeElement.className.split(' ')[0]") == "link"
    await page.press("Enter")
    await page.wait_text("#session-subscriptions", "/topic/busy.2")
    await page.wait_text("#session-facts", "STOMP 1.2")
    assert clients[2].session in await page.text("#session-facts")
    await page.press("Escape")
    await page.wait("!document.querySelector('#session').open")
    await page.run("document.querySelector('#search').select()")
    await page.type("no such session")
    await page.wait_text("#sessions-empty", "No session matches.")
    assert page.complaints == []


async def test_control_needs_the_token(open_page: OpenPage, start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge(configs.memory(ADMIN))
    victim, other = await connect(bridge), await connect(bridge)
    page = await open_page(bridge)
    await page.wait("document.querySelectorAll('#session-rows tr').length === 2")
    visible = "[...document.querySelectorAll('.control')].filter((node) => node.checkVisibility()).length"
    await page.run(
        f"[...document.querySelectorAll('#session-rows tr')].find((row) => row.innerText.includes('{victim.session}'))"
        ".querySelector('button').click()"
    )
    await page.wait_text("#session-facts", victim.session)
    assert await page.run(visible) == 0
    await page.press("Escape")

    await unlock(page, "not-the-token-at-all")
    await page.wait_text("#key-error", "This is not the admin token.")
    assert await page.run(visible) == 0
    await page.type(TOKEN)
    await page.press("Enter")
    await page.wait("!document.querySelector('#key').open")
    await page.wait_text("#mode", "Unlocked")
    assert await page.run("document.querySelector('#token').value") == ""

    await page.run("level.value = 'debug'; level.dispatchEvent(new Event('change'))")
    await page.wait_text("#said", "The log level is debug; it was info.")

    await page.run(f"document.querySelector('#search').value = '{victim.session}'")
    await page.run("document.querySelector('#search-form').requestSubmit()")
    await page.wait("document.querySelectorAll('#session-rows tr').length === 1")
    await page.click("#session-rows button")
    await page.wait_text("#session-facts", victim.session)
    await page.click("#kick")
    await page.wait_text("#confirm-text", victim.session)
    await page.press("Enter")  # on "Keep it", which has the focus
    await page.wait("!document.querySelector('#confirm').open")
    await victim.alive()
    await page.click("#kick")
    await page.wait("document.querySelector('#confirm').open")
    await page.click("#confirm .danger")
    await page.wait_text("#said", f"session {victim.session}")
    assert await victim.wait_closed() == 1008
    await page.wait_text("#closed-rows", victim.session)
    assert "kicked" in await page.text("#closed-rows")
    await page.wait_text("#reasons", "kicked 1")
    await page.wait("document.querySelectorAll('#session-rows tr').length === 0")
    await other.alive()

    await page.click("#unlock")
    await page.wait_text("#mode", "Read-only")
    assert await page.run(visible) == 0
    assert page.complaints == []


async def test_what_strangers_send_stays_text(
    open_page: OpenPage, start_bridge: StartBridge, connect: Connect, tmp_path: Path
) -> None:
    users = tmp_path / "users.toml"
    users.write_text(f"[users.{json.dumps(IMAGE)}]\npassword = '{hash_password('secret')}'\n")
    users.chmod(0o600)
    access = '[[acl]]\nallow = ["subscribe", "send"]\ndestinations = ["/topic/**", "/queue/**"]\nusers = ["*"]'
    bridge = start_bridge(configs.memory(f"[auth]\nbackend = 'static'\nusers_file = '{users}'", access))
    login = {"accept-version": "1.2", "login": IMAGE, "passcode": "secret", "client-id": f"{IMAGE}\u202e"}
    client = await connect(bridge, {name: value.replace(":", "\\c") for name, value in login.items()})
    long = "/topic/" + "x" * 240
    for number, destination in enumerate([f"/topic/{IMAGE}", f"/topic/\u202egnp.exe{IMAGE}", long]):
        await client.subscribe(destination, id=f"{number}{IMAGE}")
        await client.send_and_wait(destination, IMAGE)
    gone = await connect(bridge, {name: value for name, value in login.items() if name != "client-id"})
    await gone.disconnect()

    page = await open_page(bridge, width=360, height=740)
    await page.wait_text("#session-rows", IMAGE)
    await page.wait_text("#session-rows", "\\u202e")
    await page.wait_text("#destination-rows", f"/topic/{IMAGE}")
    await page.wait_text("#closed-rows", IMAGE)
    assert await page.run(no_overflow())
    await page.click("#session-rows button")
    await page.wait_text("#session-subscriptions", f"0{IMAGE}")
    await page.wait_text("#session-subscriptions", "/topic/\\u202egnp.exe")
    assert await page.text("#session-title") == IMAGE
    await page.wait_text("#session-facts", "\\u202e")
    assert await page.run(no_overflow())
    assert await page.run(no_overflow("#session"))
    assert await page.run("document.images.length") == 0
    assert "owned" not in await page.run("document.title")
    assert page.complaints == []


async def test_it_fits(open_page: OpenPage, start_bridge: StartBridge, connect: Connect) -> None:
    """At every width: no sideways scrolling, with the controls unlocked, too."""
    bridge = start_bridge(configs.memory(ADMIN), node="a-host-with-quite-a-long-name-in-rack-14")
    client = await connect(bridge)
    await client.subscribe("/exchange/chat.exchange/roomId.1234567890")
    page = await open_page(bridge)
    await page.wait("document.querySelectorAll('#session-rows tr').length === 1")
    await unlock(page)
    await page.wait_text("#unlock", "Lock")
    await page.run("document.querySelector('#frames').open = true")
    for width in (1280, 1000, 700, 360):
        await page.resize(width, 800)
        assert await page.run("innerWidth") == width
        assert await page.run(no_overflow())


async def test_lists_behind_the_token(open_page: OpenPage, start_bridge: StartBridge, connect: Connect) -> None:
    """Where other machines reach the listener, sessions are for those who have the token."""
    bridge = start_bridge("insecure = true\n" + configs.memory(ADMIN + '\nhost = "0.0.0.0"'))
    client = await connect(bridge)
    page = await open_page(bridge)
    await page.wait_text("#sessions-empty", "unlock the page")
    await page.wait_text("#state", "ready")
    assert client.session not in await page.run("document.body.innerText")
    await unlock(page)
    await page.wait_text("#session-rows", client.session)
    assert page.complaints == []


async def test_out_of_reach_and_back(open_page: OpenPage, start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge(configs.memory())
    clients = [await connect(bridge) for _ in range(2)]
    page = await open_page(bridge)
    await page.wait(f"document.querySelector('{SHOWN.format(1)}').textContent === '2'")
    await page.wait("document.querySelectorAll('#session-rows tr').length === 2")
    pid = bridge.pid
    bridge.kill()
    await page.wait_text("#trouble", "The bridge does not answer.")
    await page.wait_text("#state", "unreachable")
    assert await page.text(SHOWN.format(1)) == "2"
    assert await page.run("getComputedStyle(document.querySelector('main')).filter") != "none"
    assert clients[0].session in await page.text("#session-rows")
    assert "unreachable" in await page.run("document.title")
    # A browser notes each request that fails; the page itself has nothing to complain of.
    assert all(complaint.startswith("network: ") for complaint in page.complaints), page.complaints

    await asyncio.to_thread(bridge.start)
    await page.wait("document.querySelector('#trouble').hidden")
    await page.wait_text("#state", "ready")
    await page.wait_text("#facts", str(bridge.pid))
    assert bridge.pid != pid
    await page.wait(f"document.querySelector('{SHOWN.format(1)}').textContent === '0'")
    await page.wait_text("#sessions-empty", "Nobody is connected.")
    await page.wait("getComputedStyle(document.querySelector('main')).filter === 'none'")


async def test_a_hidden_page_does_not_ask(open_page: OpenPage, start_bridge: StartBridge) -> None:
    page = await open_page(start_bridge(configs.memory()))
    show = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    show += "document.dispatchEvent(new Event('visibilitychange'))"
    pause = "new Promise((resolve) => setTimeout(resolve, %d))"
    await page.run(show % "true")
    await page.run(pause % 200)  # what was under way has been asked for
    asked = len(page.requests)
    await page.run(pause % 2200)
    assert len(page.requests) == asked
    await page.run(show % "false")
    await page.run(pause % 0)
    assert page.requests[asked:]
