"""User destinations between processes: everybody's own, wherever they are, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from argon2 import PasswordHasher
from pamqp import commands

from tests.conftest import BROKERS
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client

EXCHANGE = "stompbridge.user"
RUN = secrets.token_hex(4)
JOE, JIM = f"joe-{RUN}", f"jim-{RUN}"
LONG = "n" * 255
HOSTILE = [
    f"{RUN}{name}" for name in ("", "a.b", "*", "#", ".#", "a/b", "%2E", ".", "%", "é.ü", "\N{GRINNING FACE}", "a b")
]
HOSTILE += ["*", "#", "#.queue", "queue", "n" * 247]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Configuration lines for these users, whose password is ``secret``."""
    file: Path = tmp_path_factory.mktemp("users") / "users.toml"
    password = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")
    names = {JOE, JIM, LONG, *HOSTILE}
    file.touch(0o600)
    file.write_text(
        "".join(f"[users.{json.dumps(name, ensure_ascii=False)}]\npassword = {password!r}\n" for name in names)
    )
    return f'[auth]\nbackend = "static"\nusers_file = "{file}"'


@pytest.fixture(scope="module")
def pair(rabbitmq: RabbitMQ, users: str) -> Iterator[tuple[Bridge, Bridge]]:
    """Two bridges on one broker, that let go of bindings soon."""
    config = configs.rabbitmq(rabbitmq.url, users, broker='bind_linger = "300ms"')
    yield from _running(Bridge(config), Bridge(config))


@pytest.fixture(scope="module", params=BROKERS)
def single(request: pytest.FixtureRequest, users: str) -> Iterator[Bridge]:
    """One bridge, on either broker."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("pair")[0]
    else:
        for (bridge,) in _running(Bridge(configs.memory(users))):
            yield bridge


def _running(*bridges: Bridge) -> Iterator[tuple[Bridge, ...]]:
    try:
        for bridge in bridges:
            bridge.start()
        for bridge in bridges:
            bridge.wait_ready()
        yield bridges
        for bridge in bridges:
            assert bridge.stop() == 0
            bridge.assert_clean_log()
    finally:
        for bridge in bridges:
            bridge.remove()


@pytest.fixture
async def program(rabbitmq: RabbitMQ) -> AsyncIterator[AbstractChannel]:
    """A backend's AMQP channel."""
    connection = await aiormq.connect(rabbitmq.url)
    yield await connection.channel()
    await connection.close()


async def session_of(connect: Connect, bridge: Bridge, user: str) -> Client:
    return await connect(bridge, {"accept-version": "1.2", "login": user, "passcode": "secret"})


def routing_key(user: str, rest: str) -> str:
    """As the documentation tells the authors of backends."""
    return re.sub(r"[.*#/%]", lambda match: f"%{ord(match[0]):02X}", user) + "." + rest


async def notify(program: AbstractChannel, key: str, body: str, **headers: str) -> None:
    properties = commands.Basic.Properties(headers=dict(headers))
    await program.basic_publish(body.encode(), exchange=EXCHANGE, routing_key=key, properties=properties)


# One bridge


async def test_a_user_hears_what_is_for_it(single: Bridge, connect: Connect) -> None:
    tabs = [await session_of(connect, single, JOE) for _ in range(2)]
    stranger = await session_of(connect, single, JIM)
    for client in (*tabs, stranger):
        await client.subscribe("/user/queue/x", id="mine")
    await stranger.send_and_wait(f"/user/{JOE}/queue/x", "hello", colour="red")
    for client in tabs:
        await client.message(
            "hello", destination="/user/queue/x", subscription="mine", redelivered="false", colour="red"
        )
    await tabs[0].send_and_wait("/user/queue/x", "to myself")
    for client in tabs:
        await client.message("to myself")
    await stranger.send(f"/user/{JIM}/queue/x", "last")
    await stranger.message("last")


async def test_one_session(single: Bridge, connect: Connect) -> None:
    here, there = [await session_of(connect, single, JOE) for _ in range(2)]
    for client in (here, there):
        await client.subscribe("/user/topic/one")
    await here.send(f"/user/{JOE}/topic/one", "only you", session=there.session)
    await here.send(f"/user/{JOE}/topic/one", "all")
    await there.message("only you")
    for client in (here, there):
        await client.message("all")


async def test_acknowledgement(single: Bridge, connect: Connect) -> None:
    client = await session_of(connect, single, JOE)
    await client.subscribe("/user/queue/ack", ack="client-individual", prefetch_count="1")
    for number in range(3):
        await client.send_and_wait("/user/queue/ack", str(number))
    first = await client.message("0")
    await client.acknowledge(first, "NACK")
    again = await client.message("0", redelivered="true", destination="/user/queue/ack")
    await client.acknowledge(again)
    for number in (1, 2):
        await client.acknowledge(await client.message(str(number)))


async def test_transactions_and_idempotency_keys(single: Bridge, connect: Connect) -> None:
    client = await session_of(connect, single, JOE)
    await client.subscribe("/user/queue/tx")
    await client.send_frame("BEGIN", {"transaction": "t"})
    await client.send("/user/queue/tx", "together", transaction="t")
    await client.request("COMMIT", {"transaction": "t"})
    for _ in range(2):
        await client.send_and_wait("/user/queue/tx", "order", idempotency_key=f"{RUN}-1")
    await client.send("/user/queue/tx", "end")
    assert [frame.text for frame in await client.messages(3)] == ["together", "order", "end"]


