"""The figures of upgrades and drains are shown at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.faults.load import Load

_LINES: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``figure(text)`` has a line shown at the end."""
    return request.config.stash.setdefault(_LINES, []).append


@pytest.fixture
async def load() -> AsyncIterator[Load]:
    """Senders and receivers that connect again when their connection is lost, and a ledger of what they do."""
    load = Load()
    yield load
    await load.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("life cycle")
        for line in lines:
            terminalreporter.write_line(line)
