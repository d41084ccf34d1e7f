"""A place in which the commands of the documentation can be run: what a clone has, a bridge that runs, a client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.docs.imports import ROOT
from tests.support.bridge import Bridge
from tests.support.ports import free_port
from tests.support.stomp import Client, open_client

TOKEN = "a-token-for-the-documentation"
PATIENCE = 30.0
"""Seconds that a command may take, and a server to be there."""
COPIED = {"README.md", "docs", "config", "systemd"}
"""What commands may change. The rest of the clone is linked."""
LEFT_OUT = {"bin", ".venv", ".git", "bench-results", "stompbridge"}
"""What is made anew, or not found there: the package is the one that is tested, at its own place."""
CONFIG = """
[[broker.exchange]]
name = "chat.exchange"

[[app.route]]
destination = "/app/message/{roomId}"
exchange = "chat.exchange"
routing_key = "roomId.{roomId}"
"""
PRELUDE = """
trap : TERM INT
trap 'pwd >"$STATE/folder"' EXIT
cd "$(cat "$STATE/folder")"
"""


class Outcome(NamedTuple):
    code: int
    output: str


class Workspace:
    """One document's: a folder, a bridge, and ports that stand for those in the text."""

    def __init__(self, folder: Path, ports: Mapping[int, int]) -> None:
        """``ports``: further ports in the text, such as RabbitMQ's, and what they are here."""
        self.clone = folder / "clone"
        self.state = folder / "state"
        self.ports = dict(ports)
        self.bridge = Bridge(CONFIG, node="docs", environ={"STOMPBRIDGE_ADMIN__TOKEN": TOKEN})
        self._make()

    def start(self) -> None:
        """Starts the bridge, and again after a command has ended it."""
        if not self.bridge.running:
            self.bridge.start()
            self.bridge.wait_ready()

    def close(self) -> None:
        self.bridge.remove()

    async def run(self, command: str) -> Outcome:
        """Runs a command to its end."""
        async with self._process(command) as process:
            async with asyncio.timeout(PATIENCE):
                output, _ = await process.communicate()
        return Outcome(await process.wait(), output.decode(errors="replace"))

    async def run_server(self, command: str, sign: str) -> Outcome:
        """Starts a program with ports of its own, waits for a line with ``sign``, and ends it as a service manager
        does."""
        ports = {8080: free_port(), 8081: free_port()}
        return await self._until(command, sign, signal.SIGTERM, ports)

    async def run_stream(self, command: str) -> Outcome:
        """Starts a program that shows what happens, waits for its first line, and ends it as Ctrl-C does."""
        async with self.client() as client:
            talking = asyncio.create_task(_talk(client))
            try:
                return await self._until(command.replace(" ID", f" {client.session}"), "", signal.SIGINT, {})
            finally:
                talking.cancel()
                await asyncio.gather(talking, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Connected]:
        """A session that the command can be about."""
        client = await open_client(self.bridge.url)
        try:
            frame = await client.connect()
            await client.subscribe("/exchange/chat.exchange/roomId.7", id="room")
            yield Connected(client, frame.headers["session"])
        finally:
            client.abort()

    async def _until(self, command: str, sign: str, signum: int, ports: Mapping[int, int]) -> Outcome:
        lines = []
        async with self._process(command, ports) as process:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                while line := (await process.stdout.readline()).decode(errors="replace"):
                    lines.append(line)
                    if sign in line:
                        os.killpg(process.pid, signum)
                        break
                lines.append((await process.stdout.read()).decode(errors="replace"))
                code = await process.wait()
        return Outcome(code, "".join(lines))

    @contextlib.asynccontextmanager
    async def _process(
        self, command: str, own_ports: Mapping[int, int] | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        ports = {8080: self.bridge.port, 8081: self.bridge.admin_port} | self.ports | dict(own_ports or {})
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            PRELUDE + with_ports(command, ports),
            env=self._environment(ports, own=bool(own_ports)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _environment(self, ports: Mapping[int, int], *, own: bool) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STOMPBRIDGE_")}
        made = {
            "HOME": str(self.state),
            "STATE": str(self.state),
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT),
            "STOMPBRIDGE_NODE": "docs-own" if own else "docs",
            "STOMPBRIDGE_LISTEN__PORT": str(ports[8080]),
            "STOMPBRIDGE_ADMIN__PORT": str(ports[8081]),
            "STOMPBRIDGE_ADMIN__TOKEN": TOKEN,
        }
        if not own:
            made["STOMPBRIDGE_ADMIN_URL"] = self.bridge.admin_url
        return kept | made

    def _make(self) -> None:
        self.clone.mkdir(parents=True)
        self.state.mkdir()
        (self.state / "folder").write_text(str(self.clone))
        for path in ROOT.iterdir():
            if path.name in COPIED:
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, self.clone / path.name)
            elif path.name not in LEFT_OUT:
                (self.clone / path.name).symlink_to(path)
        (self.clone / ".venv").symlink_to(sys.prefix)
        (self.clone / "bin").mkdir()
        for path in (ROOT / "bin").iterdir():
            if path.name != "stompbridge":
                (self.clone / "bin" / path.name).symlink_to(path)
        # What bin/stompbridge runs once it has set up the environment.
        program = self.clone / "bin/stompbridge"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stompbridge "$@"\n')
        program.chmod(0o755)
        (self.clone / "bridge.toml").write_text(CONFIG)
        token = self.clone / "admin.token"
        token.touch(0o600)
        token.write_text(TOKEN + "\n")


def with_ports(command: str, ports: dict[int, int]) -> str:
    """``command`` with the ports in it replaced as ``ports`` says, and others by free ones, which it says then."""

    def here(match: re.Match[str]) -> str:
        port = int(match[0])
        if port not in ports:
            ports[port] = free_port()
        return str(ports[port])

    return re.sub(r"(?:(?<=[\w\]]:)|(?<=PORT=)|(?<=--port ))[1-9]\d{3,4}\b", here, command)


class Connected(NamedTuple):
    client: Client
    session: str


async def _talk(connected: Connected) -> None:
    """Something to be seen, again and again."""
    while True:
        for destination in ("/topic/greetings", "/exchange/chat.exchange/roomId.7"):
            await connected.client.send(destination, "hello")
        await asyncio.sleep(0.1)
