"""Queue consumers: a channel each, so that QoS, acknowledgements and mistakes are each subscription's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any

import structlog

from ..base import Done, Failure, QueueConsumer, QueueListener, QueueSpec
from . import methods
from .channel import REPLY_TIMEOUT, Channel, ChannelClosed, LinkLost, Reply, unanswered
from .link import SCRATCH_CHANNELS, Link
from .outage import Outage, Refused
from .splitter import Delivery

SPARE_CHANNELS = 2 * SCRATCH_CHANNELS
"""Channels that consumers leave for everything else."""
RETRY = 1.0
"""Seconds between attempts to have a queue back that the dead connection still holds."""
RETRIES = 45
"""Attempts."""

_log = structlog.get_logger(__name__)


class Consumer:
    """One subscription's consumer. Tags are the channel's delivery tags counted on over every restore, so that a tag
    given out before never names a message that came after."""

    __slots__ = (
        "_base",
        "_channel",
        "_done",
        "_last",
        "_owner",
        "_unsettled",
        "cancelled",
        "listener",
        "prefetch",
        "queue",
        "spec",
        "standing",
    )

    def __init__(
        self,
        owner: Consumers,
        spec: QueueSpec,
        prefetch: int,
        listener: QueueListener,
        done: Callable[[QueueConsumer | Failure], None],
    ) -> None:
        self.queue = spec.name
        self.spec = spec
        self.prefetch = prefetch
        self.listener = listener
        self.cancelled = False
        self.standing = False
        """Whether ``done`` was told of it: from then on it is restored after a loss of the broker."""
        self._owner = owner
        self._done = done
        self._channel: Channel | None = None
        self._base = 0
        self._last = 0
        self._unsettled: dict[int, None] = {}

    def ack(self, tags: Sequence[int]) -> None:
        """See :class:`stompbridge.brokers.base.QueueConsumer`."""
        channel = self._channel
        if channel is not None:
            for tag, multiple in self._settle(tags):
                channel.ack(tag, multiple)

    def nack(self, tags: Sequence[int], requeue: bool) -> None:
        """See :class:`stompbridge.brokers.base.QueueConsumer`."""
        channel = self._channel
        if channel is not None:
            for tag, multiple in self._settle(tags):
                channel.nack(tag, multiple, requeue)

    def cancel(self, done: Done | None = None) -> None:
        """See :class:`stompbridge.brokers.base.QueueConsumer`."""
        channel = self._channel
        self.drop()
        if channel is not None and not channel.closed:
            self._owner.close(channel, done)
        elif done is not None:
            asyncio.get_running_loop().call_soon(done, None)

    def drop(self) -> None:
        """It is over: no message is passed on, no tag is valid."""
        self.cancelled = True
        self._owner.forget(self)
        self.detach()

    def detach(self) -> None:
        """Its channel is gone: what it delivered will be delivered again."""
        self._channel = None
        self._unsettled.clear()

    def attach(self, channel: Channel) -> None:
        """Its next channel. Every tag given out before is void."""
        self._base = self._last
        self._unsettled.clear()
        self._channel = channel
        channel.on_deliveries = self._on_deliveries

    def stand(self, channel: Channel) -> None:
        """The broker has it."""
        channel.on_cancelled = self._on_cancelled
        channel.on_closed = self.end
        if not self.standing:
            self.standing = True
            self.answer(self)

    def answer(self, result: QueueConsumer | Failure) -> None:
        """Tells whoever asked for it how that went."""
        _tell(self._done, result)

    def end(self, problem: Failure | None) -> None:
        """The broker ended it."""
        if not self.cancelled:
            channel = self._channel
            self.drop()
            if channel is not None:
                channel.close()
            _tell(self.listener.on_queue_cancelled, problem)

    def _settle(self, tags: Sequence[int]) -> Iterable[tuple[int, bool]]:
        """Delivery tags to name to the broker: one for all when the given ones are the oldest unsettled."""
        unsettled, base = self._unsettled, self._base
        if len(tags) == 1:
            tag = tags[0] - base
            if tag in unsettled:
                del unsettled[tag]
                return ((tag, False),)
            return ()
        known = sorted({tag - base for tag in tags if tag - base in unsettled})
        oldest = list(islice(unsettled, len(known)))
        for tag in known:
            del unsettled[tag]
        if not known:
            return ()
        if known == oldest:
            return ((known[-1], True),)
        return [(tag, False) for tag in known]

    def _on_deliveries(self, batch: Sequence[Delivery]) -> None:
        base, unsettled = self._base, self._unsettled
        for delivery in batch:
            if self.cancelled:
                return
            unsettled[delivery.tag] = None
            self._last = base + delivery.tag
            self._owner.delivered += 1
            _tell(self.listener.on_queue_message, delivery.message, self._last)

    def _on_cancelled(self, _consumer: str) -> None:
        self.end(None)


class Consumers:
    """All queue consumers of a broker, and queues declared for others to send to. ``spawn`` runs a coroutine that may
    be dropped when the link is lost, ``keep`` one that outlives it."""

    def __init__(
        self,
        outage: Outage,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        keep: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.delivered = 0
        self.restored = 0
        self._outage = outage
        self._spawn = spawn
        self._keep = keep
        self._standing: dict[Consumer, None] = {}
        self._closing: dict[Channel, Done] = {}

    def __len__(self) -> int:
        return len(self._standing)

    def consume(
        self, spec: QueueSpec, prefetch: int, listener: QueueListener, done: Callable[[QueueConsumer | Failure], None]
    ) -> Consumer:
        """See :meth:`stompbridge.brokers.base.Broker.consume`."""
        consumer = Consumer(self, spec, prefetch, listener, done)
        self._keep(self._start(consumer))
        return consumer

    def declare(self, spec: QueueSpec, done: Done) -> None:
        """See :meth:`stompbridge.brokers.base.Broker.declare_queue`."""
        self._keep(self._declare(spec, done))

    def forget(self, consumer: Consumer) -> None:
        """It needs no restoring any more."""
        self._standing.pop(consumer, None)

    def close(self, channel: Channel, done: Done | None) -> None:
        """Closes a consumer's channel; ``done`` follows, whether the broker answers or goes."""
        if done is None:
            channel.close()
            return
        self._closing[channel] = done

        def closed() -> None:
            if self._closing.pop(channel, None) is not None:
                done(None)

        channel.close(closed)

    async def attach(self, link: Link) -> None:
        """Restores every consumer over a new link. Raises :class:`.LinkLost`."""
        await asyncio.gather(*(self._restore(consumer, link, RETRIES) for consumer in list(self._standing)))
        if link.consume.closed:
            raise LinkLost("lost while consumers were restored")

    def detach(self) -> None:
        """The link is lost."""
        for consumer in self._standing:
            consumer.detach()
        closing, self._closing = self._closing, {}
        for done in closing.values():
            _tell(done, None)

    async def _start(self, consumer: Consumer) -> None:
        """Sets a new consumer up, through losses of the broker until the grace is over."""
        while not consumer.cancelled and not consumer.standing:
            try:
                await self._set_up(consumer, await self._outage.wait())
            except LinkLost:
                await asyncio.sleep(0)
            except (ChannelClosed, Refused) as problem:
                if not consumer.cancelled:
                    consumer.cancelled = True
                    consumer.answer(problem.failure)

    async def _restore(self, consumer: Consumer, link: Link, retries: int) -> None:
        try:
            await self._set_up(consumer, link)
            self.restored += 1
        except LinkLost:
            return
        except ChannelClosed as problem:
            if problem.failure.code == "resource_locked" and retries:
                # Exclusive to the dead connection, until the broker notices its death.
                self._spawn(self._restore_later(consumer, link, retries - 1))
            else:
                consumer.end(problem.failure)

    async def _restore_later(self, consumer: Consumer, link: Link, retries: int) -> None:
        await asyncio.sleep(RETRY)
        if not consumer.cancelled:
            await self._restore(consumer, link, retries)

    async def _set_up(self, consumer: Consumer, link: Link) -> None:
        spec = consumer.spec
        consumer.queue = await _declare_and_bind(spec, link)
        channel: Channel | None = None
        try:
            if not consumer.cancelled:
                channel = await link.consume.open_channel(SPARE_CHANNELS)
            if channel is not None and not consumer.cancelled:
                await self._consume(consumer, channel)
        except ChannelClosed:
            if channel is not None:
                channel.close()
            consumer.detach()
            await _undo(spec, consumer.queue, link)
            if not consumer.cancelled:
                raise
        else:
            if consumer.cancelled:
                if channel is not None:
                    channel.close()
                await _undo(spec, consumer.queue, link)

    async def _consume(self, consumer: Consumer, channel: Channel) -> None:
        consumer.attach(channel)
        if consumer.prefetch:
            await channel.call(methods.basic_qos(consumer.prefetch))
        if consumer.standing:
            _tell(consumer.listener.on_queue_restored)
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def reply(result: Reply) -> None:
            # Acted on here and not after the wait: messages may follow in the same bytes.
            if isinstance(result, bytes) and not consumer.cancelled:
                self._standing[consumer] = None
                consumer.stand(channel)
            if not answered.done():
                answered.set_result(result)

        try:
            request = methods.basic_consume(consumer.queue, "", consumer.spec.consumer_arguments)
            channel.request(request, reply)
        except ValueError as problem:
            raise _invalid(problem) from None
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                result = await answered
        except TimeoutError:
            raise unanswered(REPLY_TIMEOUT) from None
        if not isinstance(result, bytes):
            raise result

    async def _declare(self, spec: QueueSpec, done: Done) -> None:
        problem: Failure | None = None
        while True:
            try:
                await _declare_and_bind(spec, await self._outage.wait())
            except LinkLost:
                await asyncio.sleep(0)
                continue
            except (ChannelClosed, Refused) as refusal:
                problem = refusal.failure
            break
        _tell(done, problem)


