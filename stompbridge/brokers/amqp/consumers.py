"""Queue consumers: a channel each, so that QoS, acknowledgements and mistakes are each subscription's own.

Some requests make RabbitMQ close the whole connection (an argument that crashes its channel process, an operation that
a type of queue does not have). What was being set up then is suspect: it is tried once more, one at a time, and whoever
is alone with a second loss gets the reason and is not tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..base import Done, Failure, QueueConsumer, QueueListener, QueueSpec
from . import methods
from .channel import REPLY_TIMEOUT, Channel, ChannelClosed, LinkLost, Reply, unanswered
from .codec import FRAME_METHOD, frame
from .consumer import Consumer, tell
from .link import SCRATCH_CHANNELS, Link
from .outage import Outage, Refused

SPARE_CHANNELS = 2 * SCRATCH_CHANNELS
"""Channels that consumers leave for everything else."""
VANISHING = (0.0, 0.01, 0.05, 0.2)
"""Pauses in which a queue that is being deleted will have gone."""
TAG = "stomp"
"""The consumer's tag on its channel."""
RETRY = 1.0
"""Seconds between attempts to have a queue back that the dead connection still holds."""
RETRIES = 45
"""Attempts."""


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
        self._alone = asyncio.Lock()

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
        self._keep(self._carry_out(lambda link: _again(spec, partial(_declare_and_bind, spec, link)), done))

    def delete(self, spec: QueueSpec, done: Done) -> None:
        """See :meth:`stompbridge.brokers.base.Broker.delete_queue`."""
        self._keep(self._carry_out(partial(_delete, spec), done))

    def forget(self, consumer: Consumer) -> None:
        """It needs no restoring any more."""
        self._standing.pop(consumer, None)

    def close(self, channel: Channel, done: Done | None) -> None:
        """Closes a consumer's channel; ``done`` follows, whether the broker answers or goes.

        The consumer is cancelled first: only then is a queue that goes with it gone with the answer, and what comes
        to one that stays is not given to a channel that closes, to come back as redelivered.
        """
        channel.send(frame(FRAME_METHOD, channel.number, methods.basic_cancel(TAG)))
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
            tell(done, None)

    async def _start(self, consumer: Consumer) -> None:
        """Sets a new consumer up, through losses of the broker until the grace is over."""
        while not consumer.cancelled and not consumer.standing:
            try:
                await self._try(consumer, await self._outage.wait())
            except LinkLost:
                await asyncio.sleep(0)
            except (ChannelClosed, Refused) as problem:
                if not consumer.cancelled:
                    consumer.cancelled = True
                    consumer.answer(problem.failure)

    async def _restore(self, consumer: Consumer, link: Link, retries: int) -> None:
        try:
            await self._try(consumer, link)
            self.restored += 1
        except LinkLost:
            return
        except ChannelClosed as problem:
            if problem.failure.code == "resource_locked" and retries:
                # Exclusive to the dead connection, until the broker notices its death.
                self._spawn(self._restore_later(consumer, link, retries - 1))
            else:
                consumer.end(problem.failure)

    async def _try(self, consumer: Consumer, link: Link) -> None:
        suspect = consumer.suspect
        try:
            if suspect:
                async with self._alone:
                    await _again(consumer.spec, partial(self._set_up, consumer, link))
                    consumer.suspect = False
            else:
                await _again(consumer.spec, partial(self._set_up, consumer, link))
        except LinkLost as loss:
            if loss.failure is None:
                raise
            if suspect:
                raise ChannelClosed(loss.failure, culprit=True) from None
            consumer.suspect = True
            raise

    async def _restore_later(self, consumer: Consumer, link: Link, retries: int) -> None:
        await asyncio.sleep(RETRY)
        if not consumer.cancelled:
            await self._restore(consumer, link, retries)

    async def _set_up(self, consumer: Consumer, link: Link) -> None:
        spec = consumer.spec
        consumer.queue = await _declare_and_bind(spec, link)
        channel: Channel | None = None
        stood = False
        try:
            if not consumer.cancelled:
                channel = await link.consume.open_channel(SPARE_CHANNELS)
            if channel is not None and not consumer.cancelled:
                stood = await self._consume(consumer, channel)
        except ChannelClosed:
            if channel is not None:
                channel.close()
            consumer.detach()
            await _undo(spec, consumer.queue, link, consumer.cancelled)
            if not consumer.cancelled:
                raise
        else:
            # What was cancelled once it stood has left nothing to undo. Its queue may be another subscription's by now.
            if consumer.cancelled and not stood:
                if channel is not None:
                    channel.close()
                await _undo(spec, consumer.queue, link, abandoned=True)

    async def _consume(self, consumer: Consumer, channel: Channel) -> bool:
        """Whether it stood when the broker answered: it may have been cancelled before."""
        consumer.attach(channel)
        if consumer.prefetch:
            await channel.call(methods.basic_qos(consumer.prefetch))
        if consumer.standing:
            tell(consumer.listener.on_queue_restored)
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        stood = False

        def reply(result: Reply) -> None:
            # Acted on here and not after the wait: messages may follow in the same bytes.
            nonlocal stood
            if isinstance(result, bytes) and not consumer.cancelled:
                stood = True
                self._standing[consumer] = None
                consumer.stand(channel)
            if not answered.done():
                answered.set_result(result)

        try:
            request = methods.basic_consume(consumer.queue, TAG, consumer.arguments)
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
        return stood

    async def _carry_out(self, work: Callable[[Link], Coroutine[Any, Any, object]], done: Done) -> None:
        problem: Failure | None = None
        suspect = False
        while True:
            try:
                link = await self._outage.wait()
                async with self._alone if suspect else contextlib.nullcontext():
                    await work(link)
            except LinkLost as loss:
                if suspect and loss.failure is not None:
                    problem = loss.failure
                else:
                    suspect = suspect or loss.failure is not None
                    await asyncio.sleep(0)
                    continue
            except (ChannelClosed, Refused) as refusal:
                problem = refusal.failure
            break
        tell(done, problem)


