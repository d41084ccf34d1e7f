"""Bindings of the mailboxes: who waits for one, which linger, and the one channel on which they are made.

Requests are pipelined, yet RabbitMQ takes up to 1 ms for each: it writes a durable binding to its disk. So in a storm
of them a mailbox is bound to everything (``#``) for a while. That answers all who wait, and RabbitMQ goes on delivering
one copy of a message, however many bindings of a queue match it. Their keys are bound at a modest pace, and ``#`` goes
after the last of them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import structlog

from ..base import Done, Failure
from . import methods
from .channel import REPLY_TIMEOUT, Channel, ChannelClosed, Reply
from .fields import short_string

EVERYTHING = "#"
STORM = 48
"""Binds of one mailbox under way at which the next ones are a storm."""
PACE = 50
"""Keys bound while ``#`` stands in for them, and bindings given up that lingered enough, from one sweep to the next."""
CALM = 5.0
"""Seconds without a new key after which a storm is over."""
BACKLOG_SWEEPS = 40
"""Sweeps within which bindings that lingered enough are given up, however many."""

_log = structlog.get_logger(__name__)


class Binding:
    """One key of one mailbox and how many ask for it."""

    __slots__ = ("bound", "count", "key", "mailbox", "refused", "sent", "tried", "waiters")

    def __init__(self, mailbox: Mailbox, key: str) -> None:
        self.mailbox = mailbox
        self.key = key
        self.count = 0
        self.sent = False
        self.bound = False
        self.tried = False
        """It was sent over this link or a former one: the broker may have it."""
        self.refused = False
        """The broker does not bind it, while ``#`` already brings what belongs to it."""
        self.waiters: list[tuple[Done, float]] = []


class Mailbox:
    """One exchange's queue. ``every`` is the one key that is bound when each key would be a waste, else ``None``;
    ``auto``: ``#`` may stand in for the keys during a storm."""

    __slots__ = (
        "auto",
        "bindings",
        "consuming",
        "every",
        "exchange",
        "flying",
        "generation",
        "later",
        "opening",
        "queue",
        "ready",
        "retry_at",
        "shelter",
        "stirred",
        "unbinding",
    )

    def __init__(self, exchange: str, every: str | None, auto: bool = False) -> None:
        self.exchange = exchange
        self.every = every
        self.auto = auto
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
        self.flying = 0
        """Binds that the broker has not answered yet."""
        self.shelter: Binding | None = None
        """``#`` during a storm; it counts as one more who wants it."""
        self.later: dict[Binding, None] = {}
        """Keys to be bound behind it."""
        self.stirred = 0.0
        """When the last of them came."""
        if every is not None:
            self.bindings[every] = Binding(self, every)

    @property
    def sheltered(self) -> bool:
        """Whether what belongs to any key comes already."""
        return self.shelter is not None and self.shelter.bound

    def unready(self) -> None:
        """Nothing is known to be bound any more."""
        self.ready = False
        for binding in self.bindings.values():
            binding.bound = binding.sent = binding.refused = False


