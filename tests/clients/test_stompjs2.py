"""stompjs 2.3.3, the version before the rewrite, which many pages still carry."""

from __future__ import annotations

import pytest

from tests.clients.conftest import RunScript
from tests.support.bridge import Bridge

pytestmark = pytest.mark.node


async def test_round(script: RunScript, bridge: Bridge, name: str) -> None:
    """It offers 1.0 and 1.1 whatever the sub-protocol."""
    report = await script("callbacks.js", "stompjs", bridge.url, name)
    assert report == {
        "version": "1.1",
        "queue": ["one", "two", "three"],
        "again": ["one", "true"],
        "transactions": ["outside", "inside 1", "inside 2"],
        "topic": ["Grüße 🎉", f"/topic/{name}.a", 100_000],
        "after": 0,
        "error": "Unknown destination",
    }
