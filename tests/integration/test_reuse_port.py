"""Several processes on one port are one server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ

REUSE = "[listen]\nreuse_port = true"


@pytest.fixture
def pair(rabbitmq: RabbitMQ) -> Iterator[tuple[Bridge, Bridge]]:
    """Two bridges on one port."""
    port = str(free_port())
    bridges = [
        Bridge(configs.rabbitmq(rabbitmq.url, REUSE), node=f"node-{number}", environ={"STOMPBRIDGE_LISTEN__PORT": port})
        for number in range(2)
    ]
    try:
        for process in bridges:
            process.port = int(port)
            process.start()
            process.wait_ready()
        yield bridges[0], bridges[1]
        for process in bridges:
            if process.running:
                assert process.stop() == 0
            process.assert_clean_log()
    finally:
        for process in bridges:
            process.remove()


@pytest.mark.rabbitmq
async def test_both_serve_and_a_chat_crosses_them(pair: tuple[Bridge, Bridge], connect: Connect, name: str) -> None:
    # The kernel picks by a hash of the addresses: that all end up at the same process does not happen.
    clients = [await connect(pair[0]) for _ in range(30)]
    for client in clients:
        await client.subscribe(f"/topic/{name}")
    for number, client in enumerate(clients):
        await client.send_and_wait(f"/topic/{name}", str(number))
    processes = set()
    for client in clients:
        messages = await client.messages(len(clients))
        assert [message.text for message in messages] == [str(number) for number in range(len(clients))]
        processes |= {message.headers["message-id"].split("@@")[1] for message in messages}
    assert len(processes) == 2
    # One goes, and its clients find the other at the same address.
    assert pair[1].stop() == 0
    again = await connect(pair[0])
    await again.subscribe(f"/topic/{name}.after")
    await again.send_and_wait(f"/topic/{name}.after", "still here")
    await again.message("still here")


async def test_only_if_both_want_it(start_bridge: StartBridge) -> None:
    first = start_bridge(REUSE)
    second = Bridge("", environ={"STOMPBRIDGE_LISTEN__PORT": str(first.port)})
    try:
        second.spawn()
        assert second.wait_ended() == 1
        assert "another program, perhaps another stompbridge" in second.log
    finally:
        second.remove()