async def _declare_and_bind(spec: QueueSpec, link: Link) -> str:
    """What the subscription asks for, on a scratch channel. Returns the queue's name."""
    queue = ""
    try:
        async with link.scratch() as channel:
            if not spec.declare:
                await channel.call(methods.queue_declare(spec.name, passive=True))
                return spec.name
            request = methods.queue_declare(
                spec.name,
                durable=spec.durable,
                exclusive=spec.exclusive,
                auto_delete=spec.auto_delete,
                arguments=spec.arguments,
            )
            queue = methods.read_queue_name(await channel.call(request))
            for exchange, key in spec.bindings:
                await channel.call(methods.queue_bind(queue, exchange, key))
            return queue
    except (ChannelClosed, ValueError) as problem:
        if queue:
            await _undo(spec, queue, link)
        if isinstance(problem, ChannelClosed):
            raise
        raise _invalid(problem) from None


async def _undo(spec: QueueSpec, queue: str, link: Link) -> None:
    """Deletes a queue that was made for a subscription which did not come about."""
    if spec.declare and (spec.delete_on_failure or spec.auto_delete):
        with contextlib.suppress(ChannelClosed):
            async with link.scratch() as channel:
                await channel.call(methods.queue_delete(queue, if_unused=True))


def _invalid(problem: ValueError) -> ChannelClosed:
    return ChannelClosed(Failure("precondition_failed", f"PRECONDITION_FAILED - {problem}", fatal=False), culprit=True)


def _tell(callback: Callable[..., None], *news: object) -> None:
    try:
        callback(*news)
    except Exception:
        _log.exception("consumer_callback_failed")
