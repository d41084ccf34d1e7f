"""One AMQP channel of ours: pipelined requests with callbacks, and a place for what the broker sends unasked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..base import Failure
from . import methods
from .codec import FRAME_METHOD, encode_ack, encode_nack, frame
from .fields import read_short_string
from .methods import Request, read_close
from .splitter import Confirm, Delivery, Returned, StreamError

REPLY_TIMEOUT = 30.0
"""Seconds that an awaited request may take."""


class LinkLost(Exception):
    """The connection is gone; the request may or may not have been carried out. ``failure`` is the broker's reason
    when it closed the connection for something that was sent on it."""

    def __init__(self, reason: str, failure: Failure | None = None) -> None:
        super().__init__(reason)
        self.failure = failure


class ChannelClosed(Exception):
    """The broker closed the channel. ``culprit`` is true for the request that made it do so; the others on the same
    channel may be tried again."""

    def __init__(self, failure: Failure, culprit: bool) -> None:
        super().__init__(failure.text)
        self.failure = failure
        self.culprit = culprit


Reply = bytes | LinkLost | ChannelClosed


class Carrier(Protocol):
    """What a channel needs of its connection."""

    frame_max: int
    answers_cancel: bool

    def send(self, data: bytes) -> None:
        """Writes whole frames."""

    def release(self, channel: Channel) -> None:
        """The channel is closed on both sides: its number is free."""


class Channel:
    """Replies come in the order of the requests, so that many may be under way at once.

    The callbacks ``on_deliveries``, ``on_confirm``, ``on_returned``, ``on_cancelled`` (consumer tag) and ``on_closed``
    (the broker closed it; not called when the connection is lost) are set by the owner.
    """

    __slots__ = (
        "_carrier",
        "_close_done",
        "_lost",
        "_pending",
        "closed",
        "number",
        "on_cancelled",
        "on_closed",
        "on_confirm",
        "on_deliveries",
        "on_returned",
    )

    def __init__(self, carrier: Carrier, number: int) -> None:
        self.number = number
        self.closed = False
        """True from our Channel.Close or the broker's on: nothing more goes out or comes in."""
        self._carrier = carrier
        self._pending: deque[tuple[bytes, bytes, Callable[[Reply], None]]] = deque()
        self._close_done: Callable[[], None] | None = None
        self._lost: str | None = None
        self.on_deliveries: Callable[[list[Delivery]], None] = _ignore
        self.on_confirm: Callable[[Confirm], None] = _ignore
        self.on_returned: Callable[[Returned], None] = _ignore
        self.on_cancelled: Callable[[str], None] = _ignore
        self.on_closed: Callable[[Failure], None] = _ignore

    @property
    def busy(self) -> bool:
        """Whether replies are outstanding."""
        return bool(self._pending)

    @property
    def frame_max(self) -> int:
        return self._carrier.frame_max

    def request(self, request: Request, reply: Callable[[Reply], None]) -> None:
        """Sends a method; ``reply`` gets the payload of the answer or what came instead.

        Raises ``ValueError`` for one that exceeds the broker's frame size, :class:`LinkLost` or
        :class:`ChannelClosed` when there is nothing to send it on.
        """
        if self._lost is not None:
            raise LinkLost(self._lost)
        if self.closed:
            raise _closed()
        limit = self._carrier.frame_max
        if limit and len(request.payload) > limit - 8:
            raise ValueError(f"a request of {len(request.payload)} bytes exceeds the broker's frame size of {limit}")
        self._pending.append((request.payload[:4], request.reply, reply))
        self._carrier.send(frame(FRAME_METHOD, self.number, request.payload))

    async def call(self, request: Request, within: float = REPLY_TIMEOUT) -> bytes:
        """Sends a method and waits for its answer. Raises :class:`ChannelClosed`, :class:`LinkLost`, ``ValueError``
        or, after ``within`` seconds, :class:`ChannelClosed` with code ``broker_unavailable``."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def reply(result: Reply) -> None:
            if answer.done():
                return
            if isinstance(result, bytes):
                answer.set_result(result)
            else:
                answer.set_exception(result)

        self.request(request, reply)
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            self.close()
            raise unanswered(within) from None

    def send(self, data: bytes) -> None:
        """Writes whole frames of this channel that have no answer."""
        if not self.closed:
            self._carrier.send(data)

    def ack(self, tag: int, multiple: bool = False) -> None:
        self.send(encode_ack(self.number, tag, multiple))

    def nack(self, tag: int, multiple: bool, requeue: bool) -> None:
        self.send(encode_nack(self.number, tag, multiple, requeue))

    def close(self, done: Callable[[], None] | None = None) -> None:
        """Closes it: what it held unacknowledged is requeued, and nothing more comes. ``done`` follows the broker's
        answer; it is not called when the connection is lost first."""
        if self.closed:
            return
        self._close_done = done
        self._carrier.send(frame(FRAME_METHOD, self.number, methods.channel_close().payload))
        self.closed = True
        self._fail(_closed())

    def connection_lost(self, reason: str, failure: Failure | None = None) -> None:
        """Called by the connection: nothing more comes."""
        self.closed = True
        self._lost = reason
        self._fail(LinkLost(reason, failure))

    def method(self, payload: bytes) -> None:
        """Called by the connection with a method that has no type of its own in :mod:`.splitter`."""
        name = payload[:4]
        if name == methods.CHANNEL_CLOSE:
            self._closed_by_broker(payload)
        elif name == methods.CHANNEL_CLOSE_OK:
            self._carrier.release(self)
            if self._close_done is not None:
                self._close_done()
        elif self.closed:
            return
        elif name == methods.BASIC_CANCEL:
            tag, _ = read_short_string(payload, 4)
            if self._carrier.answers_cancel:
                self.send(frame(FRAME_METHOD, self.number, methods.BASIC_CANCEL_OK + payload[4 : 5 + payload[4]]))
            self.on_cancelled(tag)
        else:
            if not self._pending or self._pending[0][1] != name:
                raise StreamError(f"unexpected method {name.hex()} on channel {self.number}")
            self._pending.popleft()[2](payload)

    def _closed_by_broker(self, payload: bytes) -> None:
        self._carrier.send(frame(FRAME_METHOD, self.number, methods.CHANNEL_CLOSE_OK))
        self._carrier.release(self)
        if self.closed:
            if self._close_done is not None:
                self._close_done()
            return
        self.closed = True
        close = read_close(payload)
        failure = close.failure
        if self._pending and self._pending[0][0] == close.cause:
            self._pending.popleft()[2](ChannelClosed(failure, culprit=True))
        self._fail(ChannelClosed(failure, culprit=False))
        self.on_closed(failure)

    def _fail(self, problem: LinkLost | ChannelClosed) -> None:
        while self._pending:
            self._pending.popleft()[2](problem)


def unanswered(seconds: float) -> ChannelClosed:
    """A request that the broker left without an answer."""
    text = f"the broker did not answer within {seconds:g} s"
    return ChannelClosed(Failure("broker_unavailable", text, fatal=False), culprit=True)


def _closed() -> ChannelClosed:
    return ChannelClosed(Failure("channel_error", "the channel was closed", fatal=False), culprit=False)


def _ignore(_event: object) -> None:
    """What an owner does not want to know."""
