"""Bridges on one RabbitMQ and one Redis, each of them behind proxies of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.faults.proxy import Proxy
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis

_BROKEN = Path(__file__).parent / "broken_bridge.py"
LOCK_TTL = 1.0
"""Seconds, of the deduplication store's locks."""


class BrokenBridge(Bridge):
    """A bridge with a known fault, see ``broken_bridge.py``."""

    fault = ""

    def command(self) -> list[str]:
        return [sys.executable, str(_BROKEN), self.fault, "serve", "--config", str(self.config)]


class Site:
    """What one test breaks. ``dedup``, ``broker`` and ``more`` are further lines of the bridges' configuration, in
    these tables and at its end; ``fault`` is one of ``broken_bridge.py``."""

    def __init__(
        self,
        rabbitmq: RabbitMQ,
        redis: Redis,
        *,
        count: int = 2,
        dedup: str = "",
        more: str = "",
        broker: str = "",
        fault: str = "",
    ) -> None:
        self.rabbitmq = rabbitmq
        self.redis = redis
        self.amqp = [Proxy(rabbitmq.port, amqp=True) for _ in range(count)]
        """Between each bridge and RabbitMQ."""
        self.stores = [Proxy(redis.port) for _ in range(count)]
        """Between each bridge and Redis."""
        self.bridges: list[Bridge] = []
        for amqp, store in zip(self.amqp, self.stores, strict=True):
            url = f"amqp://guest:guest@127.0.0.1:{amqp.port}/%2F"
            table = (
                f'[dedup]\nstore = "redis"\nredis_url = "redis://127.0.0.1:{store.port}/0"\n'
                f'lock_ttl = "{LOCK_TTL:g}s"\n{dedup}'
            )
            config = configs.rabbitmq(url, table, more, broker=broker)
            bridge = BrokenBridge(config) if fault else Bridge(config)
            if isinstance(bridge, BrokenBridge):
                bridge.fault = fault
            self.bridges.append(bridge)

    @property
    def urls(self) -> list[str]:
        return [bridge.url for bridge in self.bridges]

    async def start(self) -> None:
        for proxy in (*self.amqp, *self.stores):
            await proxy.start()
        for bridge in self.bridges:
            await asyncio.to_thread(bridge.start)
        await self.ready()

    async def ready(self) -> None:
        """Returns when all running bridges have their broker."""
        for bridge in self.bridges:
            if bridge.running:
                await asyncio.to_thread(bridge.wait_ready)

    async def stop(self) -> None:
        try:
            for proxy in (*self.amqp, *self.stores):
                proxy.restore()
            for bridge in self.bridges:
                if bridge.running:
                    code = await asyncio.to_thread(bridge.stop)
                    assert code == 0, bridge.log[-4000:]
                if not isinstance(bridge, BrokenBridge):
                    bridge.assert_clean_log()
        finally:
            for bridge in self.bridges:
                await asyncio.to_thread(bridge.remove)
            for proxy in (*self.amqp, *self.stores):
                await proxy.stop()

    def sessions_lost(self) -> list[object]:
        """Why bridges have closed connections of clients that did not take their leave, so far."""
        reasons = [event["reason"] for bridge in self.bridges for event in bridge.events("session_closed")]
        return [reason for reason in reasons if reason != "client_disconnect"]

    def suspend(self, index: int) -> None:
        """Stops a bridge where it is."""
        os.kill(self.bridges[index].pid, signal.SIGSTOP)

    def resume(self, index: int) -> None:
        os.kill(self.bridges[index].pid, signal.SIGCONT)
