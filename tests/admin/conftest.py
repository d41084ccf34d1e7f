"""Every asynchronous test here runs on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The standard library's loop and the one that is used in earnest."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
