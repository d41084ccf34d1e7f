"""Is the way through the broker open? A probe that goes round, and what is told to clients and orchestrators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import msgspec

from stompbridge.admin.lag import KEPT, LoopLag
from stompbridge.brokers.base import Broker, Failure, Message
from stompbridge.config import BrokerHealth
from stompbridge.routing.hub import Hub

TOPIC = "healthcheck"
"""Results go to the subscribers of ``/internal/healthcheck``."""
MAX_LAG = 1.0
"""Seconds; a process whose event loop was later than that should get no more clients for a while."""


class Check(NamedTuple):
    """One named condition of the process."""

    name: str
    ok: bool
    detail: str


class BrokerProbe:
    """Publishes a message to the health-check exchange every ``interval`` and waits ``timeout`` for it to come back
    through the process's own mailbox. Subscribers hear each result, and at once when the broker goes or returns."""

    def __init__(self, settings: BrokerHealth, broker: Broker, hub: Hub, key: str) -> None:
        self._settings = settings
        self._broker = broker
        self._hub = hub
        self._key = key
        self._sent = 0
        self._returned = 0
        self._timer: asyncio.TimerHandle | None = None
        self._subscribed = False
        self.ok: bool | None = None
        """The last result; None before the first."""
        self.detail = "no probe yet"
        self.round_trip = 0.0
        """Seconds that the last probe took."""
        self._sent_at = 0.0

    @property
    def enabled(self) -> bool:
        """Whether probes are sent at all."""
        return bool(self._settings.exchange)

    def on_broker_up(self) -> None:
        """Probes at once, and from now on every ``interval``."""
        if not self.enabled:
            return
        if self._subscribed:
            self._probe()
        else:
            self._subscribed = True
            self._hub.tap(self._settings.exchange, self._key, self._on_probe, self._on_subscribed)

    def on_broker_down(self, reason: str) -> None:
        """Reports the loss at once."""
        if self.enabled:
            self._cancel()
            self._report(False, reason)

    def stop(self) -> None:
        """Ends the probing."""
        self._cancel()

    def check(self) -> Check:
        """The probe's last result as a named check."""
        return Check("probe", bool(self.ok), self.detail)

    def _on_subscribed(self, failure: Failure | None) -> None:
        if failure is not None:
            self._subscribed = False
            self._report(False, failure.text)
        else:
            self._probe()

    def _probe(self) -> None:
        if not self._broker.up:
            return
        self._cancel()
        self._sent += 1
        self._sent_at = monotonic()
        milliseconds = max(1, int(self._settings.timeout * 1000))
        message = Message(self._settings.exchange, self._key, b"%d" % self._sent, expiration=str(milliseconds))
        self._arm(self._settings.timeout, self._on_timeout)
        self._broker.publish(message, self._on_published)

    def _on_published(self, failure: Failure | None) -> None:
        if failure is not None:
            self._report(False, failure.text)

    def _on_probe(self, message: Message) -> None:
        if message.body != b"%d" % self._sent or self._returned == self._sent:
            return
        self._returned = self._sent
        self.round_trip = monotonic() - self._sent_at
        self._arm(self._settings.interval, self._probe)
        self._report(True, f"probe came back in {self.round_trip * 1000:.1f} ms")

    def _on_timeout(self) -> None:
        self._arm(self._settings.interval, self._probe)
        self._report(False, f"the probe did not come back within {self._settings.timeout:g} s")

    def _report(self, ok: bool, detail: str) -> None:
        self.ok = ok
        self.detail = detail
        exchange = self._settings.exchange
        body = {
            "status": "SUCCESS" if ok else "FAIL",
            "message": f"HEALTH CHECK TO {exchange}" if ok else f"HEALTH CHECK TO {exchange} FAILED: {detail}",
        }
        self._hub.publish_internal(TOPIC, msgspec.json.encode(body), "application/json")

    def _arm(self, delay: float, callback: Callable[[], None]) -> None:
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, callback)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Health:
    """The answers to ``/livez`` and ``/readyz``, in the form that Kubernetes' own servers use."""

    def __init__(self, broker: Broker, probe: BrokerProbe, store: Callable[[], Check], lag: LoopLag) -> None:
        self._broker = broker
        self._probe = probe
        self._store = store
        self._lag = lag
        self.draining = False

    def checks(self) -> list[Check]:
        """All conditions of readiness."""
        worst = self._lag.worst()
        return [
            Check("broker", self._broker.up, self._broker.down_reason or "connected"),
            *([self._probe.check()] if self._probe.enabled else ()),
            self._store(),
            Check("drain", not self.draining, "stopping" if self.draining else "accepting"),
            Check("loop", worst < MAX_LAG, f"at most {worst * 1000:.0f} ms late in the last {KEPT:g} s"),
        ]

    def livez(self, query: str) -> tuple[int, str, bytes]:
        """200 while the event loop answers."""
        return 200, "text/plain; charset=utf-8", b"ok\n"

    def readyz(self, query: str) -> tuple[int, str, bytes]:
        """200 when clients can be served, else 503; ``?verbose`` lists the checks."""
        checks = self.checks()
        ready = all(check.ok for check in checks)
        lines = [
            f"[{'+' if check.ok else '-'}]{check.name} {'ok' if check.ok else 'failed'}: {check.detail}"
            for check in checks
        ]
        summary = "readyz check passed" if ready else "readyz check failed"
        verbose = "verbose" in query or not ready
        text = "\n".join([*lines, summary] if verbose else ["ok"]) + "\n"
        return (200 if ready else 503), "text/plain; charset=utf-8", text.encode()
