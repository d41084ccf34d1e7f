"""All checks, and the order of their findings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from stompbridge.config import Settings
from stompbridge.doctor import files, machine, store
from stompbridge.doctor.finding import Finding, within
from stompbridge.doctor.running import running_bridge

BROKER_LIMIT = 60.0
STORE_LIMIT = 30.0
OTHER_LIMIT = 15.0
"""Seconds for a group of checks; each step in it has a shorter limit of its own."""


async def examine(settings: Settings, config: Path | None) -> AsyncIterator[Finding]:
    """The findings, in their order, as they come. ``config`` is the file that the settings are from."""
    running = await running_bridge(settings)
    work = [
        within(OTHER_LIMIT, "certificate", asyncio.to_thread(files.check_certificate, settings)),
        within(OTHER_LIMIT, "secrets", asyncio.to_thread(files.check_secrets, settings, config)),
        within(OTHER_LIMIT, "auth", files.check_auth(settings)),
        within(OTHER_LIMIT, "files", asyncio.to_thread(machine.check_files, settings, running)),
        within(OTHER_LIMIT, "ports", asyncio.to_thread(machine.check_ports, settings, running)),
        within(STORE_LIMIT, "store", store.check_store(settings)),
    ]
    if settings.broker.kind == "rabbitmq":
        from stompbridge.doctor import broker  # the embedded broker needs none of it

        work.append(within(BROKER_LIMIT, "broker", broker.check_broker(settings)))
        # By far the longest: it has to wait for what other bridges do every few seconds.
        work.append(within(BROKER_LIMIT, "node", broker.check_node(settings, running)))
    tasks = [asyncio.ensure_future(check) for check in work]
    try:
        for task in tasks:
            for finding in await task:
                yield finding
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
