"""SIGTERM, SIGTERM again, SIGHUP, and a drain that an operator asks for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.request

import pytest

from stompbridge.config import Limits, Settings
from tests.gateway.world import World, frame
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge

TOKEN = "a-token-of-an-operator"
LONG = 600.0


def begin_drain(bridge: Bridge, seconds: float) -> dict[str, object]:
    """As ``stompbridge drain`` does."""
    request = urllib.request.Request(
        bridge.admin_url + "/drain",
        json.dumps({"seconds": seconds}).encode(),
        {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202
        told: dict[str, object] = json.loads(answer.read())
        return told


async def test_a_drain_goes_on_beside_those_who_wait(start_bridge: StartBridge, connect: Connect) -> None:
    """Two sessions over a long time: one is told at once, the other is served until a signal makes it faster."""
    bridge = start_bridge(environ={"STOMPBRIDGE_ADMIN__TOKEN": TOKEN})
    clients = [await connect(bridge) for _ in range(2)]
    for client in clients:
        await client.subscribe("/topic/a")
    said = await asyncio.to_thread(begin_drain, bridge, LONG)
    assert said == {"draining": True, "sessions": 2, "seconds": LONG}
    closing = [asyncio.create_task(client.wait_closed(LONG)) for client in clients]
    done, _ = await asyncio.wait(closing, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [1012]
    [waiting] = [client for client, task in zip(clients, closing, strict=True) if task not in done]
    [task] = [task for task in closing if task not in done]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await waiting.send("/topic/a", "still here")
    await waiting.message("still here")
    assert "[-]drain failed" in await asyncio.to_thread(bridge.wait_ready, status=503)
    with pytest.raises(ConnectionRefusedError):
        await connect(bridge)
    stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
    assert await waiting.wait_closed() == 1012
    assert await stopping == 0
    assert bridge.events("stopped")[0]["shutdown"] == 2


async def test_a_second_signal_ends_it_at_once(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge('shutdown_timeout = "300s"\n[limits]\nclose_timeout = "300s"\n')
    client = await connect(bridge)
    # Its Close frame is not answered.
    client.ws.transport.pause_reading()
    os.kill(bridge.pid, signal.SIGTERM)
    await asyncio.to_thread(bridge.wait_log, "draining", sessions=1)
    os.kill(bridge.pid, signal.SIGTERM)
    assert await asyncio.to_thread(bridge.wait_ended) == 0


async def test_few_sessions_need_no_time(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge(configs.memory())
    clients = [await connect(bridge) for _ in range(50)]
    begun = time.monotonic()
    stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
    assert {await client.wait_closed() for client in clients} == {1012}
    assert await stopping == 0
    assert bridge.events("draining")[0]["seconds"] == 0
    # drain_time is 5 seconds.
    assert time.monotonic() - begun < 4


async def test_what_a_queue_gave_is_not_given_twice(start_bridge: StartBridge, connect: Connect) -> None:
    """A consumer that is about to acknowledge may do so, and gets nothing more."""
    bridge = start_bridge(configs.memory())
    consumer = await connect(bridge)
    await consumer.subscribe("/queue/a", ack="client-individual", prefetch_count="1")
    for body in ("first", "second"):
        await consumer.send_and_wait("/queue/a", body)
    message = await consumer.message("first")
    stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
    await asyncio.to_thread(bridge.wait_log, "draining")
    await consumer.acknowledge(message)
    assert await consumer.wait_closed() == 1012
    assert not consumer.pending
    assert await stopping == 0


async def test_limits_change_without_a_restart(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge("[limits]\nunacked = 1000\nframe = 2000\nframe_before_connect = 2000\n")
    old = await connect(bridge)
    bridge.reconfigure("[limits]\nunacked = 1\nframe = 1000000\nconnections = 2\n")
    os.kill(bridge.pid, signal.SIGHUP)
    assert (await asyncio.to_thread(bridge.wait_log, "reloaded"))["needs_restart"] is None
    # For a session that was there: what is asked for at its use.
    await old.subscribe("/topic/a", ack="client")
    new = await connect(bridge)
    await new.send_and_wait("/topic/b", "x" * 100_000)
    for body in ("1", "2"):
        await new.send("/topic/a", body)
    await old.message("1")
    await old.error()
    assert await old.wait_closed() == 1008
    third = await connect(bridge)
    await third.alive()
    with pytest.raises(Exception, match="503"):
        await connect(bridge)


async def test_limits_that_are_wrong_change_nothing(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge("[limits]\nconnections = 1\n")
    bridge.reconfigure("[limits]\nconnections = 2\nframe = 1\n")
    os.kill(bridge.pid, signal.SIGHUP)
    assert "limits.frame" in (await asyncio.to_thread(bridge.wait_log, "not_reloaded"))["error"]
    await connect(bridge)
    with pytest.raises(Exception, match="503"):
        await connect(bridge)


@pytest.mark.parametrize("rate", [0, 1000])
async def test_a_new_pace_lets_a_client_go_on(rate: int) -> None:
    world = World(Settings(limits=Limits(message_rate=1)))
    await world.broker.start(world)  # type: ignore[arg-type]
    client, connection = world.client()
    for receipt in "abc":
        client.on_data(frame("SEND", destination="/topic/a", receipt=receipt))
    assert connection.receipts() == ["a", "b"]
    world.shared.settings = Settings(limits=Limits(message_rate=rate))
    client.refresh_limits()
    assert connection.receipts() == ["a", "b", "c"]
    await world.broker.stop()
