"""What operators are shown, made when they ask. Durations are seconds, times seconds since 1970."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from msgspec import Struct

from stompbridge import __version__, log
from stompbridge.admin.daemon_view import DaemonView
from stompbridge.gateway.client import Client
from stompbridge.gateway.traffic import Sums, add_up
from stompbridge.histogram import Histogram

T = TypeVar("T")

Sort = Literal["age", "bytes", "unacked", "subscriptions"]

SLICE = 1000
"""Objects that are looked at in one turn of the loop."""
SHOWN_SUBSCRIPTIONS = 5
"""Subscriptions of each session in a list."""
COUNTED_UNACKED = 100
"""In a list, what a session holds is told apart by subscription up to so many messages."""


class SubscriptionView(Struct, frozen=True, kw_only=True):
    id: str | None
    destination: str
    ack: str
    prefetch: int | None
    """``None``: any number."""
    unacked: int | None
    """``None`` in a list where the session holds many."""


class SessionView(Struct, frozen=True, kw_only=True):
    id: str
    user: str | None
    """``None`` where nobody authenticates."""
    client_id: str | None
    address: str
    """``ip:port``."""
    node: str
    connected_at: float
    age: float
    version: str | None
    """STOMP's; ``None`` before CONNECTED."""
    heartbeat: str | None
    """Milliseconds of the server's and the client's, as CONNECTED says them."""
    protocol: str | None
    """The WebSocket sub-protocol."""
    subscriptions: list[SubscriptionView]
    subscription_count: int
    unacked: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    unsent: int
    """Bytes that the client has not read yet."""
    state: Literal["connecting", "open", "held"]
    """``held``: a frame waits, for the broker as a rule, and all behind it."""


def session_view(client: Client, node: str, whole: bool) -> SessionView:
    """One session. In a list (not ``whole``) some of its subscriptions are left out."""
    session, connection = client.session, client.connection
    age = client.shared.now() - client.opened_at
    unacked: dict[str, int] | None = None
    if whole or len(session.unacked) <= COUNTED_UNACKED:
        unacked = {}
        for delivery in session.unacked.values():
            tag = delivery.subscription.tag
            unacked[tag] = unacked.get(tag, 0) + 1
    receivers = client.receivers
    shown = receivers if whole else islice(receivers, SHOWN_SUBSCRIPTIONS)
    return SessionView(
        id=client.sender_id,
        user=None if client.identity is None else client.user,
        client_id=client.client_id,
        address=connection.remote,
        node=node,
        connected_at=time.time() - age,
        age=age,
        version=session.version.value if client.accepted else None,
        heartbeat=session.heartbeat.header if client.accepted else None,
        protocol=connection.subprotocol,
        subscriptions=[
            SubscriptionView(
                id=receiver.subscription.id,
                destination=receiver.subscription.destination,
                ack=receiver.subscription.ack.value,
                prefetch=receiver.prefetch,
                unacked=None if unacked is None else unacked.get(receiver.subscription.tag, 0),
            )
            for receiver in shown
        ],
        subscription_count=len(receivers),
        unacked=len(session.unacked),
        messages_in=client.messages_in,
        messages_out=client.messages_out,
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
        unsent=connection.unsent,
        state="connecting" if not client.accepted else "held" if client.held else "open",
    )


def clients(daemon: DaemonView) -> list[Client]:
    """Those behind the open WebSockets."""
    return [client for client in daemon.gateway.listeners() if isinstance(client, Client)]


_KEYS: Mapping[str, Callable[[Client], float]] = {
    "age": lambda client: -client.opened_at,
    "bytes": lambda client: client.connection.bytes_in + client.connection.bytes_out,
    "unacked": lambda client: len(client.session.unacked),
    "subscriptions": lambda client: len(client.receivers),
}
SORTS = tuple(_KEYS)
"""What a list of sessions can be sorted by; the most of it comes first."""


async def slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """All of ``items``, a slice for each turn of the loop, so that others have theirs however many there are."""
    for start in range(0, len(items), SLICE):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + SLICE]