class Bindings:
    """``on_missing`` is told of a mailbox whose exchange or queue is gone; ``on_closed`` that the broker closed the
    channel, so that ``attach`` must be called with a new one; ``on_revoked``, which the owner may set, that a key is
    refused which was bound before and which somebody still relies on."""

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
        self.storms = 0
        self.on_revoked: Callable[[Failure], None] = _ignore
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
        self._stormy: dict[Mailbox, None] = {}

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
        try:
            short_string(key)
        except ValueError as problem:
            done(Failure("precondition_failed", f"PRECONDITION_FAILED - {problem}", fatal=False))
            return
        binding = self._count(mailbox, key)
        if binding.bound or mailbox.sheltered:
            if not binding.sent:
                self._bind_later(binding)
            done(None)
            return
        binding.waiters.append((done, self._clock()))
        self._waiting[binding] = None
        if mailbox.auto and mailbox.shelter is None and mailbox.flying >= STORM:
            self._shelter(mailbox)
        if mailbox.shelter is None:
            self._bind(binding)
        elif not binding.sent:
            self._bind_later(binding)

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
        outstanding = [binding for binding in mailbox.bindings.values() if not binding.sent]
        if mailbox.auto and mailbox.shelter is None and len(outstanding) > STORM:
            self._shelter(mailbox)
        if mailbox.shelter is not None:
            self._bind(mailbox.shelter)
        for binding in outstanding:
            if mailbox.shelter is None:
                self._bind(binding)
            elif binding is not mailbox.shelter and not binding.refused:
                self._bind_later(binding)

    def fail(self, mailbox: Mailbox, problem: Failure) -> None:
        """Ends the wait of everybody at this mailbox."""
        for binding in list(mailbox.bindings.values()):
            self._fail(binding, problem)
        if mailbox.shelter is not None and len(mailbox.bindings) == 1:
            self._unshelter(mailbox)

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
        # A bind that comes now waits for those before it: not for thousands.
        most = max(PACE, len(self._idle) // BACKLOG_SWEEPS)
        for binding, since in list(islice(self._idle.items(), most)):
            if since > now - self._linger:
                break
            self._drop(binding)
        for mailbox in list(self._stormy):
            self._calm(mailbox, now)

    def _count(self, mailbox: Mailbox, key: str) -> Binding:
        binding = mailbox.bindings.get(key)
        if binding is None:
            binding = mailbox.bindings[key] = Binding(mailbox, key)
            binding.tried = key in mailbox.unbinding
            mailbox.unbinding.discard(key)
        self._idle.pop(binding, None)
        binding.count += 1
        return binding

    def _bind_later(self, binding: Binding) -> None:
        binding.mailbox.later[binding] = None
        binding.mailbox.stirred = self._clock()

    def _shelter(self, mailbox: Mailbox) -> None:
        """A storm begins."""
        mailbox.shelter = self._count(mailbox, EVERYTHING)
        mailbox.stirred = self._clock()
        self._stormy[mailbox] = None
        self.storms += 1
        if mailbox.shelter.bound:
            # Somebody listens to everything anyway.
            self._answer_all(mailbox)
        else:
            self._bind(mailbox.shelter)

    def _calm(self, mailbox: Mailbox, now: float) -> None:
        """Binds some of the keys that ``#`` stands in for; without any left, it goes."""
        if not mailbox.sheltered or self._channel is None or self._channel.closed:
            return
        while mailbox.later and mailbox.flying < PACE:
            binding = next(iter(mailbox.later))
            del mailbox.later[binding]
            if binding.count > 0:
                self._bind(binding)
            else:
                self._drop(binding)
        calm = not mailbox.later and mailbox.stirred <= now - CALM
        if calm and all(binding.bound for binding in mailbox.bindings.values()):
            self._unshelter(mailbox)

    def _unshelter(self, mailbox: Mailbox) -> None:
        binding, mailbox.shelter = mailbox.shelter, None
        assert binding is not None
        self._stormy.pop(mailbox, None)
        mailbox.later.clear()
        binding.count -= 1
        if binding.count <= 0:
            self._drop(binding)

    def _bind(self, binding: Binding) -> None:
        mailbox, channel = binding.mailbox, self._channel
        if not mailbox.ready or binding.sent or channel is None or channel.closed:
            return

        def reply(result: Reply) -> None:
            binding.sent = False
            mailbox.flying -= 1
            if isinstance(result, bytes):
                if mailbox.ready and mailbox.bindings.get(binding.key) is binding:
                    self._bound(binding)
            elif isinstance(result, ChannelClosed) and result.culprit:
                binding.tried = False
                if result.failure.code == "not_found":
                    self._on_missing(mailbox)
                else:
                    self._refused(binding, result.failure)

        channel.request(methods.queue_bind(mailbox.queue, mailbox.exchange, binding.key), reply)
        binding.sent = binding.tried = True
        mailbox.flying += 1
        self.binds += 1

    def _bound(self, binding: Binding) -> None:
        binding.bound = binding.sent = True
        if binding.count <= 0 and binding.mailbox.every is None:
            self._idle.setdefault(binding, self._clock())
        self._answer(binding)
        if binding is binding.mailbox.shelter:
            self._answer_all(binding.mailbox)

    def _answer_all(self, mailbox: Mailbox) -> None:
        for binding in list(mailbox.bindings.values()):
            self._answer(binding)

    def _answer(self, binding: Binding) -> None:
        """What belongs to the key comes from now on."""
        self._waiting.pop(binding, None)
        waiters, binding.waiters = binding.waiters, []
        for done, _ in waiters:
            _tell(done, None)

    def _refused(self, binding: Binding, problem: Failure) -> None:
        mailbox = binding.mailbox
        if binding is mailbox.shelter:
            _log.warning("bound_key_by_key", exchange=mailbox.exchange, reason=problem.text)
            mailbox.auto = False
            self._unshelter(mailbox)
        elif mailbox.sheltered:
            _log.warning("key_not_bound", exchange=mailbox.exchange, key=binding.key, reason=problem.text)
            binding.refused = True
        self._fail(binding, problem)

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
        if problem.code == "access_refused" and binding.count > len(binding.waiters):
            self.on_revoked(problem)

    def _drop(self, binding: Binding) -> None:
        """Nobody wants the key any more."""
        mailbox, key = binding.mailbox, binding.key
        self._idle.pop(binding, None)
        mailbox.later.pop(binding, None)
        if binding.waiters or mailbox.bindings.get(key) is not binding:
            return
        del mailbox.bindings[key]
        if binding.tried:
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


def _ignore(_problem: Failure) -> None:
    """Those who rely on the key are not told."""
