"""The composition root: builds the parts from the settings, starts them, waits, and stops them in order."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_hex

import structlog
from msgspec.structs import replace

from stompbridge import __version__, log
from stompbridge.admin.health import BrokerProbe, Check, Health
from stompbridge.admin.server import AdminServer
from stompbridge.auth.acl import Acl
from stompbridge.auth.factory import make_authenticator
from stompbridge.auth.rabbitmq import RabbitmqAuthenticator
from stompbridge.auth.throttle import Throttled
from stompbridge.brokers.base import Broker, LoginBroker, LoginRefused, Message
from stompbridge.brokers.memory import MemoryBroker
from stompbridge.config import ConfigError, Dedup, Exchange, Settings
from stompbridge.dedup.store import StoreOptions, make_store
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.frames import ws_frame
from stompbridge.gateway.gate import Idempotence
from stompbridge.gateway.listener import Gateway
from stompbridge.gateway.shared import SessionsOf, Shared
from stompbridge.gateway.sweep import Sweep
from stompbridge.routing.application import Application
from stompbridge.routing.hub import Hub
from stompbridge.routing.once import Once
from stompbridge.routing.router import Router
from stompbridge.routing.users import EXCHANGE as USERS
from stompbridge.stomp.session import SessionSettings
from stompbridge.upstream import MakeRouter, Upstreams

_log = structlog.get_logger("stompbridge")

STORE_SWEEP = 1.0
"""Seconds between two looks of the store at what has waited too long."""
FILES_BESIDE_SOCKETS = 256
"""Files that the process needs besides its clients' sockets, generously."""
HISTORY_SWEEP = 30.0
"""Seconds between two looks for senders' windows that can be forgotten."""


def own_exchanges(settings: Settings) -> list[Exchange]:
    """The exchanges of ``/user`` and of the health check, which are declared with those of the configuration."""
    extra = [Exchange(name=USERS)]
    probe = settings.health.broker.exchange
    if probe and probe not in {exchange.name for exchange in settings.broker.exchange} and not probe.startswith("amq."):
        extra.append(Exchange(name=probe))
    return extra


def make_broker(settings: Settings) -> Broker:
    """The broker that the configuration names."""
    extra = own_exchanges(settings)
    if settings.broker.kind == "rabbitmq":
        from stompbridge.brokers.amqp import AmqpBroker  # the embedded broker needs none of it

        return AmqpBroker(settings.broker, settings.node, extra)
    return MemoryBroker(settings.broker, extra)


def make_upstreams(settings: Settings, make_router: MakeRouter) -> Upstreams:
    """The links to RabbitMQ under the clients' own logins."""
    from stompbridge.brokers.amqp import AmqpLoginBroker, Login

    extra = own_exchanges(settings)

    def make(login: str, passcode: str, virtual_host: str, on_refused: Callable[[LoginRefused], None]) -> LoginBroker:
        return AmqpLoginBroker(settings.broker, settings.node, extra, Login(login, passcode, virtual_host), on_refused)

    now = asyncio.get_running_loop().time
    return Upstreams(settings.auth, settings.broker.connect_timeout, make, make_router, now)


