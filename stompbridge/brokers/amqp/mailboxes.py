"""Mailboxes: one queue per exchange and process, bound to the keys that somebody here listens to.

All are consumed on one channel and bound on another; whether an exchange exists is tried on scratch channels, so that
one client's mistake disturbs nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from ...config import BrokerSettings
from ..base import BrokerListener, Done, Failure, Message
from . import methods
from .bindings import Bindings, Mailbox
from .channel import Channel, ChannelClosed, LinkLost
from .link import Link
from .splitter import Delivery

PREFETCH = 2000
"""Messages under way to each mailbox."""
ACK_MESSAGES = 256
ACK_BYTES = 1024 * 1024
"""What is taken and not acknowledged yet, at most: an acknowledgement for each costs RabbitMQ as much as a publish.
What comes again after a broken link is recognised by its stamp."""
RETRY = 5.0
"""Seconds between attempts to have a mailbox back that the broker refuses."""
REBUILD_PAUSE = 0.25
"""Seconds before a channel that was rebuilt a moment ago is rebuilt again."""

_log = structlog.get_logger(__name__)


class Mailboxes:
    """``make`` makes the mailbox of an exchange; ``spawn`` runs a coroutine that is dropped when the link is lost;
    ``clock`` gives monotonic seconds."""

    def __init__(
        self,
        settings: BrokerSettings,
        prefix: str,
        make: Callable[[str], Mailbox],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        clock: Callable[[], float],
    ) -> None:
        self.listener: BrokerListener | None = None
        self.delivered = 0
        self.lost = 0
        self.bindings = Bindings(
            settings.outage_grace, settings.bind_linger, clock, self._on_missing, self._on_bindings_closed
        )
        self._settings = settings
        self._wait = settings.when_down == "wait"
        self._prefix = prefix
        self._make = make
        self._spawn = spawn
        self._clock = clock
        self._link: Link | None = None
        self._consume: Channel | None = None
        # What was taken since the last acknowledgement: the newest tag, how many, how many bytes.
        self._taken = 0
        self._taken_messages = 0
        self._taken_bytes = 0
        self._boxes: dict[str, Mailbox] = {}
        self._rebuilt = 0.0
        self._one_consume = asyncio.Lock()

    @property
    def keys(self) -> int:
        """Keys bound or waiting to be."""
        return sum(len(mailbox.bindings) for mailbox in self._boxes.values())

    def bind(self, exchange: str, key: str, done: Done) -> None:
        """Counts one more who wants the key; bound already, it costs nothing. A bind that fails is not counted."""
        mailbox = self._boxes.get(exchange)
        if self._link is None and not self._wait:
            done(self.bindings.unavailable())
            return
        if mailbox is None:
            mailbox = self._boxes[exchange] = self._make(exchange)
        self.bindings.want(mailbox, key if mailbox.every is None else mailbox.every, done)
        if not mailbox.ready:
            self._open_later(mailbox)

    def unbind(self, exchange: str, key: str) -> None:
        """Counts one less; after the last one the binding stays for ``bind_linger`` seconds."""
        mailbox = self._boxes.get(exchange)
        if mailbox is not None:
            self.bindings.release(mailbox, key)

    def ensure(self, exchange: str) -> None:
        """Has a mailbox from the next ``attach`` on, whether somebody wants a key or not."""
        if exchange not in self._boxes:
            self._boxes[exchange] = self._make(exchange)

    async def attach(self, link: Link) -> None:
        """Restores every mailbox over a new link. Raises :class:`.LinkLost` or :class:`.ChannelClosed`."""
        self._link = link
        self._consume = await self._open_consume(link)
        self.bindings.attach(await link.consume.open_channel())
        for mailbox in list(self._boxes.values()):
            await self._open(mailbox)
        await self.bindings.settled(self.keys)

    def detach(self, reason: str) -> None:
        """The link is lost: all that was bound waits to be bound again."""
        self._link = self._consume = None
        self.bindings.detach(reason)
        for mailbox in self._boxes.values():
            mailbox.unready()
            mailbox.consuming = mailbox.opening = False
        if not self._wait:
            for mailbox in list(self._boxes.values()):
                self.bindings.fail(mailbox, self.bindings.unavailable())

    def stop(self, reason: str) -> None:
        """No link will come any more."""
        self._wait = False
        self.detach(reason)

    async def delete_all(self, link: Link) -> None:
        """Deletes the queues at the end of the process. Raises what :meth:`.Channel.call` raises."""
        mailboxes = list(self._boxes.values())
        self._boxes.clear()
        for mailbox in mailboxes:
            if mailbox.queue:
                async with link.scratch() as channel:
                    await channel.call(methods.queue_delete(mailbox.queue))

    def sweep(self, now: float) -> None:
        """Called a few times a second."""
        self.bindings.sweep(now)
        self._acknowledge()
        for mailbox in self._boxes.values():
            if mailbox.retry_at and mailbox.retry_at <= now:
                self._open_later(mailbox)

    async def _open_consume(self, link: Link) -> Channel:
        channel = await link.consume.open_channel()
        self._taken = self._taken_messages = self._taken_bytes = 0
        channel.on_deliveries = self._on_deliveries
        channel.on_cancelled = self._on_cancelled
        channel.on_closed = self._on_consume_closed
        await channel.call(methods.basic_qos(PREFETCH))
        return channel

    def _open_later(self, mailbox: Mailbox) -> None:
        if self._consume is not None and not mailbox.opening:
            mailbox.retry_at = 0.0
            self._spawn(self._open(mailbox))
            mailbox.opening = True

    async def _open(self, mailbox: Mailbox) -> None:
        """Declares, binds and consumes; on refusal those who wait for it get the reason."""
        link, consume = self._link, self._consume
        if link is None or consume is None:
            mailbox.opening = False
            return
        mailbox.opening = True
        mailbox.retry_at = 0.0
        try:
            async with link.scratch() as channel:
                await channel.call(methods.exchange_declare(mailbox.exchange, passive=True))
            await self._declare(link, mailbox)
            mailbox.ready = True
            self.bindings.send(mailbox)
            if not mailbox.consuming:
                # One after the other: RabbitMQ's answer comes from the queue, and two may overtake each other.
                async with self._one_consume:
                    await consume.call(methods.basic_consume(mailbox.queue, mailbox.exchange))
                mailbox.consuming = True
        except ChannelClosed as problem:
            if problem.culprit:
                self._refused(mailbox, problem.failure)
            else:
                mailbox.retry_at = self._clock()
        except ValueError as problem:
            self._refused(mailbox, Failure("precondition_failed", f"PRECONDITION_FAILED - {problem}", fatal=False))
        except LinkLost:
            return
        mailbox.opening = False

    async def _declare(self, link: Link, mailbox: Mailbox) -> None:
        settings = self._settings
        arguments = {
            "x-queue-type": settings.mailbox_type,
            "x-expires": max(1000, int(settings.mailbox_expires * 1000)),
        }
        if settings.mailbox_max_bytes:
            arguments["x-max-length-bytes"] = settings.mailbox_max_bytes
        for last in (False, True):
            queue = self._queue_name(mailbox)
            try:
                async with link.scratch() as channel:
                    request = methods.queue_declare(queue, durable=True, arguments=arguments)
                    declared = methods.read_queue_name(await channel.call(request))
            except ChannelClosed as problem:
                if last or not mailbox.queue or not problem.culprit:
                    raise
                # The node that has it is down: the next generation lives elsewhere, without what this one held.
                mailbox.generation += 1
                self._lose(mailbox, problem.failure.text)
            else:
                mailbox.queue = declared
                return

    def _queue_name(self, mailbox: Mailbox) -> str:
        suffix = f".{mailbox.generation}" if mailbox.generation else ""
        name = f"{self._prefix}.{mailbox.exchange}{suffix}"
        if len(name.encode()) > 255:
            digest = hashlib.sha256(mailbox.exchange.encode()).hexdigest()[:32]
            name = f"{self._prefix}.{digest}{suffix}"
        return name

    def _refused(self, mailbox: Mailbox, problem: Failure) -> None:
        mailbox.unready()
        self.bindings.fail(mailbox, problem)
        if mailbox.bindings:
            # Keys that were bound before: their subscribers are still there.
            _log.warning("mailbox_refused", exchange=mailbox.exchange, reason=problem.text)
            mailbox.retry_at = self._clock() + RETRY
        elif not mailbox.queue:
            self._boxes.pop(mailbox.exchange, None)

    def _lose(self, mailbox: Mailbox, reason: str) -> None:
        self.lost += 1
        _log.warning("mailbox_lost", exchange=mailbox.exchange, reason=reason)

    def _on_missing(self, mailbox: Mailbox) -> None:
        mailbox.unready()
        self._open_later(mailbox)

    def _on_bindings_closed(self, problem: Failure) -> None:
        _log.warning("channel_rebuilt", channel="bindings", reason=problem.text)
        self._spawn(self._rebuild_bindings())

    async def _rebuild_bindings(self) -> None:
        now = self._clock()
        if now - self._rebuilt < REBUILD_PAUSE:
            await asyncio.sleep(REBUILD_PAUSE)
        self._rebuilt = now
        if self._link is not None:
            self.bindings.attach(await self._link.consume.open_channel())
            for mailbox in list(self._boxes.values()):
                self.bindings.send(mailbox)

    def _on_consume_closed(self, problem: Failure) -> None:
        _log.warning("channel_rebuilt", channel="mailboxes", reason=problem.text)
        self._consume = None
        for mailbox in self._boxes.values():
            mailbox.consuming = False
        self._spawn(self._rebuild_consume())

    async def _rebuild_consume(self) -> None:
        if self._link is not None:
            self._consume = await self._open_consume(self._link)
            for mailbox in self._boxes.values():
                mailbox.retry_at = mailbox.retry_at or self._clock()

    def _on_cancelled(self, consumer: str) -> None:
        mailbox = self._boxes.get(consumer)
        if mailbox is not None:
            self._lose(mailbox, "its queue was deleted")
            mailbox.unready()
            mailbox.consuming = False
            self._open_later(mailbox)

    def _on_deliveries(self, batch: Sequence[Delivery]) -> None:
        consumer = batch[0].consumer
        messages: list[Message] = []
        size, nameless = 0, False
        for delivery in batch:
            message = delivery.message
            if delivery.consumer != consumer:
                self._hand_over(consumer, messages)
                consumer, messages = delivery.consumer, []
            messages.append(message)
            size += len(message.body)
            nameless = nameless or (message.sender is None and message.message_id is None)
        self._hand_over(consumer, messages)
        self._taken = batch[-1].tag
        self._taken_messages += len(batch)
        self._taken_bytes += size
        # Without any name it would not be recognised if it came again.
        if nameless or self._taken_messages >= ACK_MESSAGES or self._taken_bytes >= ACK_BYTES:
            self._acknowledge()

    def _acknowledge(self) -> None:
        if self._taken and self._consume is not None:
            self._consume.ack(self._taken, multiple=True)
            self._taken = self._taken_messages = self._taken_bytes = 0

    def _hand_over(self, exchange: str, messages: list[Message]) -> None:
        self.delivered += len(messages)
        assert self.listener is not None
        try:
            self.listener.on_mailbox_messages(exchange, messages)
        except Exception:
            _log.exception("mailbox_listener_failed")
