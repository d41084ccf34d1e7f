"""What a test needs and a machine may lack."""

from __future__ import annotations

import os

import pytest


def require(found: str | None, what: str) -> str:
    """``found``; if it is nothing, the test is skipped, or fails where STOMPBRIDGE_REQUIRE_SERVICES is set."""
    if found:
        return found
    if os.environ.get("STOMPBRIDGE_REQUIRE_SERVICES"):
        pytest.fail(f"{what} is missing and STOMPBRIDGE_REQUIRE_SERVICES is set")
    pytest.skip(f"{what} is missing")
