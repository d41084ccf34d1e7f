"""What the composition root builds the parts of a process from: the settings, cut to what each part needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stompbridge.brokers.base import Broker, LoginBroker, LoginRefused
from stompbridge.brokers.memory import MemoryBroker
from stompbridge.config import Dedup, Exchange, Settings
from stompbridge.dedup.store import StoreOptions
from stompbridge.histogram import Latency
from stompbridge.routing.users import EXCHANGE as USERS
from stompbridge.stomp.session import SessionSettings
from stompbridge.upstream import MakeRouter, Upstreams


def own_exchanges(settings: Settings) -> list[Exchange]:
    """The exchanges of ``/user`` and of the health check, which are declared with those of the configuration."""
    extra = [Exchange(name=USERS)]
    probe = settings.health.broker.exchange
    if probe and probe not in {exchange.name for exchange in settings.broker.exchange} and not probe.startswith("amq."):
        extra.append(Exchange(name=probe))
    return extra


def make_broker(settings: Settings, latency: Latency) -> Broker:
    """The broker that the configuration names; what it measures goes into ``latency``."""
    extra = own_exchanges(settings)
    if settings.broker.kind == "rabbitmq":
        from stompbridge.brokers.amqp import AmqpBroker  # the embedded broker needs none of it

        return AmqpBroker(settings.broker, settings.node, extra, latency=latency)
    return MemoryBroker(settings.broker, extra, latency)


def make_upstreams(settings: Settings, make_router: MakeRouter, latency: Latency) -> Upstreams:
    """The links to RabbitMQ under the clients' own logins."""
    from stompbridge.brokers.amqp import AmqpLoginBroker, Login

    extra = own_exchanges(settings)

    def make(login: str, passcode: str, virtual_host: str, on_refused: Callable[[LoginRefused], None]) -> LoginBroker:
        name = Login(login, passcode, virtual_host)
        return AmqpLoginBroker(settings.broker, settings.node, extra, name, on_refused, latency)

    now = asyncio.get_running_loop().time
    return Upstreams(settings.auth, settings.broker.connect_timeout, make, make_router, now)


def store_options(dedup: Dedup) -> StoreOptions:
    """What the deduplication store needs of the configuration."""
    return StoreOptions(
        window=dedup.window,
        history_ttl=dedup.history_ttl,
        lock_ttl=dedup.lock_ttl,
        idempotency_window=dedup.idempotency_window,
        url=dedup.redis_url,
    )


def session_settings(settings: Settings) -> SessionSettings:
    """What the STOMP layer needs of the configuration."""
    stomp, limits = settings.stomp, settings.limits
    return SessionSettings(
        send_floor_ms=int(stomp.heartbeat_send * 1000),
        receive_floor_ms=int(stomp.heartbeat_receive * 1000),
        close_on_error=stomp.close_on_error,
        max_frame=limits.frame,
        max_frame_before_connect=limits.frame_before_connect,
        max_headers=limits.headers,
        max_header_bytes=limits.header_bytes,
        max_subscriptions=limits.subscriptions,
        max_transactions=limits.transactions,
        max_transaction_frames=limits.transaction_frames,
        max_transaction_bytes=limits.transaction_bytes,
    )
