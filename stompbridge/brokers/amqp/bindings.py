"""Bindings of the mailboxes: who waits for one, which linger, and the one channel on which they are made.

Requests are pipelined: a storm of subscriptions costs one round trip, not one each.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ..base import Done, Failure
from . import methods
from .channel import REPLY_TIMEOUT, Channel, ChannelClosed, Reply

_log = structlog.get_logger(__name__)


class Binding:
    """One key of one mailbox and how many ask for it."""

    __slots__ = ("bound", "count", "key", "mailbox", "sent", "waiters")

    def __init__(self, mailbox: Mailbox, key: str) -> None:
        self.mailbox = mailbox
        self.key = key
        self.count = 0
        self.sent = False
        self.bound = False
        self.waiters: list[tuple[Done, float]] = []


class Mailbox:
    """One exchange's queue. ``every`` is the one key that is bound when each key would be a waste, else ``None``."""

    __slots__ = (
        "bindings",
        "consuming",
        "every",
        "exchange",
        "generation",
        "opening",
        "queue",
        "ready",
        "retry_at",
        "unbinding",
    )

    def __init__(self, exchange: str, every: str | None) -> None:
        self.exchange = exchange
        self.every = every
        self.queue = ""
        self.generation = 0
        self.ready = False
        """The queue is declared: keys can be bound."""
        self.consuming = False
        self.opening = False
        self.retry_at = 0.0
        self.bindings: dict[str, Binding] = {}
        self.unbinding: set[str] = set()
        """Keys to be unbound, until the broker has said that they are."""
        if every is not None:
            self.bindings[every] = Binding(self, every)

    def unready(self) -> None:
        """Nothing is known to be bound any more."""
        self.ready = False
        for binding in self.bindings.values():
            binding.bound = binding.sent = False


