"""The composition root: builds the parts from the settings, starts them, waits, and stops them in order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_hex
from time import time

import structlog
from msgspec.structs import replace

from stompbridge import __version__, log
from stompbridge.admin.health import BrokerProbe, Check, Health
from stompbridge.admin.lag import LoopLag
from stompbridge.admin.recent import Recent
from stompbridge.admin.routes import routes
from stompbridge.admin.server import AdminServer
from stompbridge.auth.acl import Acl
from stompbridge.auth.factory import make_authenticator
from stompbridge.auth.rabbitmq import RabbitmqAuthenticator
from stompbridge.auth.throttle import Throttled
from stompbridge.brokers.base import Broker, Message
from stompbridge.composition import make_broker, make_upstreams, session_settings, store_options
from stompbridge.config import ConfigError, Settings
from stompbridge.dedup.store import make_store
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.frames import ws_frame
from stompbridge.gateway.gate import Idempotence
from stompbridge.gateway.listener import Gateway
from stompbridge.gateway.shared import SessionsOf, Shared
from stompbridge.gateway.sweep import Sweep
from stompbridge.gateway.traffic import Traffic
from stompbridge.histogram import Latency
from stompbridge.lifecycle import drain
from stompbridge.lifecycle.notify import Notifier
from stompbridge.lifecycle.process import adopt, calm_collector, raise_file_limit
from stompbridge.lifecycle.sockets import Passed, PassedSocketError, passed
from stompbridge.routing.application import Application
from stompbridge.routing.hub import Hub
from stompbridge.routing.once import Once
from stompbridge.routing.router import Router
from stompbridge.upstream import Upstreams

_log = structlog.get_logger("stompbridge")

STORE_SWEEP = 1.0
"""Seconds between two looks of the store at what has waited too long."""
STATUS_INTERVAL = 10.0
"""Seconds between two lines about its state to the service manager."""
ENDING = 15.0
"""Seconds for what comes after the last session, generously: confirms, connections to broker and store."""
HISTORY_SWEEP = 30.0
"""Seconds between two looks for senders' windows that can be forgotten."""


