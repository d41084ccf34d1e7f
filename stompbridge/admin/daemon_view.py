"""What the admin listener reads of the daemon."""

from __future__ import annotations

from typing import Protocol

from stompbridge.admin.health import Check
from stompbridge.admin.lag import LoopLag
from stompbridge.admin.recent import Recent
from stompbridge.brokers.base import Broker
from stompbridge.config import Settings
from stompbridge.dedup.store import Store
from stompbridge.gateway.gate import Idempotence
from stompbridge.gateway.listener import Gateway
from stompbridge.gateway.shared import Shared
from stompbridge.gateway.traffic import Traffic
from stompbridge.histogram import Latency
from stompbridge.routing.once import Once
from stompbridge.routing.router import Router
from stompbridge.upstream import Upstreams


class HealthView(Protocol):
    """The conditions of readiness."""

    def checks(self) -> list[Check]: ...

    def livez(self, query: str) -> tuple[int, str, bytes]: ...

    def readyz(self, query: str) -> tuple[int, str, bytes]: ...


class DaemonView(Protocol):
    """The parts of a running process. Everything is read when it is asked for."""

    @property
    def settings(self) -> Settings: ...

    @property
    def started_at(self) -> float:
        """In seconds since 1970."""

    @property
    def draining(self) -> bool:
        """Whether the process is about to stop."""

    @property
    def health(self) -> HealthView: ...

    @property
    def broker(self) -> Broker: ...

    @property
    def store(self) -> Store: ...

    @property
    def gateway(self) -> Gateway: ...

    @property
    def shared(self) -> Shared: ...

    @property
    def traffic(self) -> Traffic: ...

    @property
    def latency(self) -> Latency: ...

    @property
    def lag(self) -> LoopLag: ...

    @property
    def idempotence(self) -> Idempotence: ...

    @property
    def once(self) -> Once: ...

    @property
    def recent(self) -> Recent: ...

    @property
    def router(self) -> Router: ...

    @property
    def upstreams(self) -> Upstreams | None: ...

    def request_stop(self, seconds: float | None) -> float:
        """Begins to drain, over so many seconds or as many as the configuration says, which are returned."""
