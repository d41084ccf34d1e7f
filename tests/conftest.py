"""Servers, bridges and clients that tests ask for.

A missing server skips its tests, or fails them when STOMPBRIDGE_REQUIRE_SERVICES is set.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from tests.support import configs
from tests.support import rabbitmq as rabbitmq_support
from tests.support import redis as redis_support
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis
from tests.support.requirements import require
from tests.support.stomp import Client, open_client

BROKERS = [pytest.param("memory", id="embedded"), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]


def _new_rabbitmq() -> RabbitMQ:
    require(str(rabbitmq_support.scripts() or ""), "RabbitMQ")
    return RabbitMQ()


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A node shared by all tests: leave it running, and use names of your own."""
    node = _new_rabbitmq()
    try:
        node.start()
        yield node
        node.stop()
    finally:
        node.remove()


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQ]:
    """A node of the test's own, running, to stop and kill at will."""
    node = _new_rabbitmq()
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture
def absent_rabbitmq() -> Iterator[RabbitMQ]:
    """A node that is not started yet; its address is known."""
    node = _new_rabbitmq()
    try:
        yield node
    finally:
        node.remove()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A server shared by all tests: leave it running, and use keys of your own."""
    require(redis_support.binary(), "redis-server")
    server = Redis()
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def node_binary() -> str:
    """Node.js."""
    return require(shutil.which("node"), "Node.js")


@pytest.fixture(scope="session", params=BROKERS)
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """A bridge shared by all tests, on either broker: leave it running, and use names of your own."""
    on_rabbitmq = request.param == "rabbitmq"
    process = Bridge(configs.rabbitmq(request.getfixturevalue("rabbitmq").url) if on_rabbitmq else configs.memory())
    try:
        process.start()
        process.wait_ready()
        yield process
        assert process.stop() == 0
        process.assert_clean_log()
    finally:
        process.remove()


@pytest.fixture
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """``await connect()`` is a connected client of the shared bridge, ``connect(other)`` one of another bridge.

    ``connected=False`` leaves out CONNECT. All of them are closed at the end, and the shared bridge's log has to be
    clean then.
    """
    clients: list[Client] = []

    async def open_one(
        other: Bridge | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        connected: bool = True,
        **options: Any,
    ) -> Client:
        target = other or request.getfixturevalue("bridge")
        client = await open_client(target.url, **options)
        clients.append(client)
        if connected:
            await client.connect(headers)
        return client

    yield open_one
    for client in clients:
        client.abort()
    if "bridge" in request.fixturenames:
        request.getfixturevalue("bridge").assert_clean_log()


@pytest.fixture
def start_bridge() -> Iterator[StartBridge]:
    """``start_bridge(config)`` is a running bridge of the test's own; its log has to be clean at the end."""
    bridges: list[Bridge] = []

    def start(config: str = "", **options: Any) -> Bridge:
        process = Bridge(config, **options)
        bridges.append(process)
        process.start()
        return process

    yield start
    try:
        for process in bridges:
            if process.running:
                assert process.stop() == 0, process.log[-4000:]
            process.assert_clean_log()
    finally:
        for process in bridges:
            process.remove()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{secrets.token_hex(5)}"