@pytest.mark.parametrize("destination", ["/user/queue/*", "/user/queue/#", "/user/", "/exchange/stompbridge.user/#"])
async def test_nobody_listens_in(single: Bridge, connect: Connect, destination: str) -> None:
    client = await session_of(connect, single, JIM)
    await client.send_frame("SUBSCRIBE", {"destination": destination, "id": "s"})
    await client.error("Invalid destination")
    await client.alive()


async def test_a_name_that_fits_no_routing_key(single: Bridge, connect: Connect) -> None:
    client = await session_of(connect, single, LONG)
    await client.send_frame("SUBSCRIBE", {"destination": "/user/queue/x", "id": "s"})
    await client.error("Processing error", "the routing key is longer than 255 bytes")
    await client.send_frame("SEND", {"destination": f"/user/{LONG}/queue/x"})
    await client.error("Processing error", "the routing key is longer than 255 bytes")
    await client.alive()


async def test_hostile_names_hear_their_own(single: Bridge, connect: Connect) -> None:
    clients = {user: await session_of(connect, single, user) for user in HOSTILE}
    for client in clients.values():
        await client.subscribe("/user/queue/x")
    sender = clients[HOSTILE[0]]
    for user in HOSTILE:
        octets = "".join(f"%{octet:02X}" for octet in user.encode())
        await sender.send_and_wait(f"/user/{octets}/queue/x", user)
    for user, client in clients.items():
        await client.message(user)
        await client.alive()
        assert not client.pending


# Two bridges


@pytest.mark.rabbitmq
async def test_all_sessions_on_all_bridges(pair: tuple[Bridge, Bridge], connect: Connect) -> None:
    tabs = [await session_of(connect, bridge, JOE) for bridge in pair for _ in range(2)]
    strangers = [await session_of(connect, bridge, JIM) for bridge in pair]
    for client in (*tabs, *strangers):
        await client.subscribe("/user/queue/x")
    for number in range(20):
        await strangers[number % 2].send_and_wait(f"/user/{JOE}/queue/x", str(number))
    for client in tabs:
        assert [frame.text for frame in await client.messages(20)] == [str(number) for number in range(20)]
    await tabs[0].send_and_wait(f"/user/{JOE}/queue/x", "you", session=tabs[3].session)
    await tabs[3].message("you")
    for client in (*tabs, *strangers):
        await client.alive()
        assert not client.pending


@pytest.mark.rabbitmq
async def test_a_backend_notifies_by_plain_amqp(
    pair: tuple[Bridge, Bridge], connect: Connect, program: AbstractChannel
) -> None:
    clients = {user: [await session_of(connect, bridge, user) for bridge in pair] for user in HOSTILE}
    for sessions in clients.values():
        for client in sessions:
            await client.subscribe("/user/queue/x")
    for user, (_, second) in clients.items():
        await notify(program, routing_key(user, "queue.x"), user, about="order")
        await notify(program, routing_key(user, "queue.x"), "second", session=second.session)
        await notify(program, routing_key(user, "queue.y"), "elsewhere")
    for user, (first, second) in clients.items():
        for client in (first, second):
            await client.message(user, about="order", destination="/user/queue/x")
        await second.message("second")
        for client in (first, second):
            await client.alive()
            assert not client.pending


@pytest.mark.rabbitmq
async def test_nothing_is_left_behind(
    pair: tuple[Bridge, Bridge], connect: Connect, rabbitmq: RabbitMQ, name: str
) -> None:
    def bindings() -> list[str]:
        rows = rabbitmq.ctl("list_bindings", "--no-table-headers", "source_name", "routing_key").splitlines()
        return [row for row in rows if row.startswith(EXCHANGE) and name in row]

    before = {queue["name"] for queue in await asyncio.to_thread(rabbitmq.queues)}
    clients = [await session_of(connect, bridge, user) for bridge in pair for user in (JOE, JIM)]
    for client in clients:
        await client.subscribe(f"/user/queue/{name}")
    assert len(await asyncio.to_thread(bindings)) == 4
    queues = {queue["name"] for queue in await asyncio.to_thread(rabbitmq.queues)}
    assert all(queue.endswith(f".{EXCHANGE}") for queue in queues - before)
    await clients[0].unsubscribe()
    await clients[1].disconnect()
    await clients[2].close()
    clients[3].abort()
    deadline = time.monotonic() + 30
    while await asyncio.to_thread(bindings):
        assert time.monotonic() < deadline
    assert {queue["name"] for queue in await asyncio.to_thread(rabbitmq.queues)} <= queues


@pytest.mark.rabbitmq
async def test_without_authentication_the_name_is_the_session(
    start_bridge: StartBridge, connect: Connect, rabbitmq: RabbitMQ, program: AbstractChannel
) -> None:
    bridge = start_bridge(configs.rabbitmq(rabbitmq.url))
    bridge.wait_ready()
    clients = [await connect(bridge) for _ in range(2)]
    for client in clients:
        await client.subscribe("/user/queue/x")
    await clients[0].send_and_wait(f"/user/{clients[1].session}/queue/x", "from a client")
    await notify(program, f"{clients[1].session}.queue.x", "from a program")
    await clients[1].message("from a client")
    await clients[1].message("from a program")
    await clients[0].send_and_wait("/user/queue/x", "mine")
    await clients[0].message("mine")
