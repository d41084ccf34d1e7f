"""The daemon at the moment of a measurement, and what is added up once for all measures."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from stompbridge import __version__
from stompbridge.admin import kernel
from stompbridge.admin.daemon_view import DaemonView
from stompbridge.admin.health import BrokerProbe
from stompbridge.auth.base import Authenticator
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.traffic import Sums
from stompbridge.upstream import Upstreams


class Measured(DaemonView, Protocol):
    """The parts of the daemon that are measured, beside those of :class:`.DaemonView`."""

    @property
    def probe(self) -> BrokerProbe: ...

    @property
    def authenticator(self) -> Authenticator | None: ...


class Snapshot:
    """``total`` and ``now`` are by the names of ``counters`` and ``gauges``, and cover the bridge's own link to the
    broker and those under clients' logins; ``sums`` are those of all clients."""

    def __init__(self, daemon: Measured, sums: Sums) -> None:
        self.daemon = daemon
        self.sums = sums
        self.kernel = kernel.read()
        self.settings = daemon.settings
        self.traffic = daemon.traffic
        self.gateway = daemon.gateway
        self.store = daemon.store
        self.own = daemon.broker.counters()
        """Of the bridge's own link alone."""
        self.total = Counter(self.own)
        self.total.update(daemon.router.counters())
        self.now = Counter(daemon.broker.gauges())
        links = daemon.upstreams
        if links is not None:
            self.total.update(links.counters())
            self.now.update(links.gauges())
        self.auth: Mapping[str, int] = {} if daemon.authenticator is None else daemon.authenticator.counters()

    @property
    def rabbitmq(self) -> bool:
        """Whether the broker is RabbitMQ, not the embedded one."""
        return self.settings.broker.kind == "rabbitmq"

    def closed(self, *reasons: CloseReason) -> int:
        """Sockets that ended for one of these reasons."""
        return sum(self.gateway.closed[reason] for reason in reasons)

    def build(self) -> dict[tuple[str, ...], int]:
        """Versions of the program and of Python, and the node's name."""
        return {(__version__, platform.python_version(), self.settings.node): 1}

    def frames(self) -> dict[tuple[str, ...], int]:
        """STOMP frames by direction and command."""
        ways = {"in": self.traffic.frames_in, "out": self.traffic.frames_out(self.sums)}
        return {(way, command): count for way, frames in ways.items() for command, count in frames.items()}

    def checks(self) -> dict[str, int]:
        """The conditions of readiness."""
        return {check.name: int(check.ok) for check in self.daemon.health.checks()}

    def if_rabbitmq(self, name: str) -> int | None:
        """A total that the embedded broker has not."""
        return self.total[name] if self.rabbitmq else None

    def if_rabbitmq_now(self, name: str) -> int | None:
        """What there is now, where the broker is RabbitMQ."""
        return self.now[name] if self.rabbitmq else None

    def if_embedded(self, name: str) -> int | None:
        """A total of the embedded broker."""
        return None if self.rabbitmq else self.total[name]

    def results(self) -> dict[str, int]:
        """What became of messages that were to be published."""
        names = {"confirmed": "confirmed", "nacked": "rejected"}
        if self.rabbitmq:
            names |= {name: name for name in ("returned", "refused", "expired", "overflowed")}
        return {shown: self.total[name] for name, shown in names.items()}

    def suppressed(self) -> dict[str, int]:
        """Duplicates, by what recognised them."""
        return {
            "mailbox": self.total["mailbox_suppressed"],
            "queue": self.total["queue_suppressed"],
            "receiver": self.daemon.idempotence.suppressed,
            "sender": self.daemon.once.repeated,
        }

    def in_doubt(self) -> dict[str, int]:
        """Deliveries in doubt, by what could not tell."""
        return {
            "mailbox": self.total["mailbox_in_doubt"],
            "queue": self.total["queue_in_doubt"],
            "receiver": self.daemon.idempotence.in_doubt,
        }

    def logins(self) -> dict[str, int] | None:
        """CONNECTs, by what became of the login, where somebody asks for one."""
        return None if self.daemon.authenticator is None else self.traffic.logins

    def link(self, read: Callable[[Upstreams], int]) -> int | None:
        """Something of the links under clients' logins, where there are any."""
        links = self.daemon.upstreams
        return None if links is None else read(links)

    def system(self, read: Callable[[kernel.Kernel], float]) -> float | None:
        """Something that the operating system knows, if it tells."""
        return None if self.kernel is None else read(self.kernel)

    def authentication(self, **names: str) -> dict[str, int]:
        """Counters of the authentication by the value of a label; without those that it has not."""
        return {value: self.auth[name] for value, name in names.items() if name in self.auth}
