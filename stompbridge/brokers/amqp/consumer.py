"""One queue consumer: its channel's life, its tags, its acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

import structlog

from ..base import Done, Failure, HeaderValue, QueueConsumer, QueueListener, QueueSpec
from .channel import Channel
from .splitter import Delivery

_log = structlog.get_logger(__name__)


class Owner(Protocol):
    """What a consumer needs of whoever sets it up."""

    delivered: int

    def forget(self, consumer: Consumer) -> None:
        """It needs no restoring any more."""

    def close(self, channel: Channel, done: Done | None) -> None:
        """Closes a consumer's channel; ``done`` follows, whether the broker answers or goes."""


class Consumer:
    """One subscription's consumer. Tags are the channel's delivery tags counted on over every restore, so that a tag
    given out before never names a message that came after."""

    __slots__ = (
        "_base",
        "_channel",
        "_done",
        "_last",
        "_next_offset",
        "_owner",
        "_unsettled",
        "cancelled",
        "listener",
        "prefetch",
        "queue",
        "spec",
        "standing",
        "suspect",
    )

    def __init__(
        self,
        owner: Owner,
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
        self.suspect = False
        """Whether the broker closed the connection, as for a fault of ours, while this was being set up."""
        self._owner = owner
        self._done = done
        self._channel: Channel | None = None
        self._base = 0
        self._last = 0
        # Tags and, from a stream, offsets.
        self._unsettled: dict[int, int | None] = {}
        self._next_offset: int | None = None

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
            stream = self._next_offset is not None
            for tag, multiple in self._settle(tags):
                if stream:
                    # A stream keeps its messages, and the broker closes the connection for a Basic.Nack.
                    channel.ack(tag, multiple)
                else:
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
        oldest = next(iter(self._unsettled.values()), None)
        if oldest is not None:
            self._next_offset = oldest
        self._unsettled.clear()

    @property
    def arguments(self) -> Mapping[str, HeaderValue]:
        """Consumer arguments: those asked for, but a stream goes on where it was."""
        if self._next_offset is None:
            return self.spec.consumer_arguments
        return {**self.spec.consumer_arguments, "x-stream-offset": self._next_offset}

    def attach(self, channel: Channel) -> None:
        """Its next channel. Every tag given out before is void."""
        self._base = self._last
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
        tell(self._done, result)

    def end(self, problem: Failure | None) -> None:
        """The broker ended it."""
        if not self.cancelled:
            channel = self._channel
            self.drop()
            if channel is not None:
                channel.close()
            tell(self.listener.on_queue_cancelled, problem)

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
            offset = delivery.message.headers.get("x-stream-offset")
            if type(offset) is int:
                unsettled[delivery.tag] = offset
                self._next_offset = offset + 1
            else:
                unsettled[delivery.tag] = None
            self._last = base + delivery.tag
            self._owner.delivered += 1
            tell(self.listener.on_queue_message, delivery.message, self._last)

    def _on_cancelled(self, _consumer: str) -> None:
        self.end(None)


def tell(callback: Callable[..., None], *news: object) -> None:
    """Calls a listener; its errors are logged and cost nobody else anything."""
    try:
        callback(*news)
    except Exception:
        _log.exception("consumer_callback_failed")
