"""The servers that these tests break, and the figures of their runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.faults.checker import Figures, Ledger
from tests.faults.load import Load
from tests.faults.site import Site
from tests.support import rabbitmq as rabbitmq_support
from tests.support import redis as redis_support
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis
from tests.support.requirements import require

_LINES: pytest.StashKey[list[tuple[str, Figures]]] = pytest.StashKey()
_REMARKS: pytest.StashKey[list[str]] = pytest.StashKey()
_SMALL_TOTAL = 16_000
"""Less than all tests send together where nothing else is asked for."""

MakeSite = Callable[..., Awaitable[Site]]
Report = Callable[[str, Ledger], Figures]
Figure = Callable[[str], None]


def scaled(count: int) -> int:
    """A number of messages; STOMPBRIDGE_FAULTS_MESSAGES says how many all tests are to send together."""
    return int(count * max(1.0, int(os.environ.get("STOMPBRIDGE_FAULTS_MESSAGES", "0")) / _SMALL_TOTAL))


@pytest.fixture(scope="session")
def broken_rabbitmq() -> Iterator[RabbitMQ]:
    """One node for all tests here: each leaves it running."""
    require(str(rabbitmq_support.scripts() or ""), "RabbitMQ")
    node = RabbitMQ()
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture(scope="session")
def broken_redis() -> Iterator[Redis]:
    """One server for all tests here: each leaves it running."""
    require(redis_support.binary(), "redis-server")
    server = Redis()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
async def make_site(broken_rabbitmq: RabbitMQ, broken_redis: Redis) -> AsyncIterator[MakeSite]:
    """``await make_site()`` is two running bridges."""
    sites: list[Site] = []

    async def make(**options: Any) -> Site:
        site = Site(broken_rabbitmq, broken_redis, **options)
        sites.append(site)
        await site.start()
        return site

    yield make
    for site in sites:
        await site.stop()


@pytest.fixture
async def load() -> AsyncIterator[Load]:
    """The run's clients."""
    load = Load()
    yield load
    await load.stop()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """``report(title, ledger)`` classes a run and has its line shown at the end."""

    def take(title: str, ledger: Ledger) -> Figures:
        figures = ledger.figures()
        request.config.stash.setdefault(_LINES, []).append((title, figures))
        return figures

    return take


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """``figure(text)`` has a line of other figures shown at the end."""
    return request.config.stash.setdefault(_REMARKS, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    remarks = config.stash.get(_REMARKS, [])
    if lines or remarks:
        terminalreporter.section("faults")
        for title, figures in lines:
            terminalreporter.write_line(figures.line(title))
        for remark in remarks:
            terminalreporter.write_line(remark)
        broken = "broken on purpose"
        terminalreporter.write_line(
            sum((figures for title, figures in lines if broken not in title), Figures()).line("all together")
        )
