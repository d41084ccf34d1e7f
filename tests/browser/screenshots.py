"""Pictures of the status page for the documentation: ``python -m tests.browser.screenshots [SECONDS]``.

A small chat goes on over RabbitMQ and Redis, for five minutes unless told otherwise: people write in rooms, some write
the same twice, some leave, and some are lost. Then the page is photographed, light, dark and on a phone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import sys
from pathlib import Path

from stompbridge.auth.static import hash_password
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.browser import Page
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis
from tests.support.stomp import Client, connect

FOLDER = Path(__file__).parents[2] / "docs/images"
SECONDS = 300.0
PEOPLE = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "olivia")
ROOMS = 8
MOST = 48
"""Clients at a time."""
PASSWORD = "secret"

ACCESS = """
[[acl]]
allow = ["subscribe", "send"]
destinations = ["/exchange/**", "/app/**", "/internal/**"]
users = ["*"]
"""


class Chat:
    """Its clients come, write and go."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._clients: list[tuple[Client, asyncio.Task[None]]] = []
        self._random = random.Random(7)
        self._written = 0

    async def come(self) -> None:
        """One more person in a room; low numbers are liked best."""
        chosen = self._random
        login = {"accept-version": "1.2", "login": chosen.choice(PEOPLE), "passcode": PASSWORD}
        client = await connect(self._bridge.url, login | {"heart-beat": "20000,20000"})
        room = int(ROOMS * chosen.random() ** 2)
        await client.subscribe(f"/exchange/chat.exchange/roomId.{room}", ack="client-individual")
        await client.subscribe("/internal/healthcheck", id="health")
        self._clients.append((client, asyncio.create_task(self._read(client))))

    async def leave(self) -> None:
        """One of them says good-bye, or is lost."""
        client, reader = self._clients.pop(self._random.randrange(len(self._clients)))
        if self._random.random() < 0.3:
            client.abort()
        else:
            await client.send_frame("DISCONNECT")
        await asyncio.wait({reader}, timeout=5)
        client.abort()

    async def write(self) -> None:
        """Somebody writes; one in fifteen does it again, as after a lost answer."""
        self._written += 1
        client, _ = self._random.choice(self._clients)
        room = int(ROOMS * self._random.random() ** 2)
        for _ in range(2 if self._written % 15 == 0 else 1):
            body = f'{{"message":"{self._written}"}}'
            key = f"m{self._written}"
            await client.send(f"/app/message/{room}", body, idempotency_key=key, content_type="application/json")

    async def go_on(self, seconds: float) -> None:
        """More and less, in waves."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        while (passed := clock() - begin) < seconds:
            wanted = int(MOST * (0.65 + 0.3 * math.sin(passed / 35) + 0.05 * math.sin(passed / 5)))
            if len(self._clients) < wanted:
                await self.come()
            elif len(self._clients) > wanted or self._random.random() < 0.02:
                await self.leave()
            for _ in range(self._random.randrange(1, 4 + int(3 * (1 + math.sin(passed / 20))))):
                await self.write()
            await asyncio.sleep(0.1)

    def end(self) -> None:
        """Everybody is gone."""
        for client, reader in self._clients:
            reader.cancel()
            client.abort()

    async def _read(self, client: Client) -> None:
        with contextlib.suppress(Exception):
            while True:
                frame = await client.receive(3600)
                if "ack" in frame.headers:
                    await asyncio.sleep(self._random.random() / 50)
                    await client.send_frame("ACK", {"id": frame.ack})


async def photograph(bridge: Bridge, seconds: float) -> None:
    """Lets people chat while the page is open, and takes the pictures."""
    page = await Page.open(f"{bridge.admin_url}/", width=1280, height=1440)
    chat = Chat(bridge)
    try:
        await page.hide_scrollbars()
        await page.resize(1280, 1439)
        await page.resize(1280, 1440)
        await chat.go_on(seconds)
        await page.screenshot(FOLDER / "status-light.png")
        await page.use_scheme("dark")
        await page.screenshot(FOLDER / "status-dark.png")
        await page.resize(360, 760, 2)
        await page.use_scheme("light")
        await page.screenshot(FOLDER / "status-phone.png")
    finally:
        chat.end()
        await page.close()


def main() -> None:
    """Starts the servers and goes ahead."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    FOLDER.mkdir(parents=True, exist_ok=True)
    rabbitmq, redis = RabbitMQ(), Redis()
    bridge = Bridge(node="bridge-1")
    try:
        rabbitmq.start()
        redis.start()
        users = bridge.folder / "users.toml"
        password = hash_password(PASSWORD)
        users.write_text("".join(f"[users.{name}]\npassword = '{password}'\n" for name in PEOPLE))
        users.chmod(0o600)
        auth = f"[auth]\nbackend = 'static'\nusers_file = '{users}'"
        dedup = f"[dedup]\nstore = 'redis'\nredis_url = '{redis.url}'"
        bridge.reconfigure(configs.rabbitmq(rabbitmq.url, auth, dedup, ACCESS))
        bridge.start()
        bridge.wait_ready()
        asyncio.run(photograph(bridge, seconds))
    finally:
        bridge.remove()
        redis.remove()
        rabbitmq.remove()


if __name__ == "__main__":
    main()
