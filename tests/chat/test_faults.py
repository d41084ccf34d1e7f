"""Servers die while both people write on: every message is on both screens, once."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.chat.conftest import ChatBridge, ChatPage, OpenPage, Serve, tell
from tests.support.bridge import Bridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis

pytestmark = [pytest.mark.node, pytest.mark.browser, pytest.mark.rabbitmq, pytest.mark.redis]


class Talk:
    """Two people, each on a bridge of its own; both pages know both bridges."""

    def __init__(self, bridges: list[Bridge], pages: list[ChatPage]) -> None:
        self.bridges = bridges
        self.pages = pages

    @classmethod
    async def start(
        cls, rabbitmq: RabbitMQ, redis: Redis, serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage
    ) -> Talk:
        environ = {
            "BROKER__URLS": json.dumps([rabbitmq.url]),
            "DEDUP__STORE": "redis",
            "DEDUP__REDIS_URL": redis.url,
            "DEDUP__LOCK_TTL": "2s",
        }
        servers = [serve(), serve()]
        bridges = [chat_bridge(servers, **environ) for _ in servers]
        tell(servers[0], *bridges)
        tell(servers[1], *reversed(bridges))
        pages = [await open_page(server, name) for server, name in zip(servers, ("Ada", "Bob"), strict=True)]
        return cls(bridges, pages)

    async def begin(self, count: int, pause: int) -> None:
        """Both begin to write, and see each other's first messages."""
        for page, prefix in zip(self.pages, "AB", strict=True):
            await page.type_on(prefix, count, pause)
        for page in self.pages:
            await page.wait_text("#messages", "A2")
            await page.wait_text("#messages", "B2")

    async def check(self, count: int, within: float = 30) -> None:
        """Each message is on each screen, once, and each person's in their order."""
        await asyncio.gather(*(page.wait_settled(2 * count, within) for page in self.pages))
        for page in self.pages:
            texts = await page.texts()
            for prefix in "AB":
                assert [text for text in texts if text[0] == prefix] == [f"{prefix}{number}" for number in range(count)]
            await page.wait_text("#state", "Connected")


async def test_a_bridge_is_killed(
    rabbitmq: RabbitMQ, redis_server: Redis, serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage
) -> None:
    talk = await Talk.start(rabbitmq, redis_server, serve, chat_bridge, open_page)
    await talk.begin(60, 40)
    talk.bridges[0].kill()
    await talk.check(60)
    assert len(talk.bridges[1].events("session_opened")) == 2
    talk.bridges[1].assert_clean_log()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_bridges_are_killed_in_turn(
    rabbitmq: RabbitMQ, redis_server: Redis, serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage
) -> None:
    """And started again: the pages go back and forth."""
    talk = await Talk.start(rabbitmq, redis_server, serve, chat_bridge, open_page)
    await talk.begin(95, 80)
    for turn in range(4):
        bridge = talk.bridges[turn % 2]
        bridge.kill()
        bridge.start()
        for page in talk.pages:
            await page.wait_text("#state", "Connected")
    await talk.check(95, 60)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_rabbitmq_is_restarted(
    own_rabbitmq: RabbitMQ, redis_server: Redis, serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage
) -> None:
    """The pages say that the broker is away, and stay connected to their bridges."""
    talk = await Talk.start(own_rabbitmq, redis_server, serve, chat_bridge, open_page)
    await talk.begin(95, 150)
    await asyncio.to_thread(own_rabbitmq.stop)
    for page in talk.pages:
        await page.wait_text("#state", "Broker down")
        await page.wait_text("#notice", "The message broker is away")
    await asyncio.to_thread(own_rabbitmq.start)
    await talk.check(95, 60)
    for page, bridge in zip(talk.pages, talk.bridges, strict=True):
        assert await page.text("#notice") == ""
        assert len(bridge.events("session_opened")) == 1
