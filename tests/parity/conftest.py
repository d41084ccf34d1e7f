"""The side by side run that all rows share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import rabbitmq
from tests.support.parity import Parity, Row, running
from tests.support.requirements import require


@pytest.fixture(scope="session")
def parity(request: pytest.FixtureRequest) -> Iterator[Parity]:
    """Runs the rows that were collected."""
    require(str(rabbitmq.scripts() or ""), "RabbitMQ")
    callspecs = [getattr(item, "callspec", None) for item in request.session.items]
    rows = [spec.params["row"] for spec in callspecs if spec is not None and "row" in spec.params]
    yield from running([entry for entry in rows if isinstance(entry, Row)])