class Daemon:
    """One bridge process. Also the listener that spreads the broker's news to hub and probe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        boot = token_hex(4)
        dedup = settings.dedup
        self.broker = make_broker(settings)
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
            self.upstreams = make_upstreams(settings, make_login_router)
            asking = RabbitmqAuthenticator(settings.auth, self.upstreams.check)
            self.authenticator = Throttled(asking, settings.auth.failures, settings.auth.failure_window)
        self.acl = Acl(settings.acl, self.broker.exchange_type)
        self.probe = BrokerProbe(settings.health.broker, self.broker, self.hub, f"probe.{settings.node}.{boot}")
        self.health = Health(self.broker, self.probe, self._store_check)
        self.admin = AdminServer(settings.admin, {"/livez": self.health.livez, "/readyz": self.health.readyz})
        self.sweep = Sweep(asyncio.get_running_loop())
        self.gateway = Gateway(settings, self._accept, self.sweep)
        self._shared = Shared(
            settings=settings,
            session_settings=session_settings(settings),
            router=self.router,
            server=settings.stomp.server,
            in_flight_max=max(1, dedup.window // 4),
            now=asyncio.get_running_loop().time,
            sweep_interval=self.sweep.interval,
            idempotence=self.idempotence,
            sessions_of=SessionsOf(settings.limits.connections_per_user),
            authenticator=self.authenticator,
            permissions_of=self.acl.permissions,
            upstreams=self.upstreams,
        )
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
            admin = " ".join(f"http://{_address(host, port)}" for host, port in await self.admin.start())
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
        """Takes over access rules and the log level of ``settings``, and reads users, certificate and key anew; all of
        them or, raising :class:`ValueError`, none. Sessions stay, and what they may do changes at once."""
        acl = Acl(settings.acl, self.broker.exchange_type)
        certificate = self.gateway.read_certificate()
        if self.authenticator is not None:
            self.authenticator.reload()
        self.gateway.use_certificate(certificate)
        self.acl = acl
        self._shared.permissions_of = acl.permissions
        for client in self.gateway.listeners():
            assert isinstance(client, Client)
            client.refresh_permissions()
        level = replace(self.settings.log, level=settings.log.level)
        log.configure(level)
        now = self.settings = replace(self.settings, acl=settings.acl, log=level)
        later = [name for name in settings.__struct_fields__ if getattr(settings, name) != getattr(now, name)]
        _log.info("reloaded", needs_restart=",".join(later) or None)

    async def stop(self) -> None:
        """Tells the clients to come back elsewhere, settles what is in flight, and ends."""
        self.health.draining = True
        _log.info("stopping", sessions=self.gateway.connections_open)
        self.gateway.stop_accepting()
        await self.gateway.close_all(CloseReason.SHUTDOWN, self.settings.shutdown_timeout)
        self.sweep.stop()
        self.probe.stop()
        if self.authenticator is not None:
            await self.authenticator.stop()
        if self.upstreams is not None:
            await self.upstreams.stop()
        await self.broker.stop()
        await self.store.stop()
        await self.admin.stop()
        _log.info("stopped")

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
        return Client(connection, self._shared)

    def _sweep_memory(self, now: float) -> None:
        if now >= self._next_store_sweep:
            self._next_store_sweep = now + STORE_SWEEP
            self.store.sweep()
        if now >= self._next_history_sweep:
            self._next_history_sweep = now + HISTORY_SWEEP
            self.router.sweep(now)

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


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def raise_file_limit(connections: int) -> None:
    """Lets the process open as many files as it may have sockets, as far as it is allowed to. The limit that most
    shells and containers give, 1024, is there for programs that use ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES_BESIDE_SOCKETS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _log.info("few_files", allowed=hard, wanted=wanted, remedy="ulimit -n, LimitNOFILE or limits.connections")
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(settings: Settings, load: Callable[[], Settings]) -> int:
    """Runs until SIGTERM or SIGINT; a second signal ends at once. SIGHUP reloads, with what ``load`` makes of the
    configuration then. Returns the exit code."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    forced = asyncio.Event()

    def on_signal() -> None:
        (forced if asked.is_set() else asked).set()

    def on_reload() -> None:
        try:
            if daemon is not None:
                daemon.reload(load())
        except (ConfigError, ValueError) as error:
            _log.error("not_reloaded", error=str(error))

    # From now on: before its handler is there, a signal ends the process.
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_reload)
    daemon: Daemon | None = None
    try:
        starting = Daemon(settings)
        await starting.start()
    except (OSError, ValueError) as error:
        _log.error("cannot_start", error=str(error))
        return 1
    daemon = starting
    await asked.wait()
    stopping = loop.create_task(daemon.stop())
    force = loop.create_task(forced.wait())
    await asyncio.wait({stopping, force}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, force):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return 0


def run(settings: Settings, load: Callable[[], Settings]) -> int:
    """Runs the daemon on uvloop; ``load`` reads the settings anew. Exit codes: 0 stopped as asked, 1 not started."""
    import uvloop

    log.configure(settings.log)
    raise_file_limit(settings.limits.connections)
    return uvloop.run(serve(settings, load))
