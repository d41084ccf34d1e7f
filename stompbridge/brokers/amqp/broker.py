"""The RabbitMQ broker: puts the parts together and keeps a link up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog

from ...config import BrokerSettings, Exchange
from ..base import BrokerListener, Done, Failure, Message, QueueConsumer, QueueListener, QueueSpec
from . import methods, topology
from .channel import Channel, ChannelClosed, LinkLost
from .consumers import Consumers
from .exchanges import BUILT_IN, Exchanges
from .link import Link
from .mailboxes import Mailboxes
from .outage import Outage
from .publisher import Publisher
from .topology import TopologyError
from .wire import WireError

TICK = 0.25
"""Seconds between two looks at what has waited too long."""
STALL = 2.0
"""Seconds without a tick after which this process, not the broker, was away."""
BACKOFF = 0.25
"""Seconds, doubled with each attempt, within which the next attempt to connect comes at random."""
MIN_PAUSE = 0.05
STABLE = 10.0
"""Seconds that a link must stand for the back-off to begin anew."""
FLUSH_TIMEOUT = 5.0
CLOSE_TIMEOUT = 3.0

_log = structlog.get_logger(__name__)


class AmqpBroker:
    """:class:`stompbridge.brokers.base.Broker` over AMQP 0-9-1.

    ``node`` is this process's name in queue and connection names; ``extra_exchanges`` are declared along with those of
    the configuration, which win where both name one.
    """

    def __init__(self, settings: BrokerSettings, node: str, extra_exchanges: Iterable[Exchange] = ()) -> None:
        self.reconnects = 0
        self._settings = settings
        self._node = node
        self._declared = {exchange.name: exchange for exchange in (*extra_exchanges, *settings.exchange)}
        self._listener: BrokerListener | None = None
        self._link: Link | None = None
        self._up_since: float | None = None
        self._told_down = False
        self._supervisor: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._link_tasks: set[asyncio.Task[None]] = set()
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
        )
        self._publisher.user = unquote(urlsplit(settings.urls[0]).username or "guest")
        self._mailboxes = Mailboxes(
            settings, f"stompbridge.{node}.{secrets.token_hex(4)}", self._every, self._spawn, time.monotonic
        )
        self._consumers = Consumers(self._outage, self._spawn, self._keep)

    @property
    def up(self) -> bool:
        return self._outage.link is not None

    @property
    def down_reason(self) -> str:
        return self._outage.reason

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
        await asyncio.gather(*self._tasks, *self._link_tasks, return_exceptions=True)

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
        declared = self._declared.get(exchange)
        return declared.type if declared is not None else BUILT_IN.get(exchange)

    def publish(self, message: Message, done: Done) -> None:
        self._publisher.publish(message, done)

    def declare_queue(self, spec: QueueSpec, done: Done) -> None:
        self._consumers.declare(spec, done)

    def bind(self, exchange: str, key: str, done: Done) -> None:
        self._mailboxes.bind(exchange, key, done)

    def unbind(self, exchange: str, key: str) -> None:
        self._mailboxes.unbind(exchange, key)

    def consume(
        self, spec: QueueSpec, prefetch: int, listener: QueueListener, done: Callable[[QueueConsumer | Failure], None]
    ) -> QueueConsumer:
        return self._consumers.consume(spec, prefetch, listener, done)

    def counters(self) -> dict[str, int]:
        """Totals since the start, and (``held``, ``held_bytes``, ``bindings``, ``consumers``) what there is now."""
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
            "held": publisher.held,
            "held_bytes": publisher.held_bytes,
            "mailbox_delivered": mailboxes.delivered,
            "mailboxes_lost": mailboxes.lost,
            "binds": mailboxes.bindings.binds,
            "unbinds": mailboxes.bindings.unbinds,
            "bindings": mailboxes.keys,
            "queue_delivered": consumers.delivered,
            "consumers_restored": consumers.restored,
            "consumers": len(consumers),
            "reconnects": self.reconnects,
        }

    def _every(self, exchange: str) -> str | None:
        """The key that stands for all keys of the exchange, where each for itself would be a waste."""
        kind = self.exchange_type(exchange)
        if kind == "fanout":
            return ""
        declared = self._declared.get(exchange)
        return "#" if kind == "topic" and declared is not None and declared.bind == "all" else None

    async def _supervise(self) -> None:
        attempt = 0
        while True:
            try:
                reason = await self._live_once()
            except Exception as problem:
                _log.exception("broker_supervisor_failed")
                reason = f"internal error: {type(problem).__name__}"
                await self._give_up(reason)
            if self._up_since is not None and time.monotonic() - self._up_since > STABLE:
                attempt = 0
            self._up_since = None
            self._report_down(reason)
            limit = min(self._settings.reconnect_max, BACKOFF * 2.0**attempt)
            attempt = min(attempt + 1, 16)
            await asyncio.sleep(max(MIN_PAUSE, random.uniform(0, limit)))

    async def _live_once(self) -> str:
        """Connects to the first address that will have it, and returns why that ended or did not come about."""
        settings, reasons = self._settings, []
        for url in settings.urls:
            try:
                link = Link(url, self._node, settings.heartbeat, self._flow_changed)
                await link.open(settings.connect_timeout)
            except WireError as problem:
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
        await topology.declare(link, self._declared.values())
        self._exchanges.declared(self._declared)
        for exchange in self._declared:
            if self._every(exchange) == "#":
                self._mailboxes.ensure(exchange)
        await self._mailboxes.attach(link)
        await self._consumers.attach(link)
        self._publisher.attach(await self._confirm_channel(link))

    def _report_up(self, link: Link) -> None:
        self._up_since = time.monotonic()
        self._told_down = False
        self._outage.over(link)
        _log.info("broker_up", broker=link.where, vhost=link.vhost, user=link.user)
        assert self._listener is not None
        _tell(self._listener.on_broker_up)
        self._flow_changed()

    def _report_down(self, reason: str) -> None:
        if not self._told_down or reason != self._outage.reason:
            _log.warning("broker_down", reason=reason)
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
        for task in self._link_tasks:
            task.cancel()
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
        await asyncio.gather(*self._link_tasks, return_exceptions=True)
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
            self._spawn(self._reopen(link))

    async def _reopen(self, link: Link) -> None:
        self._publisher.attach(await self._confirm_channel(link))

    def _check_exchange(self, exchange: str, done: Done) -> None:
        link = self._link
        if link is not None:
            self._spawn(self._check(link, exchange, done))

    async def _check(self, link: Link, exchange: str, done: Done) -> None:
        problem: Failure | None = None
        try:
            async with link.scratch() as channel:
                await channel.call(methods.exchange_declare(exchange, passive=True))
        except ChannelClosed as refusal:
            problem = refusal.failure
        except ValueError as refusal:
            problem = Failure("precondition_failed", f"PRECONDITION_FAILED - {refusal}", fatal=False)
        done(problem)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what concerns this link only."""
        self._run(work, self._link_tasks)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what outlives links."""
        self._run(work, self._tasks)

    def _run(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(self._guarded(work))
        tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            work.close()  # cancelled before its first step, it was never awaited

        task.add_done_callback(ended)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
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
                _log.warning("broker_blocked", reason=blocked)
            else:
                _log.info("broker_unblocked")
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
