"""Senders' repetitions in Redis: who may publish a message, and those who wait for what comes of it."""

from __future__ import annotations

import asyncio
from collections import deque
from secrets import token_hex
from typing import Any, ClassVar
from urllib.parse import quote

from stompbridge.dedup import scripts
from stompbridge.dedup.redis_queue import Operation, OperationQueue, Settlement
from stompbridge.dedup.store import Begun, Counters, Outcome, Settled, StoreOptions

_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_RENEWALS_PER_TTL = 4


class Senders:
    """The keys that someone in this process publishes a message for, or waits for."""

    def __init__(self, queue: OperationQueue, options: StoreOptions, counters: Counters) -> None:
        self.queue = queue
        self.counters = counters
        self._prefix = options.prefix
        self._patience = options.lock_ttl
        self._max_waiting = options.max_waiting
        self._renew_at = 0.0
        self._renew_interval = options.lock_ttl / _RENEWALS_PER_TTL
        self._inquiries: dict[tuple[str, str], _Inquiry] = {}
        self._waiting = 0
        self._owner = token_hex(8)
        self._tokens = 0
        self._timer: asyncio.TimerHandle | None = None

    def token(self) -> str:
        """An attempt's token: no other attempt of any process has it, and none can guess it."""
        self._tokens += 1
        return f"{self._owner}.{self._tokens}"

    def begin(self, key: str, digest: str, done: Begun) -> None:
        inquiry = self._inquiries.get((key, digest))
        if inquiry is None:
            # Quoted, a key can not end the hash tag.
            name = f"{self._prefix}:{{k:{quote(key, safe='', errors='surrogatepass')}}}".encode()
            inquiry = self._inquiries[key, digest] = _Inquiry(self, key, digest, name)
            inquiry.add(done)
            inquiry.ask()
        elif self._waiting >= self._max_waiting:
            done(Outcome.IN_FLIGHT)
        else:
            inquiry.add(done)

    def sweep(self, now: float) -> None:
        """Ends the waits that have taken too long."""
        for inquiry in list(self._inquiries.values()):
            inquiry.give_up(now)
        if now >= self._renew_at:
            self._renew_at = now + self._renew_interval
            self.renew()

    def renew(self) -> None:
        """Puts off the deadlines of this process's attempts."""
        for inquiry in self._inquiries.values():
            if inquiry.attempt is not None:
                self.queue.submit(_Renewal(inquiry.name, inquiry.attempt.token))

    def on_lost(self) -> None:
        """The server can not be asked about other processes' attempts any more. What comes of those of this process
        is known here."""
        for inquiry in list(self._inquiries.values()):
            if inquiry.due is not None:
                inquiry.end(Outcome.UNAVAILABLE)

    def stop(self) -> None:
        for inquiry in list(self._inquiries.values()):
            inquiry.end(Outcome.UNAVAILABLE)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # For the inquiries

    def forget(self, inquiry: _Inquiry) -> None:
        if self._inquiries.get((inquiry.key, inquiry.digest)) is inquiry:
            del self._inquiries[inquiry.key, inquiry.digest]

    def deadline(self) -> float:
        """When somebody who begins to wait now gives up."""
        return asyncio.get_running_loop().time() + self._patience

    def count(self, change: int) -> None:
        self._waiting += change

    def ask_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SHORTEST_PAUSE, self._ask_again)

    def _ask_again(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for inquiry in list(self._inquiries.values()):
            if inquiry.due is not None:
                if inquiry.due <= now:
                    inquiry.ask()
                else:
                    self.ask_later()


class _Inquiry:
    """One key and body: this process's attempt, and everyone here who wants to know what comes of it."""

    __slots__ = ("_pause", "_senders", "_waiters", "attempt", "digest", "due", "key", "name")

    def __init__(self, senders: Senders, key: str, digest: str, name: bytes) -> None:
        self._senders = senders
        self._waiters: deque[tuple[Begun, float]] = deque()
        self._pause = _SHORTEST_PAUSE
        self.key = key
        self.digest = digest
        self.name = name
        self.attempt: RedisAttempt | None = None
        self.due: float | None = None  # when to ask again, since another process has the right

    def add(self, waiter: Begun) -> None:
        self._waiters.append((waiter, self._senders.deadline()))
        self._senders.count(1)

    def ask(self) -> None:
        self.due = None
        self._senders.queue.submit(_Begin(self._senders, self))

    def grant(self, attempt: RedisAttempt) -> None:
        """This process may publish the message."""
        if not self._waiters:
            self._senders.forget(self)
            attempt.abandon()
            return
        self.attempt = attempt
        waiter, _ = self._waiters.popleft()
        self._senders.count(-1)
        waiter(attempt)

    def wait(self) -> None:
        """Another process publishes it: asks again after a while."""
        if not self._waiters:
            self._senders.forget(self)
            return
        self.due = asyncio.get_running_loop().time() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._senders.ask_later()

    def give_up(self, now: float) -> None:
        late: list[Begun] = []
        while self._waiters and self._waiters[0][1] <= now:
            late.append(self._waiters.popleft()[0])
        self._senders.count(-len(late))
        if self.due is not None and not self._waiters:
            self._senders.forget(self)
        for waiter in late:
            waiter(Outcome.IN_FLIGHT)

    def end(self, outcome: Outcome) -> None:
        """Everyone gets the answer."""
        self.due = None
        self._senders.forget(self)
        waiters, self._waiters = self._waiters, deque()
        self._senders.count(-len(waiters))
        if outcome is Outcome.UNAVAILABLE:
            self._senders.counters.unavailable += len(waiters)
        for waiter, _ in waiters:
            waiter(outcome)

    def settled(self, attempt: RedisAttempt, finished: bool) -> None:
        """This process's attempt has ended."""
        if self.attempt is not attempt:
            return
        self.attempt = None
        if finished:
            self.end(Outcome.DONE)
        elif self._waiters:
            self.ask()
        else:
            self._senders.forget(self)


class RedisAttempt:
    """Implements :class:`stompbridge.dedup.store.Attempt`."""

    __slots__ = ("_inquiry", "_senders", "in_doubt", "token")

    def __init__(self, senders: Senders, inquiry: _Inquiry, token: str, in_doubt: bool) -> None:
        self._senders = senders
        self._inquiry = inquiry
        self.token = token
        self.in_doubt = in_doubt

    def finish(self, done: Settled | None = None) -> None:
        self._settle(b"F", done)
        self._inquiry.settled(self, True)

    def abandon(self, done: Settled | None = None) -> None:
        self._settle(b"A", done)
        self._inquiry.settled(self, False)

    def _settle(self, letter: bytes, done: Settled | None) -> None:
        senders = self._senders
        senders.queue.submit(Settlement(senders.counters, (self._inquiry.name,), (letter, self.token), done))


class _Begin:
    __slots__ = ("_inquiry", "_senders", "_token", "args", "keys")
    lasting: ClassVar[bool] = False

    def __init__(self, senders: Senders, inquiry: _Inquiry) -> None:
        self._senders = senders
        self._inquiry = inquiry
        self._token = senders.token()
        self.keys = (inquiry.name,)
        self.args = (b"B", inquiry.digest.encode("utf-8", "surrogatepass"), self._token)

    def answer(self, reply: Any) -> None:
        if reply == scripts.DONE:
            self._inquiry.end(Outcome.DONE)
        elif reply == scripts.MISMATCH:
            self._inquiry.end(Outcome.MISMATCH)
        elif reply == scripts.IN_FLIGHT:
            self._inquiry.wait()
        else:
            in_doubt = reply == scripts.IN_DOUBT
            self._senders.counters.in_doubt += in_doubt
            self._inquiry.grant(RedisAttempt(self._senders, self._inquiry, self._token, in_doubt))

    def refuse(self) -> None:
        self._inquiry.end(Outcome.UNAVAILABLE)

    def undo(self) -> Operation:
        return Settlement(self._senders.counters, self.keys, (b"A", self._token), repeated=True)


class _Renewal:
    __slots__ = ("args", "keys")
    lasting: ClassVar[bool] = False

    def __init__(self, name: bytes, token: str) -> None:
        self.keys = (name,)
        self.args = (b"E", token)

    def answer(self, reply: Any) -> None:
        """Where it came too late, the attempt's settlement has no effect."""

    def refuse(self) -> None:
        """All are renewed when the server is back."""

    def undo(self) -> None:
        """All are renewed when the server is back."""
