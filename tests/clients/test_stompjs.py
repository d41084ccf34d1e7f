"""Habits of stompjs that are not STOMP's: sub-protocols, binary frames, split frames, graceful ends."""

from __future__ import annotations

import pytest

from tests.clients.conftest import OpenDriver
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.javascript import Driver, PageServer
from tests.support.kinds import StartBridge

pytestmark = pytest.mark.node


@pytest.fixture(params=["node", pytest.param("chromium", marks=pytest.mark.browser)])
async def driver(request: pytest.FixtureRequest, node: OpenDriver, chromium: OpenDriver) -> Driver:
    """stompjs under Node.js and in Chromium."""
    return await (node if request.param == "node" else chromium)()


@pytest.fixture
def served(page: PageServer, start_bridge: StartBridge) -> Bridge:
    """An embedded bridge that the page may talk to."""
    return start_bridge(configs.memory(f'[listen]\nallowed_origins = ["{page.origin}"]'))


async def test_defaults(driver: Driver, served: Bridge) -> None:
    answer = await driver.call("connect", url=served.url)
    assert answer["version"] == "1.2"
    await driver.call("subscribe", destination="/topic/a")
    await driver.call("send", destination="/topic/a", body="plain", receipt=True)
    await driver.call("send", destination="/topic/a", body="ünï 🎉\n\0x", headers={"own-header": "a:b\nc"})
    answer = await driver.call("messages", destination="/topic/a", count=2)
    assert [message["body"] for message in answer["messages"]] == ["plain", "ünï 🎉\n\0x"]
    assert answer["messages"][1]["headers"]["own-header"] == "a:b\nc"
    await driver.call("deactivate")
    report = await driver.call("report")
    assert [close["code"] for close in report["closes"]] in ([1000], [1005])
    assert not report["errors"]


async def test_binary_bodies(driver: Driver, served: Bridge) -> None:
    await driver.call("connect", url=served.url)
    await driver.call("subscribe", destination="/topic/b")
    body = list(range(256)) * 4
    headers = {"content-type": "application/octet-stream"}
    await driver.call("send", destination="/topic/b", binary=body, headers=headers)
    await driver.call("send", destination="/topic/b", body="text after it")
    answer = await driver.call("messages", destination="/topic/b", count=2)
    assert [message["body"] for message in answer["messages"]] == [body, "text after it"]


@pytest.mark.parametrize("options", [{"forceBinaryWSFrames": True}, {"splitLargeFrames": True}, {}])
async def test_large_frames(driver: Driver, served: Bridge, options: dict[str, bool]) -> None:
    await driver.call("connect", url=served.url, options=options)
    await driver.call("subscribe", destination="/topic/c")
    body = "é" * 524_288
    for _ in range(3):
        await driver.call("send", destination="/topic/c", body=body)
    answer = await driver.call("messages", destination="/topic/c", count=3)
    assert [message["body"] == body for message in answer["messages"]] == [True] * 3


async def test_error_frames_reach_the_page(driver: Driver, served: Bridge) -> None:
    await driver.call("connect", url=served.url)
    await driver.call("send", destination="/exchange/nobody.has.this/k", body="x")
    answer = await driver.call("errors", count=1)
    assert answer["errors"][0]["headers"]["message"] == "not_found"
    assert "no exchange 'nobody.has.this'" in answer["errors"][0]["body"]
