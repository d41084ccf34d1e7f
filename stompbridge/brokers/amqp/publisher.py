"""The publisher: one confirm channel, many messages in flight, nothing taken is lost.

A message is *held* from ``publish`` until its ``done`` was called: unconfirmed on the channel, waiting for one, behind
the check of its exchange, or among the suspects after the broker closed the channel. No sockets and no event loop in
here: the owner gives channels and calls ``sweep`` a few times a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

import structlog

from ...histogram import Histogram
from ..base import Done, Failure, Message
from .codec import encode_publish
from .exchanges import Exchanges, blamed, named_in
from .held import Entry, PublishChannel, by_order, identity, unavailable
from .methods import failure
from .splitter import Confirm, Returned

CONFIRM_TIMEOUT = 30.0
"""The least number of seconds that a confirm may take while the broker is there."""
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
"""A pseudo-queue for answers on the publishing channel, on which nobody listens here: the broker would close it."""

_log = structlog.get_logger(__name__)


class Publisher:
    """``check`` finds out whether an exchange exists, ``reopen`` asks for a new channel after the broker closed this
    one, ``on_change`` tells that ``congested`` may have changed, ``clock`` gives monotonic seconds. ``latency`` is told
    how long each confirmed message was held."""

    def __init__(
        self,
        *,
        max_messages: int,
        max_bytes: int,
        grace: float,
        wait_when_down: bool,
        exchanges: Exchanges,
        check: Callable[[str, Done], None],
        reopen: Callable[[], None],
        on_change: Callable[[], None],
        clock: Callable[[], float],
        latency: Histogram,
    ) -> None:
        self.user = ""
        """The login that messages' ``user_id`` must name."""
        self.congested = False
        """Too much is held; false again at three quarters of the limits."""
        self.on_empty: Callable[[], None] | None = None
        """Called when nothing is held any more."""
        self.published = 0
        self.confirmed = 0
        self.nacked = 0
        self.returned = 0
        self.republished = 0
        self.refused = 0
        self.expired = 0
        self.overflowed = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._grace = grace
        self._wait_when_down = wait_when_down
        self._exchanges = exchanges
        self._check = check
        self._reopen = reopen
        self._on_change = on_change
        self._clock = clock
        self._latency = latency
        self._channel: PublishChannel | None = None
        self._down: str | None = "not connected yet"
        self._blocked = False
        self._count = 0
        self._bytes = 0
        self._order = 0
        self._tag = 0
        self._unconfirmed: dict[int, Entry] = {}
        self._waiting: deque[Entry] = deque()
        self._checking: dict[str, list[Entry]] = {}
        self._suspects: deque[Entry] = deque()
        self._mandatory: dict[tuple[str, str | None, str | None, int], deque[Entry]] = {}
        # Messages age from here at the earliest: the last time that the broker went, came or was unblocked.
        self._age_from = clock()

    @property
    def held(self) -> int:
        """Messages whose ``done`` was not called yet."""
        return self._count

    @property
    def held_bytes(self) -> int:
        return self._bytes

    @property
    def unconfirmed(self) -> int:
        """Messages that the broker has got and not confirmed."""
        return len(self._unconfirmed)

    def publish(self, message: Message, done: Done) -> None:
        """See :meth:`stompbridge.brokers.base.Broker.publish`."""
        if message.user_id is not None and message.user_id != self.user:
            text = (
                f"PRECONDITION_FAILED - user_id property set to '{message.user_id}' "
                f"but authenticated user was '{self.user}'"
            )
            done(Failure("precondition_failed", text))
            return
        if message.reply_to == DIRECT_REPLY_TO:
            done(Failure("precondition_failed", "PRECONDITION_FAILED - fast reply consumer does not exist"))
            return
        if self._down is not None and not self._wait_when_down:
            done(unavailable(self._down))
            return
        if self._count >= 2 * self._max_messages or self._bytes >= 2 * self._max_bytes:
            self.overflowed += 1
            done(unavailable("too many messages are waiting for it"))
            return
        self._order += 1
        entry = Entry(message, done, self._order, self._clock())
        self._count += 1
        self._bytes += entry.size
        if not self.congested and (self._count > self._max_messages or self._bytes > self._max_bytes):
            self.congested = True
        if self._channel is None or self._suspects:
            self._waiting.append(entry)
        else:
            self._dispatch(entry)

    def attach(self, channel: PublishChannel) -> None:
        """A new channel in confirm mode: what is held goes out in its order, unless suspects go first."""
        self._channel = channel
        self._down = None
        self._tag = 0
        self._age_from = self._clock()
        if self._suspects:
            self._send(self._suspects[0])
        else:
            self._drain()

    def detach(self, reason: str, problem: Failure | None = None) -> None:
        """The broker is away. What is held waits for its return. ``problem`` is given when it closed the connection for
        something that was published."""
        culprits: list[Entry] = []
        if problem is not None and self._channel is not None:
            culprits = self._accuse(problem)
        if self._down is None:
            # Later failures to connect are the same outage.
            self._age_from = self._clock()
        self._down = reason
        self._withdraw()
        for entry in culprits:
            self._refuse(entry, problem or unavailable(reason))
        if not self._wait_when_down:
            self.fail_all(unavailable(reason))

    def stop(self, reason: str) -> None:
        """No channel will come any more: everything held fails, and so does what still comes."""
        self._wait_when_down = False
        self.detach(reason)

    def channel_closed(self, problem: Failure) -> None:
        """The broker closed the channel for something published on it. Whose it was gets the failure, the rest is
        published again on the channel that ``reopen`` brings."""
        culprits = self._accuse(problem)
        named = named_in(problem.text)
        if named is not None:
            self._exchanges.refused(*named, problem)
        self._reopen()
        for entry in culprits:
            self._refuse(entry, problem)

    def _accuse(self, problem: Failure) -> list[Entry]:
        """Takes everything back from a channel that is closed, and picks out those whose fault it is. Where that cannot
        be said, all that was in flight is suspect, and goes out one at a time until one of them does it again."""
        in_flight = list(self._unconfirmed.values())
        probing = bool(self._suspects)
        self._withdraw()
        culprits = blamed(problem.text, list(self._suspects) if probing else in_flight)
        if probing and not culprits:
            culprits = in_flight[:1]
        guilty = {entry.order for entry in culprits}
        if not probing and not culprits and in_flight:
            self._suspects = deque(in_flight)
            guilty = {entry.order for entry in in_flight}
        else:
            self._suspects = deque(entry for entry in self._suspects if entry.order not in guilty)
        self._waiting = deque(entry for entry in self._waiting if entry.order not in guilty)
        return culprits

    def _refuse(self, entry: Entry, problem: Failure) -> None:
        self.refused += 1
        self._finish(entry, problem)

    def on_confirm(self, confirm: Confirm) -> None:
        """Basic.Ack and Basic.Nack."""
        unconfirmed, tag = self._unconfirmed, confirm.tag
        if confirm.multiple:
            entries = []
            for known in unconfirmed:
                if tag and known > tag:
                    break
                entries.append(known)
            settled = [unconfirmed.pop(known) for known in entries]
        else:
            entry = unconfirmed.pop(tag, None)
            settled = [entry] if entry is not None else []
        rejection = None
        if confirm.ack:
            self.confirmed += len(settled)
            now = self._clock()
            for entry in settled:
                self._latency.observe(now - entry.since)
        else:
            self.nacked += len(settled)
            rejection = Failure("rejected", "the broker rejected the message", fatal=False)
        for entry in settled:
            if entry.message.exchange == "":
                self._forget_mandatory(entry)
            self._finish(entry, rejection or entry.returned)
        if self._suspects and settled:
            self._next_suspect(settled)

    def on_returned(self, returned: Returned) -> None:
        """Basic.Return, which comes before the confirm of the same message."""
        message = returned.message
        entries = self._mandatory.get((message.routing_key, message.message_id, message.sender, message.seq))
        if not entries:
            return
        self.returned += 1
        entry = entries.popleft()
        problem = failure(returned.code, returned.text)
        text = f"{problem.text} - no queue '{message.routing_key}'"
        entry.returned = Failure(problem.code, text, fatal=False)

    def sweep(self, now: float) -> None:
        """Called a few times a second: what has waited for longer than the grace fails."""
        self._exchanges.sweep(now)
        grace = self._grace if self._down is not None else max(self._grace, CONFIRM_TIMEOUT)
        limit = now - grace
        if self._blocked or self._age_from > limit or not any(entry.since <= limit for entry in self._oldest()):
            return
        late = [entry for entry in self._all() if entry.since <= limit]
        reason = self._down or f"no confirm within {grace:g} s"
        orders = {entry.order for entry in late}
        probing = bool(self._suspects)
        self._unconfirmed = {tag: entry for tag, entry in self._unconfirmed.items() if entry.order not in orders}
        self._waiting = deque(entry for entry in self._waiting if entry.order not in orders)
        self._suspects = deque(entry for entry in self._suspects if entry.order not in orders)
        for entries in self._checking.values():
            entries[:] = [entry for entry in entries if entry.order not in orders]
        for entry in late:
            self.expired += 1
            if entry.message.exchange == "":
                self._forget_mandatory(entry)
            self._finish(entry, unavailable(reason))
        if probing:
            self._next_suspect(late)

    def blocked(self, blocked: bool) -> None:
        """A resource alarm of the broker: messages do not age while it lasts."""
        self._blocked = blocked
        self._age_from = self._clock()

    def fail_all(self, problem: Failure) -> None:
        """Ends the wait of everything that is held."""
        entries = sorted(self._all(), key=by_order)
        self._unconfirmed.clear()
        self._waiting.clear()
        self._suspects.clear()
        self._checking.clear()
        self._mandatory.clear()
        for entry in entries:
            self._finish(entry, problem)

    def _oldest(self) -> Iterator[Entry]:
        queues: list[Collection[Entry]] = [self._unconfirmed.values(), self._waiting, self._suspects]
        queues += self._checking.values()
        return (next(iter(queue)) for queue in queues if queue)

    def _all(self) -> list[Entry]:
        suspects = {entry.order for entry in self._suspects}
        entries = [*self._suspects, *self._waiting]
        entries += (entry for entry in self._unconfirmed.values() if entry.order not in suspects)
        for checked in self._checking.values():
            entries += checked
        return entries

    def _withdraw(self) -> None:
        """Everything unconfirmed or being checked goes back to those that wait, suspects apart, in the first order."""
        suspects = {entry.order for entry in self._suspects}
        entries = [entry for entry in self._all() if entry.order not in suspects]
        entries.sort(key=by_order)
        self._channel = None
        self._unconfirmed.clear()
        self._checking.clear()
        self._mandatory.clear()
        self._waiting = deque(entries)

    def _drain(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            self._dispatch(entry)

    def _dispatch(self, entry: Entry) -> None:
        exchange = entry.message.exchange
        refusal = self._exchanges.refusal(entry.message)
        if refusal is not None:
            self._refuse(entry, refusal)
            return
        if self._exchanges.known(exchange):
            self._send(entry)
            return
        behind = self._checking.get(exchange)
        if behind is not None:
            behind.append(entry)
            return
        entries = self._checking[exchange] = [entry]

        def checked(problem: Failure | None) -> None:
            if self._checking.get(exchange) is not entries:
                return  # the channel was lost meanwhile, and they wait for the next one
            del self._checking[exchange]
            if problem is None:
                self._exchanges.found(exchange)
                for held in entries:
                    self._send(held)
                return
            self._exchanges.refused(exchange, None, problem)
            for held in entries:
                self._refuse(held, problem)

        self._check(exchange, checked)

    def _send(self, entry: Entry) -> None:
        channel, message = self._channel, entry.message
        assert channel is not None
        mandatory = message.exchange == ""
        try:
            data = encode_publish(channel.number, message, channel.frame_max, mandatory)
        except (ValueError, RecursionError) as problem:
            text = f"PRECONDITION_FAILED - the message cannot be sent: {problem}"
            self._refuse(entry, Failure("precondition_failed", text, fatal=False))
            if self._suspects:
                self._next_suspect([entry])
            return
        if entry.tag:
            self.republished += 1
        self._tag += 1
        entry.tag = self._tag
        entry.returned = None
        self._unconfirmed[self._tag] = entry
        if mandatory:
            self._mandatory.setdefault(identity(message), deque()).append(entry)
        self.published += 1
        channel.send(data)

    def _next_suspect(self, settled: list[Entry]) -> None:
        """One suspect was let off or failed: the next, or all that waited behind them."""
        orders = {entry.order for entry in settled}
        self._suspects = deque(entry for entry in self._suspects if entry.order not in orders)
        if self._channel is None or self._unconfirmed:
            return
        if self._suspects:
            self._send(self._suspects[0])
        else:
            self._drain()

    def _finish(self, entry: Entry, problem: Failure | None) -> None:
        self._count -= 1
        self._bytes -= entry.size
        if self.congested and 4 * self._count <= 3 * self._max_messages and 4 * self._bytes <= 3 * self._max_bytes:
            self.congested = False
            self._on_change()
        try:
            entry.done(problem)
        except Exception:
            _log.exception("publish_callback_failed")
        if not self._count and self.on_empty is not None:
            self.on_empty()

    def _forget_mandatory(self, entry: Entry) -> None:
        name = identity(entry.message)
        entries = self._mandatory.get(name)
        if entries is not None:
            if entry in entries:
                entries.remove(entry)
            if not entries:
                del self._mandatory[name]