class Bindings:
    """``on_missing`` is told of a mailbox whose exchange or queue is gone; ``on_closed`` that the broker closed the
    channel, so that ``attach`` must be called with a new one."""

    def __init__(
        self,
        grace: float,
        linger: float,
        clock: Callable[[], float],
        on_missing: Callable[[Mailbox], None],
        on_closed: Callable[[Failure], None],
    ) -> None:
        self.binds = 0
        self.unbinds = 0
        self._grace = grace
        self._linger = linger
        self._clock = clock
        self._on_missing = on_missing
        self._on_closed = on_closed
        self._channel: Channel | None = None
        self._down: str | None = "not connected yet"
        self._age_from = clock()
        self._waiting: dict[Binding, None] = {}
        self._idle: dict[Binding, float] = {}

    def attach(self, channel: Channel) -> None:
        """The channel to bind on from now on."""
        channel.on_closed = self._closed
        self._channel = channel
        self._down = None

    def detach(self, reason: str) -> None:
        """The link is lost: those who wait, wait for the next one."""
        self._channel = None
        if self._down is None:
            # Later failures to connect are the same outage.
            self._age_from = self._clock()
        self._down = reason

    async def settled(self, count: int) -> None:
        """Returns when what was sent so far (about ``count`` requests) is answered. Raises :class:`.LinkLost`."""
        if self._channel is not None:
            try:
                await self._channel.call(methods.basic_qos(0), REPLY_TIMEOUT + count * 0.02)
            except ChannelClosed as problem:
                _log.warning("bindings_unsettled", reason=problem.failure.text)

    def want(self, mailbox: Mailbox, key: str, done: Done) -> None:
        """One more asks for the key."""
        binding = mailbox.bindings.get(key)
        if binding is None:
            binding = mailbox.bindings[key] = Binding(mailbox, key)
            mailbox.unbinding.discard(key)
        self._idle.pop(binding, None)
        binding.count += 1
        if binding.bound:
            done(None)
            return
        binding.waiters.append((done, self._clock()))
        self._waiting[binding] = None
        self._bind(binding)

    def release(self, mailbox: Mailbox, key: str) -> None:
        """One less asks for the key."""
        binding = mailbox.bindings.get(key)
        if binding is None or mailbox.every is not None:
            return
        binding.count -= 1
        if binding.count <= 0:
            if self._linger:
                self._idle[binding] = self._clock()
            else:
                self._drop(binding)

    def send(self, mailbox: Mailbox) -> None:
        """Binds and unbinds what is outstanding."""
        for key in mailbox.unbinding:
            self._unbind(mailbox, key)
        for binding in list(mailbox.bindings.values()):
            self._bind(binding)

    def fail(self, mailbox: Mailbox, problem: Failure) -> None:
        """Ends the wait of everybody at this mailbox."""
        for binding in list(mailbox.bindings.values()):
            self._fail(binding, problem)

    def unavailable(self) -> Failure:
        """Why nothing can be bound now."""
        reason = self._down or "it did not answer in time"
        return Failure("broker_unavailable", f"the broker is not available: {reason}", fatal=False)

    def sweep(self, now: float) -> None:
        """Called a few times a second: ends waits that lasted too long and bindings that lingered enough."""
        limit = now - (self._grace if self._down is not None else max(self._grace, REPLY_TIMEOUT))
        if self._waiting and self._age_from <= limit:
            for binding in [waiting for waiting in self._waiting if waiting.waiters[0][1] <= limit]:
                self._fail(binding, self.unavailable(), limit)
        while self._idle:
            binding, since = next(iter(self._idle.items()))
            if since > now - self._linger:
                break
            self._drop(binding)

    def _bind(self, binding: Binding) -> None:
        mailbox, channel = binding.mailbox, self._channel
        if not mailbox.ready or binding.sent or channel is None or channel.closed:
            return

        def reply(result: Reply) -> None:
            binding.sent = False
            if isinstance(result, bytes):
                if mailbox.ready and mailbox.bindings.get(binding.key) is binding:
                    self._bound(binding)
            elif isinstance(result, ChannelClosed) and result.culprit:
                if result.failure.code == "not_found":
                    self._on_missing(mailbox)
                else:
                    self._fail(binding, result.failure)

        try:
            channel.request(methods.queue_bind(mailbox.queue, mailbox.exchange, binding.key), reply)
        except ValueError as problem:
            self._fail(binding, Failure("precondition_failed", f"PRECONDITION_FAILED - {problem}", fatal=False))
        else:
            binding.sent = True
            self.binds += 1

    def _bound(self, binding: Binding) -> None:
        binding.bound = binding.sent = True
        self._waiting.pop(binding, None)
        if binding.count <= 0 and binding.mailbox.every is None:
            self._idle.setdefault(binding, self._clock())
        waiters, binding.waiters = binding.waiters, []
        for done, _ in waiters:
            _tell(done, None)

    def _fail(self, binding: Binding, problem: Failure, since: float | None = None) -> None:
        """Tells those who wait (``since`` given: at least since then); with nobody left, the binding goes."""
        told = [done for done, began in binding.waiters if since is None or began <= since]
        binding.waiters = binding.waiters[len(told) :]
        if not binding.waiters:
            self._waiting.pop(binding, None)
        # Whoever gave up while waiting has counted less already.
        binding.count = max(binding.count - len(told), len(binding.waiters))
        if told and not binding.count and binding.mailbox.every is None:
            self._drop(binding)
        for done in told:
            _tell(done, problem)

    def _drop(self, binding: Binding) -> None:
        """Nobody wants the key any more."""
        mailbox, key = binding.mailbox, binding.key
        self._idle.pop(binding, None)
        if binding.waiters or mailbox.bindings.get(key) is not binding:
            return
        del mailbox.bindings[key]
        if binding.sent or not mailbox.ready:
            mailbox.unbinding.add(key)
            self._unbind(mailbox, key)

    def _unbind(self, mailbox: Mailbox, key: str) -> None:
        channel = self._channel
        if not mailbox.ready or channel is None or channel.closed:
            return

        def reply(result: Reply) -> None:
            if isinstance(result, bytes) or (isinstance(result, ChannelClosed) and result.culprit):
                mailbox.unbinding.discard(key)

        channel.request(methods.queue_unbind(mailbox.queue, mailbox.exchange, key), reply)
        self.unbinds += 1

    def _closed(self, problem: Failure) -> None:
        self._channel = None
        self._on_closed(problem)


def _tell(done: Done, problem: Failure | None) -> None:
    try:
        done(problem)
    except Exception:
        _log.exception("bind_callback_failed")