async def session_list(daemon: DaemonView, search: str, sort: str, limit: int) -> dict[str, object]:
    """The sessions that match ``search``, those that have most of ``sort`` first."""
    everyone = clients(daemon)
    wanted = search.casefold()
    matched = 0
    first: list[Client] = []
    async for some in slices(everyone):
        found = [client for client in some if _matches(client, wanted)] if wanted else some
        matched += len(found)
        first = nlargest(limit, [*first, *found], key=_KEYS[sort])
    node = daemon.settings.node
    return {
        "total": len(everyone),
        "matched": matched,
        "sessions": [session_view(client, node, whole=False) for client in first],
    }


def _matches(client: Client, wanted: str) -> bool:
    texts = (
        client.sender_id,
        "" if client.identity is None else client.user,
        client.connection.remote,
        client.client_id or "",
    )
    return any(wanted in text.casefold() for text in texts) or any(
        wanted in receiver.subscription.destination.casefold() for receiver in client.receivers
    )


async def status(daemon: DaemonView) -> dict[str, object]:
    """How the process is, and what it has done since its start."""
    settings, gateway, traffic, lag = daemon.settings, daemon.gateway, daemon.traffic, daemon.lag
    checks = daemon.health.checks()
    sums = await add_up(gateway, traffic)
    now = time.time()
    return {
        "version": __version__,
        "node": settings.node,
        "pid": os.getpid(),
        "started_at": daemon.started_at,
        "uptime": now - daemon.started_at,
        "now": now,
        "ready": all(check.ok for check in checks),
        "draining": daemon.draining,
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        "broker": _broker(daemon),
        "store": {
            "kind": settings.dedup.store,
            "available": daemon.store.available,
            "bypassed": daemon.idempotence.bypassed + daemon.once.bypassed,
            "in_doubt": daemon.idempotence.in_doubt,
        },
        "sessions": {
            "open": len(traffic.sessions),
            "sockets": gateway.connections_open,
            "total": traffic.sessions_total,
            "closed": {reason.label: count for reason, count in gateway.closed.items()},
        },
        "frames": {"in": traffic.frames_in, "out": traffic.frames_out(sums)},
        "bytes": {"in": sums.bytes_in, "out": sums.bytes_out},
        "messages": _messages(daemon, sums),
        "latency": {"publish": _quantiles(daemon.latency.publish), "delivery": _quantiles(daemon.latency.delivery)},
        "loop": {"lag": lag.lag, "lag_max_10s": lag.worst()},
        "memory": {"rss": _resident()},
        "limits": {"connections": settings.limits.connections},
        "log_level": log.level(),
    }


def _broker(daemon: DaemonView) -> dict[str, object]:
    broker = daemon.broker
    gauges = broker.gauges()
    return {
        "kind": daemon.settings.broker.kind,
        "up": broker.up,
        "detail": broker.down_reason or "connected",
        "reconnects": broker.counters().get("reconnects", 0),
        "outbox": gauges.get("held", 0),
        "unconfirmed": gauges.get("unconfirmed", 0),
    }


def _messages(daemon: DaemonView, sums: Sums) -> dict[str, int]:
    total = Counter(daemon.router.counters())
    if daemon.upstreams is not None:
        total.update(daemon.upstreams.counters())
    idempotence = daemon.idempotence
    return {
        "in": sums.messages_in,
        "out": sums.messages_out,
        "suppressed": total["mailbox_suppressed"]
        + total["queue_suppressed"]
        + idempotence.suppressed
        + daemon.once.repeated,
        "in_doubt": total["mailbox_in_doubt"] + total["queue_in_doubt"] + idempotence.in_doubt,
    }


def _quantiles(histogram: Histogram) -> dict[str, object]:
    """The quantiles are ``None`` where nothing was measured yet. ``buckets`` are pairs of an upper end (``null`` in the
    last) and how many were not above it: what two answers differ by is the distribution between them."""
    return {
        "p50": histogram.quantile(0.5),
        "p99": histogram.quantile(0.99),
        "count": histogram.count,
        "buckets": list(histogram.cumulative()),
    }


def _resident() -> int:
    """The process's memory in bytes; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
