"""rx-stomp: observables over stompjs, and questions answered through a temporary queue."""

from __future__ import annotations

import pytest

from tests.clients.conftest import RunScript
from tests.support.bridge import Bridge

pytestmark = pytest.mark.node


async def test_round(script: RunScript, bridge: Bridge, name: str) -> None:
    report = await script("rx-stomp.js", bridge.url, name)
    assert report == {
        "version": "1.2",
        "queue": ["one", "two", "three"],
        "again": ["one", "true"],
        "transactions": ["outside", "inside 1", "inside 2"],
        "topic": ["Grüße 🎉", f"/topic/{name}.a", 100_000],
        "after": 0,
        "answer": "ping pong",
        "error": "Unknown destination",
    }