class Daemon:
    """One bridge process. Also the listener that spreads the broker's news to hub and probe."""

    def __init__(self, settings: Settings, sockets: Passed | None = None, notifier: Notifier | None = None) -> None:
        """``sockets`` were passed to the process; ``settings`` say where they listen."""
        self.settings = settings
        self.started_at = time()
        """In seconds since 1970."""
        self.stop_asked = asyncio.Event()
        """Set by :meth:`request_stop`."""
        self.notifier = notifier or Notifier({})
        self._passed = sockets or Passed()
        boot = token_hex(4)
        dedup = settings.dedup
        self.latency = Latency()
        self.traffic = Traffic()
        self.broker = make_broker(settings, self.latency)
        self.hub = Hub(self.broker, ws_frame, boot, dedup.window, dedup.history_ttl)
        self.store = make_store(dedup.store, store_options(dedup))
        hold = dedup.on_store_failure == "hold"
        self.once = Once(self.store, hold)
        self.idempotence = Idempotence(self.store, dedup.on_doubt == "drop", hold)
        application = Application(settings.app)

        def make_router(broker: Broker, hub: Hub, own: Router | None = None) -> Router:
            return Router(
                broker,
                hub,
                application,
                self.once,
                default_prefetch=settings.broker.queue_prefetch,
                window=dedup.window,
                history_ttl=dedup.history_ttl,
                own=own,
            )

        def make_login_router(broker: Broker) -> Router:
            hub = Hub(broker, ws_frame, boot, dedup.window, dedup.history_ttl)
            return make_router(broker, hub, self.router)

        self.router = make_router(self.broker, self.hub)
        self.upstreams: Upstreams | None = None
        self.authenticator = make_authenticator(settings)
        if settings.auth.backend == "rabbitmq":
            self.upstreams = make_upstreams(settings, make_login_router, self.latency)
            asking = RabbitmqAuthenticator(settings.auth, self.upstreams.check)
            self.authenticator = Throttled(asking, settings.auth.failures, settings.auth.failure_window)
        self.acl = Acl(settings.acl, self.broker.exchange_type)
        self.probe = BrokerProbe(settings.health.broker, self.broker, self.hub, f"probe.{settings.node}.{boot}")
        self.sweep = Sweep(asyncio.get_running_loop())
        self.lag = LoopLag(self.sweep.interval)
        self.sweep.add(self.lag.tick)
        self.health = Health(self.broker, self.probe, self._store_check, self.lag)
        self.gateway = Gateway(settings, self._accept, self.sweep, self._passed.listen)
        self.shared = Shared(
            settings=settings,
            session_settings=session_settings(settings),
            router=self.router,
            server=settings.stomp.server,
            in_flight_max=max(1, dedup.window // 4),
            now=asyncio.get_running_loop().time,
            sweep_interval=self.sweep.interval,
            idempotence=self.idempotence,
            sessions_of=SessionsOf(settings.limits.connections_per_user),
            traffic=self.traffic,
            authenticator=self.authenticator,
            permissions_of=self.acl.permissions,
            upstreams=self.upstreams,
        )
        self.recent = Recent()
        self.shared.on_closed = self.recent.add
        self.admin = AdminServer(settings.admin, routes(self))
        self._drain: drain.Drain | None = None
        self._drain_seconds: float | None = None
        self._next_status = 0.0
        self._next_history_sweep = 0.0
        self._next_store_sweep = 0.0
        self.sweep.add(self._sweep_memory)
        if self.upstreams is not None:
            self.sweep.add(self.upstreams.sweep)

    async def start(self) -> None:
        """Begins to listen. A broker that can not be reached does not keep the daemon from starting."""
        self.store.on_change = self._on_store_change
        await self.store.start()
        if self.authenticator is not None:
            await self.authenticator.start()
        await self.broker.start(self)
        addresses = await self.gateway.start()
        path = self.settings.listen.path
        scheme = "wss" if self.settings.listen.tls_cert else "ws"
        urls = [f"{scheme}://{_address(host, port)}{path}" for host, port in addresses]
        admin = ""
        if self.settings.admin.enabled:
            opened = await self.admin.start(self._passed.admin)
            admin = " ".join(f"http://{_address(host, port)}" for host, port in opened)
        self.sweep.start()
        _log.info(
            "listening",
            url=" ".join(urls),
            admin=admin or "off",
            broker=self.settings.broker.kind,
            node=self.settings.node,
            version=__version__,
        )

    def reload(self, settings: Settings) -> None:
        """Takes over access rules, limits, the log level and the pace of the drain from ``settings``, and reads users,
        certificate and key anew; all of them or, raising :class:`ValueError`, none. Sessions stay, and what they may do
        changes at once."""
        acl = Acl(settings.acl, self.broker.exchange_type)
        certificate = self.gateway.read_certificate()
        if self.authenticator is not None:
            self.authenticator.reload()
        self.gateway.use_certificate(certificate)
        self.acl = acl
        level = replace(self.settings.log, level=settings.log.level)
        log.configure(level)
        now = self.settings = replace(
            self.settings,
            acl=settings.acl,
            log=level,
            limits=settings.limits,
            drain_time=settings.drain_time,
            shutdown_timeout=settings.shutdown_timeout,
        )
        shared = self.shared
        shared.permissions_of = acl.permissions
        shared.settings = now
        shared.session_settings = session_settings(now)
        shared.sessions_of.limit = now.limits.connections_per_user
        self.gateway.use_limits(now.limits)
        raise_file_limit(now.limits.connections)
        for client in self.gateway.listeners():
            assert isinstance(client, Client)
            client.refresh_permissions()
            client.refresh_limits()
        later = [name for name in settings.__struct_fields__ if getattr(settings, name) != getattr(now, name)]
        _log.info("reloaded", needs_restart=",".join(later) or None)

    @property
    def draining(self) -> bool:
        """Whether the process is about to stop."""
        return self.stop_asked.is_set()

    def request_stop(self, seconds: float | None = None) -> float:
        """Begins to drain, as SIGTERM does; returns over how many seconds the sessions are closed. Without ``seconds``
        that is what the configuration says, less where there are few. A second call can only make it faster."""
        if seconds is None:
            seconds = drain.spread(self.gateway.connections_open, self.settings.drain_time)
            if self._drain is not None:
                self._drain.hurry(seconds)
        elif self._drain is not None:
            self._drain.hurry(seconds)
        else:
            self._drain_seconds = seconds
        self.health.draining = True
        self.stop_asked.set()
        return seconds

    async def stop(self) -> None:
        """Tells the clients to come back elsewhere, settles what is in flight, and ends."""
        self.request_stop()
        await self.gateway.stop_accepting()
        limit = self.settings.shutdown_timeout
        sessions, at_once = self.gateway.connections_open, 0
        seconds = self._drain_seconds
        if seconds is None:
            seconds, at_once = drain.spread(sessions, self.settings.drain_time), drain.AT_ONCE
        _log.info("draining", sessions=sessions, seconds=seconds)
        stop_by = self.gateway.loop.time() + seconds + limit + ENDING
        self.notifier.stopping(_draining(sessions), seconds + limit + ENDING)

        def on_progress(left: int) -> None:
            _log.info("draining", sessions=left)
            self.notifier.still_stopping(_draining(left), stop_by - self.gateway.loop.time())

        self._drain = drain.Drain(self.gateway, limit / 2, on_progress)
        await self._drain.run(seconds, at_once)
        await self.gateway.close_all(CloseReason.SHUTDOWN, limit)
        self.sweep.stop()
        self.probe.stop()
        if self.authenticator is not None:
            await self.authenticator.stop()
        if self.upstreams is not None:
            await self.upstreams.stop()
        await self.broker.stop()
        await self.store.stop()
        await self.admin.stop()
        closed = {reason.label: count for reason, count in self.gateway.closed.items() if count}
        _log.info("stopped", seconds=round(time() - self.started_at, 1), **closed)

    def on_mailbox_messages(self, exchange: str, messages: Sequence[Message]) -> None:
        """From the broker to the local subscriptions."""
        self.hub.on_mailbox_messages(exchange, messages)

    def on_broker_up(self) -> None:
        """The broker can be used."""
        self.probe.on_broker_up()

    def on_broker_down(self, reason: str) -> None:
        """The broker is out of reach; clients stay."""
        self.probe.on_broker_down(reason)

    def _accept(self, connection: Connection) -> Client:
        return Client(connection, self.shared)

    def _sweep_memory(self, now: float) -> None:
        if now >= self._next_store_sweep:
            self._next_store_sweep = now + STORE_SWEEP
            self.store.sweep()
        if now >= self._next_history_sweep:
            self._next_history_sweep = now + HISTORY_SWEEP
            self.router.sweep(now)
        if now >= self._next_status and not self.draining:
            self._next_status = now + STATUS_INTERVAL
            self.notifier.status(self.status_line())

    def status_line(self) -> str:
        """How it does, for people."""
        broker = "broker up" if self.broker.up else f"broker down: {self.broker.down_reason}"
        return f"{self.gateway.connections_open} connections, {broker}"

    def _store_check(self) -> Check:
        """Without the store the process is of use only if it may deliver without asking."""
        dedup = self.settings.dedup
        if self.store.available:
            return Check("store", True, dedup.store)
        bypassed = self.idempotence.bypassed + self.once.bypassed
        detail = f"{dedup.store} is out of reach; {dedup.on_store_failure}; {bypassed} messages without its word"
        return Check("store", dedup.on_store_failure == "deliver", detail)

    @staticmethod
    def _on_store_change(available: bool, reason: str) -> None:
        if available:
            _log.info("store_up")
        else:
            _log.warning("store_down", reason=reason)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _draining(sessions: int) -> str:
    return f"draining, {sessions} connections left"


async def serve(
    settings: Settings, load: Callable[[], Settings], sockets: Passed | None = None, notifier: Notifier | None = None
) -> int:
    """Runs until SIGTERM or SIGINT; a second of them ends at once. SIGHUP reloads, with what ``load`` makes of the
    configuration then. Returns the exit code."""
    loop = asyncio.get_running_loop()
    notifier = notifier or Notifier({})
    asked = asyncio.Event()
    forced = asyncio.Event()
    daemon: Daemon | None = None

    def on_signal() -> None:
        (forced if asked.is_set() else asked).set()
        if daemon is not None:
            daemon.request_stop()

    def on_reload() -> None:
        if daemon is None or daemon.draining:
            return
        notifier.reloading()
        try:
            daemon.reload(load())
        except (ConfigError, ValueError) as error:
            _log.error("not_reloaded", error=str(error))
            notifier.ready(f"not reloaded: {error}")
        else:
            notifier.ready(daemon.status_line())

    # From now on: before its handler is there, a signal ends the process.
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_reload)
    try:
        starting = Daemon(settings, sockets, notifier)
        await starting.start()
    except (OSError, ValueError) as error:
        _log.error("cannot_start", error=str(error))
        notifier.status(f"cannot start: {error}")
        return 1
    daemon = starting
    if asked.is_set():
        daemon.request_stop()
    notifier.ready(daemon.status_line())
    notifier.start_watchdog()
    await daemon.stop_asked.wait()
    stopping = loop.create_task(daemon.stop())
    force = loop.create_task(forced.wait())
    await asyncio.wait({stopping, force}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, force):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    notifier.stop_watchdog()
    return 0


def run(settings: Settings, load: Callable[[], Settings]) -> int:
    """Runs the daemon on uvloop; ``load`` reads the settings anew. Exit codes: 0 stopped as asked, 1 not started,
    2 passed sockets that the configuration does not allow."""
    import uvloop

    log.configure(settings.log)
    notifier = Notifier(os.environ)
    try:
        sockets = passed(os.environ)
        settings = adopt(settings, sockets)
    except (ConfigError, PassedSocketError) as error:
        _log.error("cannot_start", error=str(error))
        notifier.status(f"cannot start: {error}")
        return 2
    raise_file_limit(settings.limits.connections)
    calm_collector()
    return uvloop.run(serve(settings, load, sockets, notifier))