async def _again(spec: QueueSpec, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Does it, and again where the queue was gone: RabbitMQ declares, as if it were there, a queue that is just
    being deleted, such as one whose last consumer has gone, and does not find it then, or not its process."""
    for pause in VANISHING:
        try:
            await work()
        except ChannelClosed as problem:
            failure = problem.failure
            if not spec.declare or failure.code != "not_found" or f" queue '{spec.name}'" not in failure.text:
                raise
            await asyncio.sleep(pause)
        else:
            return
    await work()


async def _declare_and_bind(spec: QueueSpec, link: Link) -> str:
    """What the subscription asks for, on a scratch channel. Returns the queue's name."""
    queue = ""
    if spec.reuse and await _exists(spec.name, link):
        return spec.name
    try:
        async with link.scratch() as channel:
            if not spec.declare:
                await channel.call(methods.queue_declare(spec.name, passive=True))
                return spec.name
            queue = methods.read_queue_name(await channel.call(_declaration(spec)))
            for exchange, key in spec.bindings:
                await channel.call(methods.queue_bind(queue, exchange, key))
            return queue
    except (ChannelClosed, ValueError) as problem:
        if queue:
            await _undo(spec, queue, link)
        if isinstance(problem, ChannelClosed):
            raise
        raise _invalid(problem) from None


def _declaration(spec: QueueSpec) -> methods.Request:
    return methods.queue_declare(
        spec.name,
        durable=spec.durable,
        exclusive=spec.exclusive,
        auto_delete=spec.auto_delete,
        arguments=spec.arguments,
    )


async def _exists(queue: str, link: Link) -> bool:
    try:
        async with link.scratch() as channel:
            await channel.call(methods.queue_declare(queue, passive=True))
    except ChannelClosed as problem:
        if problem.failure.code != "not_found":
            raise
        return False
    return True


async def _delete(spec: QueueSpec, link: Link) -> None:
    with contextlib.suppress(ValueError):
        async with link.scratch() as channel:
            if spec.exclusive:
                # Refused where somebody else's queue has the name by now.
                await channel.call(_declaration(spec))
            await channel.call(methods.queue_delete(spec.name))


async def _undo(spec: QueueSpec, queue: str, link: Link, abandoned: bool = False) -> None:
    """Deletes a queue that was made for a subscription which did not come about, unless somebody else uses it.
    ``abandoned``: whoever asked for it has gone, and so does what was that session's alone.

    Not with the flags of Queue.Delete, for which quorum queues have the connection closed.
    """
    drop = spec.auto_delete or (spec.exclusive and abandoned)
    if spec.declare and (spec.delete_on_failure or drop):
        with contextlib.suppress(ChannelClosed):
            async with link.scratch() as channel:
                declared = await channel.call(methods.queue_declare(queue, passive=True))
                messages, users = methods.read_queue_counts(declared)
                if not users and (drop or not messages):
                    await channel.call(methods.queue_delete(queue))


def _invalid(problem: ValueError) -> ChannelClosed:
    return ChannelClosed(Failure("precondition_failed", f"PRECONDITION_FAILED - {problem}", fatal=False), culprit=True)
