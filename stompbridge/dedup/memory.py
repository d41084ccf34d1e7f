"""The store of one process: everything is answered from inside the call and is gone with the process."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from time import monotonic

from stompbridge.dedup.store import (
    Begun,
    Changed,
    Claimed,
    Counters,
    Identity,
    Opened,
    Outcome,
    Refusal,
    Settled,
    StoreOptions,
)
from stompbridge.dedup.window import SequenceWindow, Verdict


class MemoryStore:
    """Implements :class:`stompbridge.dedup.store.Store`. ``clock`` counts seconds."""

    def __init__(self, options: StoreOptions, clock: Callable[[], float] = monotonic) -> None:
        self.options = options
        self.clock = clock
        self.available = True
        self.counters = Counters()
        self.on_change: Changed = lambda _available, _reason: None
        self.lock_ttl = options.lock_ttl
        self._histories: dict[str, _History] = {}
        self._attempts: dict[str, _MemoryAttempt] = {}
        self._done: OrderedDict[str, tuple[str, float]] = OrderedDict()  # digest and end, in the order of the end
        self._waiting = 0
        self._fence = 0
        self._next_sweep = 0.0

    async def start(self) -> None:
        """Nothing to wait for."""

    async def stop(self) -> None:
        """Whoever still waits for an attempt is told that nothing is known."""
        self.available = False
        for history in self._histories.values():
            history.session.held = False
        self.counters.unavailable += self._waiting
        for attempt in self._attempts.values():
            self._answer_waiters(attempt, Outcome.UNAVAILABLE)

    # Receivers

    def open(self, name: str, on_taken_over: Callable[[], None], done: Opened) -> None:
        if not self.available:
            self.counters.unavailable += 1
            done(None)
            return
        self._fence += 1
        history = self._histories.get(name)
        if history is None:
            history = self._histories[name] = _History(self.options)
            session = history.session = _MemoryReceiver(self, name, self._fence, history, on_taken_over)
        else:
            older = history.session
            session = history.session = _MemoryReceiver(self, name, self._fence, history, on_taken_over)
            older.lose()
        done(session)

    def discard(self, name: str) -> None:
        history = self._histories.pop(name, None)
        if history is not None:
            history.locks.clear()
            history.session.lose()

    # Senders

    def begin(self, key: str, digest: str, done: Begun) -> None:
        if not self.available:
            self.counters.unavailable += 1
            done(Outcome.UNAVAILABLE)
            return
        now = self.clock()
        found = self._done.get(key)
        if found is not None and found[1] > now:
            done(Outcome.DONE if found[0] == digest else Outcome.MISMATCH)
            return
        attempt = self._attempts.get(key)
        if attempt is None:
            attempt = self._attempts[key] = _MemoryAttempt(self, key, digest)
            done(attempt)
        elif attempt.digest != digest:
            done(Outcome.MISMATCH)
        elif self._waiting >= self.options.max_waiting:
            done(Outcome.IN_FLIGHT)
        else:
            self._waiting += 1
            attempt.waiters.append((done, now + self.lock_ttl))

    def settle(self, attempt: _MemoryAttempt, finished: bool, done: Settled | None) -> None:
        """Ends an attempt and lets those go on who wait for it."""
        effect = self._attempts.get(attempt.key) is attempt
        if not effect:
            self.counters.void += 1
        elif finished:
            del self._attempts[attempt.key]
            self._done.pop(attempt.key, None)
            self._done[attempt.key] = (attempt.digest, self.clock() + self.options.idempotency_window)
            if len(self._done) > self.options.max_keys:
                self._done.popitem(last=False)
                self.counters.evicted += 1
            self._answer_waiters(attempt, Outcome.DONE)
        elif attempt.waiters:
            heir = self._attempts[attempt.key] = _MemoryAttempt(self, attempt.key, attempt.digest)
            waiter, _ = attempt.waiters.popleft()
            heir.waiters, attempt.waiters = attempt.waiters, heir.waiters
            self._waiting -= 1
            waiter(heir)
        else:
            del self._attempts[attempt.key]
        if done is not None:
            done(effect)

    def _answer_waiters(self, attempt: _MemoryAttempt, outcome: Outcome) -> None:
        waiters, attempt.waiters = attempt.waiters, deque()
        self._waiting -= len(waiters)
        for waiter, _ in waiters:
            waiter(outcome)

    # Time

    def when_available(self, callback: Callable[[], None]) -> None:
        callback()

    def sweep(self) -> None:
        now = self.clock()
        late: list[Begun] = []
        for attempt in self._attempts.values():
            while attempt.waiters and attempt.waiters[0][1] <= now:
                late.append(attempt.waiters.popleft()[0])
        self._waiting -= len(late)
        while self._done and next(iter(self._done.values()))[1] <= now:
            self._done.popitem(last=False)
        if now >= self._next_sweep:
            self._next_sweep = now + self.options.history_ttl / 8
            for name, history in list(self._histories.items()):
                if history.sweep(now):
                    del self._histories[name]
        for waiter in late:
            waiter(Outcome.IN_FLIGHT)


class _Window(SequenceWindow):
    """What was delivered of one sender, and when the last of it."""

    __slots__ = ("used",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.used = 0.0


class _History:
    """What was delivered to one receiver, and its newest session."""

    __slots__ = ("_keep", "_max_ids", "_ttl", "closed", "ids", "locks", "session", "window", "windows")

    def __init__(self, options: StoreOptions) -> None:
        self.window = options.window
        self.windows: dict[str, _Window] = {}
        self.ids: OrderedDict[str, float] = OrderedDict()  # the end of each, in that order
        self.locks: dict[Identity, _MemoryLock] = {}
        self.session: _MemoryReceiver
        self.closed = 0.0
        self._ttl = options.history_ttl
        self._max_ids = options.max_ids
        # Beyond the deadline.
        self._keep = max(options.history_ttl - options.lock_ttl, 0)

    def remember(self, message_id: str, now: float) -> int:
        """Records a message id; returns how many were forgotten for it before their time."""
        self.ids.pop(message_id, None)
        self.ids[message_id] = now + self._ttl
        if len(self.ids) <= self._max_ids:
            return 0
        self.ids.popitem(last=False)
        return 1

    def sweep(self, now: float) -> bool:
        """Forgets what is over its time; True when that is everything."""
        oldest = now - self._ttl
        for sender in [sender for sender, window in self.windows.items() if window.used <= oldest]:
            del self.windows[sender]
        while self.ids and next(iter(self.ids.values())) <= now:
            self.ids.popitem(last=False)
        for identity in [identity for identity, lock in self.locks.items() if lock.deadline + self._keep <= now]:
            del self.locks[identity]
        return not self.session.held and self.closed <= oldest


class _MemoryReceiver:
    """Implements :class:`stompbridge.dedup.store.Receiver`."""

    __slots__ = ("_on_taken_over", "fence", "held", "history", "name", "store")

    def __init__(
        self, store: MemoryStore, name: str, fence: int, history: _History, on_taken_over: Callable[[], None]
    ) -> None:
        self._on_taken_over = on_taken_over
        self.store = store
        self.history = history
        self.name = name
        self.fence = fence
        self.held = True

    def claim(self, identity: Identity, done: Claimed) -> None:
        history = self.history
        store = self.store
        if not self.held:
            store.counters.unavailable += not store.available
            done(Refusal.STALE if store.available else Refusal.UNAVAILABLE)
            return
        now = store.clock()
        if isinstance(identity, str):
            if history.ids.get(identity, now) > now:
                done(Refusal.DUPLICATE)
                return
        else:
            sender, number = identity
            window = history.windows.get(sender)
            if window is not None and number <= window.highest:
                verdict = window.check(number)
                if verdict is not Verdict.NEW:
                    done(Refusal.DUPLICATE if verdict is Verdict.DUPLICATE else Refusal.TOO_OLD)
                    return
        lock = _MemoryLock(self, identity, now + store.lock_ttl)
        older = history.locks.get(identity)
        if older is not None:
            if older.receiver is self and older.deadline > now:
                done(Refusal.BUSY)
                return
            lock.in_doubt = True
            store.counters.in_doubt += 1
        history.locks[identity] = lock
        done(lock)

    def close(self) -> None:
        if self.held:
            self.held = False
            self.history.closed = self.store.clock()

    def lose(self) -> None:
        """Another session has the receiver now."""
        if self.held:
            self.held = False
            self.store.counters.taken_over += 1
            self._on_taken_over()


class _MemoryLock:
    """Implements :class:`stompbridge.dedup.store.Lock`. The object itself is the owner's token."""

    __slots__ = ("deadline", "identity", "in_doubt", "receiver")

    def __init__(self, receiver: _MemoryReceiver, identity: Identity, deadline: float) -> None:
        self.receiver = receiver
        self.identity = identity
        self.deadline = deadline
        self.in_doubt = False

    def commit(self, done: Settled | None = None) -> None:
        receiver = self.receiver
        effect = self._unlock(receiver)
        if effect:
            history = receiver.history
            identity = self.identity
            now = receiver.store.clock()
            if isinstance(identity, str):
                receiver.store.counters.evicted += history.remember(identity, now)
            else:
                sender, number = identity
                window = history.windows.get(sender)
                if window is None:
                    window = history.windows[sender] = _Window(history.window)
                window.used = now
                window.record(number)
        if done is not None:
            done(effect)

    def release(self, done: Settled | None = None) -> None:
        effect = self._unlock(self.receiver)
        if done is not None:
            done(effect)

    def _unlock(self, receiver: _MemoryReceiver) -> bool:
        history = receiver.history
        if history.locks.get(self.identity) is self and history.session is receiver:
            del history.locks[self.identity]
            return True
        receiver.store.counters.void += 1
        return False


class _MemoryAttempt:
    """Implements :class:`stompbridge.dedup.store.Attempt`. It needs no deadline: its owner is this process."""

    __slots__ = ("_store", "digest", "key", "waiters")
    in_doubt = False

    def __init__(self, store: MemoryStore, key: str, digest: str) -> None:
        self._store = store
        self.key = key
        self.digest = digest
        self.waiters: deque[tuple[Begun, float]] = deque()

    def finish(self, done: Settled | None = None) -> None:
        self._store.settle(self, True, done)

    def abandon(self, done: Settled | None = None) -> None:
        self._store.settle(self, False, done)
