"""What all clients of the process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stompbridge.config import Limits, Settings
from stompbridge.gateway.gate import Idempotence
from stompbridge.routing.router import Router
from stompbridge.stomp.session import SessionSettings


@dataclass(slots=True)
class Shared:
    """Settings and parts, made once by the composition root."""

    settings: Settings
    session_settings: SessionSettings
    router: Router
    server: str
    in_flight_max: int
    """Unconfirmed SENDs of one session. Below the deduplication window, so that when all of them have to be
    published again every copy is still recognised."""
    now: Callable[[], float]
    sweep_interval: float
    idempotence: Idempotence

    @property
    def limits(self) -> Limits:
        return self.settings.limits
