"""A page in headless Chromium as a person has it: what it shows, what it asks for, what it complains about."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.javascript import Chromium
from tests.support.requirements import require

WAIT = 20.0

KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "ArrowLeft": (37, ""), "ArrowRight": (39, "")}
"""Key codes and texts."""

WAIT_FOR = """new Promise((resolve, reject) => {
  const look = () => { const found = (() => (%s))(); if (found) { stop(); resolve(found); } };
  const observer = new MutationObserver(look);
  const timer = setTimeout(() => { stop(); reject(new Error('it does not come')); }, %d);
  const stop = () => { observer.disconnect(); clearTimeout(timer); };
  observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  look();
})"""


class Page(Chromium):
    """One page. ``complaints`` are errors and warnings of its console, ``requests`` the addresses that it asked for."""

    complaints: list[str]
    requests: list[str]

    @classmethod
    async def open(cls, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """Starts the browser and loads ``url``; without a browser the test is skipped."""
        binary = require(shutil.which("chromium") or shutil.which("google-chrome"), "Chromium")
        page = await cls.start(binary, "about:blank")
        page.complaints, page.requests = [], []
        try:
            for domain in ("Runtime", "Log", "Network"):
                await page._command(f"{domain}.enable")
            await page.resize(width, height)
            await page.use_scheme("dark" if dark else "light")
            await page.goto(url)
        except BaseException:
            await page.close()
            raise
        return page

    async def goto(self, url: str) -> None:
        """Loads ``url``."""
        self._loaded.clear()
        answer = await self._command("Page.navigate", url=url)
        assert "errorText" not in answer, answer["errorText"]
        async with asyncio.timeout(WAIT):
            await self._loaded.wait()

    async def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Another window; below 600 pixels it is a phone."""
        await self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    async def use_scheme(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        await self._command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        async with asyncio.timeout(WAIT):
            return await self._evaluate(expression)

    async def wait(self, expression: str, within: float = WAIT) -> Any:
        """The expression's value once it is true; it is looked at again whenever the document changes."""
        try:
            async with asyncio.timeout(within + 5):
                return await self._evaluate(WAIT_FOR % (expression, within * 1000))
        except (AssertionError, TimeoutError):
            shown = await self.run("document.body.innerText")
            raise AssertionError(f"not within {within:g} s: {expression}\n{shown}\n{self.complaints}") from None

    async def text(self, selector: str) -> str:
        """The text that an element shows; nothing if it is hidden."""
        shown: str = await self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return shown

    async def wait_text(self, selector: str, part: str, within: float = WAIT) -> None:
        """Returns once the element shows this text, among other."""
        await self.wait(
            f"document.querySelector({json.dumps(selector)})?.innerText.includes({json.dumps(part)})", within
        )

    async def click(self, selector: str) -> None:
        """Presses the mouse button in the middle of the element."""
        release = await self.hold(selector)
        await release()

    async def hold(self, selector: str) -> Callable[[], Awaitable[None]]:
        """Presses the mouse button in the middle of the element, and returns what releases it there."""
        spot = await self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            " node.scrollIntoView({block: 'center'}); const box = node.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )

        async def mouse(kind: str) -> None:
            await self._command(
                "Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1], button="left", clickCount=1
            )

        await mouse("mousePressed")
        return partial(mouse, "mouseReleased")

    async def type(self, text: str) -> None:
        """Text into what has the focus."""
        await self._command("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """One of :data:`KEYS`."""
        code, text = KEYS[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self._command("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self._command("Input.dispatchKeyEvent", type="keyUp", **common)

    async def hide_scrollbars(self) -> None:
        """From the next layout on."""
        await self._command("Emulation.setScrollbarsHidden", hidden=True)

    async def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        await self.run("new Promise(requestAnimationFrame)")
        answer = await self._command("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        super()._on_event(method, params)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps([one.get("value") for one in params["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
