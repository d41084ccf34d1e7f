"""``@stomp/stompjs`` under Node.js and in headless Chromium, driven from Python by the same commands."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, Self

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

FOLDER = Path(__file__).resolve().parents[1] / "clients"
STOMPJS = FOLDER / "node_modules/@stomp/stompjs/bundles/stomp.umd.js"
START_TIMEOUT = 30.0
COMMAND_TIMEOUT = 60.0
LINE_LIMIT = 64 * 1024 * 1024


def installed() -> bool:
    """Whether ``node_modules`` holds every package that ``package.json`` names."""
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    return all((FOLDER / "node_modules" / package / "package.json").exists() for package in wanted)


class Driver(Protocol):
    """One stompjs client."""

    async def call(self, do: str, within: float = COMMAND_TIMEOUT, **arguments: Any) -> dict[str, Any]:
        """Run a command of ``driver.js`` and return its answer; ``AssertionError`` when it fails."""

    async def close(self) -> None:
        """End the program that runs it."""


def _checked(do: str, answer: dict[str, Any]) -> dict[str, Any]:
    assert answer.pop("ok"), f"{do}: {answer['error']}"
    return answer


class Node:
    """A Node.js process with one client in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, binary: str) -> Node:
        """Start the process; ``binary`` is Node's path."""
        process = await asyncio.create_subprocess_exec(
            binary,
            "driver-node.js",
            cwd=FOLDER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
        )
        return cls(process)

    async def call(self, do: str, within: float = COMMAND_TIMEOUT, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._process.stdin.write(json.dumps({"id": number, "do": do} | arguments).encode() + b"\n")
        async with asyncio.timeout(within):
            return _checked(do, await future)

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._waiting.pop(answer.pop("id")).set_result(answer)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(AssertionError("Node ended"))


class PageServer:
    """Serves the page, the driver and stompjs on loopback; their origin is ``origin``."""

    def __init__(self) -> None:
        files = {
            "/": (FOLDER / "page.html", "text/html; charset=utf-8"),
            "/driver.js": (FOLDER / "driver.js", "text/javascript; charset=utf-8"),
            "/stomp.umd.js": (STOMPJS, "text/javascript; charset=utf-8"),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = files.get(self.path)
                if found is None:
                    self.send_error(404)
                    return
                body = found[0].read_bytes()
                self.send_response(200)
                self.send_header("Content-Type", found[1])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Chromium:
    """Headless Chromium with one page, spoken to by the DevTools protocol."""

    FLAGS = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--remote-debugging-port=0",
    )

    def __init__(self, process: asyncio.subprocess.Process, profile: Path) -> None:
        self._process = process
        self._profile = profile
        self._socket: ClientConnection | None = None
        self._loaded = asyncio.Event()
        self._session = ""
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(cls, binary: str, url: str) -> Self:
        """Start the browser and open the page."""
        profile = Path(tempfile.mkdtemp(prefix="stompbridge-chromium-"))
        process = await asyncio.create_subprocess_exec(
            binary,
            *cls.FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            env=os.environ | {"HOME": str(profile)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        browser = cls(process, profile)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await browser._open(url)
        except BaseException:
            await browser.close()
            raise
        return browser

    async def call(self, do: str, within: float = COMMAND_TIMEOUT, **arguments: Any) -> dict[str, Any]:
        text = json.dumps({"do": do} | arguments)
        async with asyncio.timeout(within):
            return _checked(do, await self._evaluate(f"drive({text})"))

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, self._profile, True)

    async def _open(self, url: str) -> None:
        assert self._process.stderr is not None
        said = b""
        while not (found := re.search(rb"DevTools listening on (ws://\S+)", said)):
            said = await self._process.stderr.readline()
            assert said, "Chromium ended"
        self._tasks.append(asyncio.create_task(self._drain(self._process.stderr)))
        self._socket = await open_websocket(found[1].decode(), max_size=None, compression=None, proxy=None)
        self._tasks.append(asyncio.create_task(self._read(self._socket)))
        target = await self._command("Target.createTarget", url="about:blank")
        attached = await self._command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self._command("Page.enable")
        self._loaded.clear()
        await self._command("Page.navigate", url=url)
        await self._loaded.wait()

    async def _evaluate(self, expression: str) -> Any:
        answer = await self._command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def _command(self, method: str, **params: Any) -> dict[str, Any]:
        assert self._socket is not None
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send(json.dumps(message))
        answer: dict[str, Any] = await future
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    async def _read(self, socket: ClientConnection) -> None:
        async for data in socket:
            answer = json.loads(data)
            if "id" in answer:
                self._waiting.pop(answer["id"]).set_result(answer)
            else:
                self._on_event(answer["method"], answer["params"])

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()

    @staticmethod
    async def _drain(stream: asyncio.StreamReader) -> None:
        while await stream.read(65536):
            pass
