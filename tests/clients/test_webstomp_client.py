"""webstomp-client: text and binary WebSocket messages, frames cut into pieces of 16 KiB."""

from __future__ import annotations

import pytest

from tests.clients.conftest import RunScript
from tests.support.bridge import Bridge

pytestmark = pytest.mark.node


@pytest.mark.parametrize("kind", ["webstomp", "webstomp-binary"])
async def test_round(script: RunScript, bridge: Bridge, kind: str, name: str) -> None:
    report = await script("callbacks.js", kind, bridge.url, name)
    assert report == {
        "version": "1.2",
        "queue": ["one", "two", "three"],
        "again": ["one", "true"],
        "transactions": ["outside", "inside 1", "inside 2"],
        "topic": ["Grüße 🎉", f"/topic/{name}.a", 100_000],
        "after": 0,
        "error": "Unknown destination",
    }
