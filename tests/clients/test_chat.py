"""The chat application's page as it is: stompjs in Node and in Chromium, over two bridges."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.clients.conftest import OpenDriver
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.javascript import Driver, PageServer
from tests.support.kinds import StartBridge
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.node, pytest.mark.browser]
ROOM = "/exchange/chat.exchange/roomId.7"
HEALTH = "/internal/healthcheck"


async def enter(driver: Driver, bridge: Bridge, heart_beat: tuple[int, int] = (20000, 20000)) -> dict[str, Any]:
    """Connect as the page does: no login, no host; room and health check subscribed in ``onConnect``."""
    answer = await driver.call(
        "connect",
        url=bridge.url,
        heartBeat=heart_beat,
        reconnectDelay=5000,
        subscriptions=[
            {"destination": ROOM, "headers": {"ack": "client"}, "acknowledge": True},
            {"destination": HEALTH},
        ],
    )
    assert answer["connects"] == 1
    return answer


async def settle(driver: Driver) -> None:
    """Return once the subscriptions made before are in force: frames of one socket take effect in order."""
    await driver.call("subscribe", destination="/topic/settled")


def stamped(messages: list[dict[str, Any]], session: str, count: int, prefix: str = "") -> list[dict[str, Any]]:
    """Check order, completeness and stamps of what came to the room; returns the decoded bodies."""
    bodies = [json.loads(message["body"]) for message in messages]
    assert [body["message"] for body in bodies] == [f"{prefix}{number}" for number in range(count)]
    assert {body["senderName"] for body in bodies} == {"driver"}
    assert {body["senderSessionId"] for body in bodies} == {session}
    assert {body["roomId"] for body in bodies} == {7}
    assert all(type(body["roomId"]) is int and type(body["seq"]) is int for body in bodies)
    numbers = [body["seq"] for body in bodies]
    assert numbers == sorted(set(numbers)), "seq does not rise"
    assert all(body["createdAt"].endswith("Z") for body in bodies)
    return bodies


async def healthy(driver: Driver, exchange: str = "healthcheck.exchange.1") -> None:
    """The health check reports success beside the room."""
    answer = await driver.call("messages", destination=HEALTH, count=1)
    assert answer["error"] is None
    wanted = {"status": "SUCCESS", "message": f"HEALTH CHECK TO {exchange}"}
    assert wanted in [json.loads(message["body"]) for message in answer["messages"]]


async def test_embedded(node: OpenDriver, chromium: OpenDriver, page: PageServer, start_bridge: StartBridge) -> None:
    bridge = start_bridge(configs.memory(f'[listen]\nallowed_origins = ["{page.origin}"]'))
    first, second = await node(), await chromium()
    session = (await enter(first, bridge))["headers"]["session"]
    await enter(second, bridge)
    for driver in (first, second):
        await settle(driver)
    await first.call("flood", destination="/app/message/7", count=500, rate=500)
    for driver in (first, second):
        stamped((await driver.call("messages", destination=ROOM, count=500))["messages"], session, 500)
        await healthy(driver)
        await driver.call("deactivate")


@pytest.mark.rabbitmq
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_two_bridges_on_rabbitmq(
    node: OpenDriver, chromium: OpenDriver, page: PageServer, rabbitmq: RabbitMQ, start_bridge: StartBridge
) -> None:
    """10,000 messages at 500 a second to two clients on two processes: none lost, none twice, in order."""
    count, rate = 10_000, 500
    origin = f'[listen]\nallowed_origins = ["{page.origin}"]'
    bridges = [start_bridge(configs.rabbitmq(rabbitmq.url, origin, f"[app]\nworker = {n}")) for n in (1, 2)]
    for bridge in bridges:
        bridge.wait_ready()
    sender, reader = await node(), await chromium()
    answers = [await enter(sender, bridges[0]), await enter(reader, bridges[1])]
    for answer in answers:
        assert answer["version"] == "1.2"
        assert answer["headers"]["heart-beat"] == "20000,20000"
    for driver in (sender, reader):
        await settle(driver)
    flood = await sender.call("flood", destination="/app/message/7", count=count, rate=rate)
    assert flood["sent"] == count
    assert flood["seconds"] == pytest.approx(count / rate, rel=0.25)
    session = answers[0]["headers"]["session"]
    for driver in (sender, reader):
        answer = await driver.call("messages", destination=ROOM, count=count, timeout=30_000)
        assert answer["error"] is None, f"{answer['error']}: {len(answer['messages'])} came"
        stamped(answer["messages"], session, count)
        await healthy(driver)
    await reader.call("send", destination="/app/message/7", body='{"senderName":"reader","message":"back"}')
    for driver in (sender, reader):
        answer = await driver.call("messages", destination=ROOM, count=count + 1)
        last = json.loads(answer["messages"][-1]["body"])
        assert len(answer["messages"]) == count + 1
        assert last["message"] == "back"
        assert last["senderSessionId"] == answers[1]["headers"]["session"]
    reports = [await driver.call("report") for driver in (sender, reader)]
    for report in reports:
        assert report["connected"]
        assert len(report["connects"]) == 1
        assert not report["errors"]
        assert not report["closes"]
        assert report["pings"] >= 1, "no heart-beat of the client in more than 20 s"
    for driver in (sender, reader):
        await driver.call("deactivate")


@pytest.mark.timeout(120)
async def test_heart_beats_hold_a_quiet_session(
    node: OpenDriver, chromium: OpenDriver, page: PageServer, start_bridge: StartBridge
) -> None:
    """Both sides beat as agreed and nobody closes; the page hears nothing else meanwhile."""
    bridge = start_bridge(
        configs.memory(f'[listen]\nallowed_origins = ["{page.origin}"]').replace('interval = "1s"', 'interval = "1h"')
    )
    drivers = [await node(), await chromium()]
    for driver in drivers:
        await enter(driver, bridge, heart_beat=(2000, 2000))
        await settle(driver)
    await asyncio.gather(*(driver.call("beats", count=3) for driver in drivers))
    for driver in drivers:
        report = await driver.call("report")
        assert report["connected"]
        assert len(report["connects"]) == 1


async def test_page_comes_back_after_a_restart(
    node: OpenDriver, chromium: OpenDriver, page: PageServer, start_bridge: StartBridge
) -> None:
    bridge = start_bridge(configs.memory(f'[listen]\nallowed_origins = ["{page.origin}"]'))
    drivers = [await node(), await chromium()]
    for driver in drivers:
        await driver.call(
            "connect", url=bridge.url, reconnectDelay=300, subscriptions=[{"destination": "/topic/restart"}]
        )
    bridge.kill()
    bridge.start()
    for driver in drivers:
        await driver.call("connects", count=2)
        await settle(driver)
    await drivers[0].call("send", destination="/topic/restart", body="hello again")
    for driver in drivers:
        answer = await driver.call("messages", destination="/topic/restart", count=1)
        assert [message["body"] for message in answer["messages"]] == ["hello again"]


async def test_other_origins_are_refused(chromium: OpenDriver, start_bridge: StartBridge) -> None:
    bridge = start_bridge(configs.memory('[listen]\nallowed_origins = ["https://chat.example"]'))
    driver = await chromium()
    with pytest.raises(AssertionError, match="CONNECTED: not within"):
        await driver.call("connect", url=bridge.url, reconnectDelay=0, timeout=3000)
    report = await driver.call("report")
    assert not report["connects"]
    assert report["closes"]
    bridge.wait_log("handshake_refused")
