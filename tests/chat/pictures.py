"""Makes the pictures of the chat in ``docs/images``: ``python -m tests.chat.pictures``. The page has to be built."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from examples.chat.serve import PageServer
from tests.chat.conftest import CONFIG, ChatPage, tell
from tests.support.bridge import ROOT, Bridge

IMAGES = ROOT / "docs/images"
SIZE = (1100, 700)
PHONE = (390, 780)
TALK = [
    ("Ada", "Good morning! Is the new release out?"),
    ("Grace", "Since eight. Both nodes were replaced one after the other."),
    ("Grace", "Nobody has been disconnected for longer than it takes to say so."),
    ("Linus", "I was writing all the time and did not notice."),
    ("Ada", "Then I can stop watching the graphs."),
    ("Linus", "One more thing: room 12 wants to know when we do theirs."),
    ("Ada", "After lunch. I will tell them."),
]


async def _photograph(page: ChatPage, path: Path, size: tuple[int, int], scheme: str, scale: float = 1) -> None:
    await page.resize(*size, scale)
    await page.use_scheme(scheme)
    await page.run("document.getElementById('messages').scrollTop = 1e6; document.activeElement.blur()")
    await page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    await page.screenshot(path)


async def main() -> None:
    server = PageServer()
    bridge = Bridge(
        CONFIG,
        environ={
            "STOMPBRIDGE_BROKER__KIND": "memory",
            "STOMPBRIDGE_LISTEN__ALLOWED_ORIGINS": json.dumps(server.origins),
        },
    )
    pages: dict[str, ChatPage] = {}
    try:
        bridge.start()
        tell(server, bridge)
        for name in ("Ada", "Grace", "Linus"):
            pages[name] = await ChatPage.open(server.origins[0] + "/", width=SIZE[0], height=SIZE[1])
            await pages[name].enter(name)
        ada, linus = pages["Ada"], pages["Linus"]
        for room in (12, 42, 7):
            await ada.join(room)
        await linus.join(12)
        await linus.say("When is it our turn?")
        await linus.click("[data-room='7']")
        for count, (name, text) in enumerate(TALK, start=1):
            await pages[name].say(text)
            for page in pages.values():
                await page.wait_settled(count)
        await _photograph(ada, IMAGES / "chat-light.png", SIZE, "light")
        await _photograph(ada, IMAGES / "chat-phone.png", PHONE, "light", 2)
        await ada.resize(*SIZE)
        bridge.kill()
        await ada.wait_text("#state", "Reconnecting")
        await ada.say("What is written now …")
        await ada.say("… is sent as soon as the connection is back.")
        await _photograph(ada, IMAGES / "chat-dark.png", SIZE, "dark")
    finally:
        for page in pages.values():
            await page.close()
        bridge.remove()
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
