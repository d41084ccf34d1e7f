"""The RabbitMQ broker: puts the parts together and keeps a link up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import unquote, urlsplit

import structlog

from ...config import BrokerSettings, Exchange
from ...histogram import Latency
from ..base import (
    BrokerListener,
    Done,
    Failure,
    LoginRefused,
    Message,
    QueueConsumer,
    QueueListener,
    QueueSpec,
    Unreachable,
)
from . import methods, topology
from .backoff import Backoff
from .channel import Channel, ChannelClosed, LinkLost
from .consumers import Consumers
from .declared import Declared
from .exchanges import Exchanges
from .link import Link
from .login import Login
from .mailboxes import Mailboxes
from .outage import Outage
from .publisher import Publisher
from .tasks import Tasks
from .topology import TopologyError
from .wire import WireError

TICK = 0.25
"""Seconds between two looks at what has waited too long."""
STALL = 2.0
"""Seconds without a tick after which this process, not the broker, was away."""
FLUSH_TIMEOUT = 5.0
CLOSE_TIMEOUT = 3.0

_log = structlog.get_logger(__name__)


class AmqpBroker:
    """:class:`stompbridge.brokers.base.Broker` over AMQP 0-9-1.

    ``node`` is this process's name in queue and connection names; ``extra_exchanges`` are declared along with those of
    the configuration, which win where both name one. A ``login`` takes the place of the
    credentials and the virtual host in ``settings``; what it measures goes into ``latency``.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        node: str,
        extra_exchanges: Iterable[Exchange] = (),
        login: Login | None = None,
        latency: Latency | None = None,
    ) -> None:
        self.reconnects = 0
        self._latency = Latency() if latency is None else latency
        self._settings = settings
        self._node = node
        self._login = login
        home = unquote(urlsplit(settings.urls[0]).path[1:]) or "/"
        self.virtual_host = home if login is None else login.virtual_host
        # What other virtual hosts have under these names is not known.
        declared = (*extra_exchanges, *settings.exchange) if self.virtual_host == home else ()
        self._declared = Declared(declared, each_key=login is not None)
        self._listener: BrokerListener | None = None
        self._link: Link | None = None
        self._backoff = Backoff(settings.reconnect_max)
        self._told_down = False
        self._supervisor: asyncio.Task[None] | None = None
        # What outlives links, and what concerns the present one only.
        self._kept = Tasks(self._guarded)
        self._spawned = Tasks(self._guarded)
        self._timer: asyncio.TimerHandle | None = None
        self._last_tick = 0.0
        self._blocked: str | None = None
        self._clear: list[Callable[[], None]] = []
        wait = settings.when_down == "wait"
        self._outage = Outage(settings.outage_grace, wait)
        self._exchanges = Exchanges(time.monotonic)
        self._publisher = Publisher(
            max_messages=settings.outbox_max_messages,
            max_bytes=settings.outbox_max_bytes,
            grace=settings.outage_grace,
            wait_when_down=wait,
            exchanges=self._exchanges,
            check=self._check_exchange,
            reopen=self._reopen_publisher,
            on_change=self._flow_changed,
            clock=time.monotonic,
            latency=self._latency.publish,
        )
        self._publisher.user = unquote(urlsplit(settings.urls[0]).username or "guest") if login is None else login.user
        self._mailboxes = Mailboxes(
            settings, self._mailbox_prefix(), self._declared.mailbox, self._spawned.run, time.monotonic
        )
        self._consumers = Consumers(self._outage, self._spawned.run, self._kept.run)

    @property
    def up(self) -> bool:
        return self._outage.link is not None

    @property
    def down_reason(self) -> str:
        return self._outage.reason

    @property
    def user(self) -> str | None:
        return self._publisher.user

    @property
    def congested(self) -> bool:
        link = self._link
        return self._publisher.congested or (link is not None and link.congested)

    def when_clear(self, callback: Callable[[], None]) -> None:
        self._clear.append(callback)
        self._flow_changed()

    async def start(self, listener: BrokerListener) -> None:
        self._listener = self._mailboxes.listener = listener
        self._last_tick = time.monotonic()
        self._tick()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        if self._supervisor is None:
            return
        if self.up:
            await self._flush()
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)
        self._supervisor = None
        if self._timer is not None:
            self._timer.cancel()
        self._outage.stop()
        if self._link is not None:
            link = self._link
            with contextlib.suppress(LinkLost, ChannelClosed, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._mailboxes.delete_all(link)
            self._release(self._outage.reason)
            await link.close(CLOSE_TIMEOUT)
        self._publisher.stop(self._outage.reason)
        self._mailboxes.stop(self._outage.reason)
        await self._kept.ended()
        await self._spawned.ended()

    async def _flush(self) -> None:
        """Waits, within ``FLUSH_TIMEOUT``, for the confirms of what was published."""
        empty = asyncio.Event()
        self._publisher.on_empty = empty.set
        if self._publisher.held:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_TIMEOUT):
                    await empty.wait()
        self._publisher.on_empty = None

    def exchange_type(self, exchange: str) -> str | None:
        return self._declared.type_of(exchange)

    def publish(self, message: Message, done: Done) -> None:
        self._publisher.publish(message, done)

    def declare_queue(self, spec: QueueSpec, done: Done) -> None:
        self._consumers.declare(spec, done)

    def delete_queue(self, spec: QueueSpec, done: Done) -> None:
        self._consumers.delete(spec, done)

    def bind(self, exchange: str, key: str, done: Done) -> None:
        self._mailboxes.bind(exchange, key, done)

    def unbind(self, exchange: str, key: str) -> None:
        self._mailboxes.unbind(exchange, key)

    def consume(
        self, spec: QueueSpec, prefetch: int, listener: QueueListener, done: Callable[[QueueConsumer | Failure], None]
    ) -> QueueConsumer:
        return self._consumers.consume(spec, prefetch, listener, done)

    def counters(self) -> dict[str, int]:
        """Totals since the start."""
        publisher, mailboxes, consumers = self._publisher, self._mailboxes, self._consumers
        return {
            "published": publisher.published,
            "republished": publisher.republished,
            "confirmed": publisher.confirmed,
            "nacked": publisher.nacked,
            "returned": publisher.returned,
            "refused": publisher.refused,
            "expired": publisher.expired,
            "overflowed": publisher.overflowed,
            "mailbox_delivered": mailboxes.delivered,
            "mailboxes_lost": mailboxes.lost,
            "binds": mailboxes.bindings.binds,
            "unbinds": mailboxes.bindings.unbinds,
            "bind_storms": mailboxes.bindings.storms,
            "queue_delivered": consumers.delivered,
            "consumers_restored": consumers.restored,
            "reconnects": self.reconnects,
        }

    def gauges(self) -> dict[str, int]:
        """What there is now: ``held`` messages wait for the broker or for its confirm, ``unconfirmed`` ones of them are
        on their way; ``blocked`` is 1 while the broker wants none."""
        return {
            "held": self._publisher.held,
            "held_bytes": self._publisher.held_bytes,
            "unconfirmed": self._publisher.unconfirmed,
            "blocked": int(self._blocked is not None),
            "bindings": self._mailboxes.keys,
            "consumers": len(self._consumers),
        }

    def _mailbox_prefix(self) -> str:
        """What the names of this process's mailboxes begin with."""
        return f"stompbridge.{self._node}.{secrets.token_hex(4)}"

    async def _prepare(self, link: Link) -> None:
        """Has what the configuration asks for."""
        await topology.declare(link, self._declared)
        self._exchanges.declared(exchange.name for exchange in self._declared)
        for exchange in self._declared:
            if exchange.type == "topic" and exchange.bind == "all":
                self._mailboxes.ensure(exchange.name)

    def _turned_away(self, refused: Failure) -> None:
        """The broker does not let the login in. It may later, unless this raises :class:`LoginRefused`."""

    def _attempted(self, problem: LoginRefused | Unreachable | None) -> None:
        """The outcome of an attempt to connect; ``None``: it is up."""

    def _say(self, level: int, event: str, **fields: object) -> None:
        """Logs what happened to the connection."""
        _log.log(level, event, **fields)

    async def _supervise(self) -> None:
        while True:
            try:
                reason = await self._live_once()
            except LoginRefused as refused:
                self._report_down(str(refused))
                self._attempted(refused)
                return
            except Exception as problem:
                _log.exception("broker_supervisor_failed")
                reason = f"internal error: {type(problem).__name__}"
                await self._give_up(reason)
            self._report_down(reason)
            self._attempted(Unreachable(reason))
            await asyncio.sleep(self._backoff.pause(time.monotonic()))

    async def _live_once(self) -> str:
        """Connects to the first address that will have it, and returns why that ended or did not come about."""
        settings, reasons = self._settings, []
        for url in settings.urls:
            try:
                flow, latency = self._flow_changed, self._latency.delivery
                link = Link(url, self._node, settings.heartbeat, flow, self._login, latency)
                await link.open(settings.connect_timeout)
            except WireError as problem:
                if problem.refused is not None:
                    self._turned_away(problem.refused)
                reasons.append(str(problem))
                continue
            self._link = link
            try:
                await self._restore(link)
            except (LinkLost, ChannelClosed, TopologyError) as problem:
                reasons.append(link.lost.result() if link.lost.done() else str(problem))
                await self._give_up(reasons[-1])
                continue
            self._report_up(link)
            reason = await link.lost
            self._report_down(reason)
            await self._give_up(reason)
            return reason
        return "; ".join(reasons)

    async def _restore(self, link: Link) -> None:
        self._publisher.user = link.user
        await self._prepare(link)
        await self._mailboxes.attach(link)
        await self._consumers.attach(link)
        self._publisher.attach(await self._confirm_channel(link))

    def _report_up(self, link: Link) -> None:
        self._backoff.up(time.monotonic())
        self._told_down = False
        self._outage.over(link)
        self._say(logging.INFO, "broker_up", broker=link.where, vhost=link.vhost, user=link.user)
        assert self._listener is not None
        _tell(self._listener.on_broker_up)
        self._attempted(None)
        self._flow_changed()

    def _report_down(self, reason: str) -> None:
        if not self._told_down or reason != self._outage.reason:
            self._say(logging.WARNING, "broker_down", reason=reason)
        if self._outage.link is not None:
            self.reconnects += 1
        self._outage.begin(reason)
        self._release(reason)
        if not self._told_down:
            self._told_down = True
            assert self._listener is not None
            _tell(self._listener.on_broker_down, reason)

    def _release(self, reason: str) -> None:
        """Nothing goes over the link any more; what is outstanding waits for the next one."""
        self._spawned.cancel()
        self._publisher.detach(reason, self._link.publish.failure if self._link is not None else None)
        self._mailboxes.detach(reason)
        self._consumers.detach()
        self._flow_changed()

    async def _give_up(self, reason: str) -> None:
        """Ends the link there is, if any."""
        link, self._link = self._link, None
        if link is None:
            return
        self._release(reason)
        await self._spawned.ended()
        await link.close(0)

    async def _confirm_channel(self, link: Link) -> Channel:
        channel = await link.publish.open_channel()
        channel.on_confirm = self._publisher.on_confirm
        channel.on_returned = self._publisher.on_returned
        channel.on_closed = self._publisher.channel_closed
        await channel.call(methods.confirm_select())
        return channel

    def _reopen_publisher(self) -> None:
        link = self._link
        if link is not None:
            self._spawned.run(self._reopen(link))

    async def _reopen(self, link: Link) -> None:
        self._publisher.attach(await self._confirm_channel(link))

    def _check_exchange(self, exchange: str, done: Done) -> None:
        link = self._link
        if link is not None:
            self._spawned.run(self._check(link, exchange, done))

    async def _check(self, link: Link, exchange: str, done: Done) -> None:
        done(await topology.missing(link, exchange))

    async def _guarded(self, work: Awaitable[None]) -> None:
        link = self._link
        try:
            await work
        except LinkLost:
            pass
        except ChannelClosed as problem:
            # A channel that everybody needs could not be had again.
            if link is not None:
                link.consume.fail(problem.failure.text)
        except Exception:
            _log.exception("broker_task_failed")

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        now = time.monotonic()
        away, self._last_tick = now - self._last_tick, now
        link = self._link
        if link is not None:
            if away > STALL:
                link.stalled(away)
            link.check(now)
        self._publisher.sweep(now)
        self._mailboxes.sweep(now)

    def _flow_changed(self) -> None:
        link = self._link
        blocked = link.publish.blocked if link is not None else None
        if (blocked is None) != (self._blocked is None):
            self._publisher.blocked(blocked is not None)
            if blocked is not None:
                self._say(logging.WARNING, "broker_blocked", reason=blocked)
            else:
                self._say(logging.INFO, "broker_unblocked")
        self._blocked = blocked
        if self._clear and not self.congested:
            callbacks, self._clear = self._clear, []
            loop = asyncio.get_running_loop()
            for callback in callbacks:
                loop.call_soon(callback)


def _tell(callback: Callable[..., None], *news: object) -> None:
    try:
        callback(*news)
    except Exception:
        _log.exception("broker_listener_failed")
