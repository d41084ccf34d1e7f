"""What the fixtures hand to tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.support.bridge import Bridge
from tests.support.stomp import Client

Connect = Callable[..., Awaitable[Client]]
"""Opens one more client, see the fixture ``connect``."""
StartBridge = Callable[..., Bridge]
"""Starts one more bridge, see the fixture ``start_bridge``."""
