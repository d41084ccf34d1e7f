"""Sessions of receivers and the messages that they claim, in Redis."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import Any, ClassVar
from urllib.parse import quote

from stompbridge.dedup import scripts
from stompbridge.dedup.redis_link import Args
from stompbridge.dedup.redis_queue import Operation, OperationQueue, Settlement
from stompbridge.dedup.store import Claimed, Counters, Identity, Opened, Refusal, Settled, StoreOptions

_REFUSALS = {
    scripts.DUPLICATE: Refusal.DUPLICATE,
    scripts.TOO_OLD: Refusal.TOO_OLD,
    scripts.BUSY: Refusal.BUSY,
    scripts.STALE: Refusal.STALE,
}
_TOUCH_ROUND = 15
"""Sweeps in which every session is touched once: the longest that a lost notice of a take-over goes unnoticed."""


class Sessions:
    """The receivers that this process has open."""

    def __init__(self, queue: OperationQueue, options: StoreOptions, counters: Counters) -> None:
        self.queue = queue
        self.counters = counters
        self.window = options.window
        self._prefix = options.prefix
        self._open: dict[bytes, RedisReceiver] = {}
        self._untouched: list[RedisReceiver] = []
        self._owner = token_hex(8)
        self._tokens = 0

    def token(self) -> str:
        """A lock's token: no other lock of any process has it, and none can guess it."""
        self._tokens += 1
        return f"{self._owner}.{self._tokens}"

    def open(self, name: str, on_taken_over: Callable[[], None], done: Opened) -> None:
        self.queue.submit(_Open(self, name, self._root(name), on_taken_over, done))

    def discard(self, name: str) -> None:
        root = self._root(name)
        session = self._open.get(root)
        if session is not None:
            session.lose()
        self.queue.submit(Settlement(self.counters, (root,), (b"D",), repeated=True))

    def add(self, session: RedisReceiver) -> None:
        """A session has begun here."""
        older = self._open.get(session.root)
        self._open[session.root] = session
        if older is not None:
            older.lose()

    def remove(self, session: RedisReceiver) -> None:
        """A session has ended here."""
        if self._open.get(session.root) is session:
            del self._open[session.root]

    def on_notice(self, notice: bytes) -> None:
        """Another process says that it has opened a receiver."""
        fence, _, root = notice.partition(b" ")
        session = self._open.get(root)
        if session is not None and session.fence < int(fence):
            session.lose()

    def touch(self) -> None:
        """Tells the server that the sessions are open, and learns which are not any more."""
        for session in self._open.values():
            self.queue.submit(_Touch(session))

    def sweep(self) -> None:
        """Touches a part of the sessions."""
        if not self._untouched:
            self._untouched = list(self._open.values())
        due = len(self._open) // _TOUCH_ROUND + 1
        for session in self._untouched[-due:]:
            if session.held:
                self.queue.submit(_Touch(session))
        del self._untouched[-due:]

    def _root(self, name: str) -> bytes:
        # Quoted, a name can not end the hash tag.
        return f"{self._prefix}:{{r:{quote(name, safe='/:@', errors='surrogatepass')}}}".encode()


class RedisReceiver:
    """Implements :class:`stompbridge.dedup.store.Receiver`."""

    __slots__ = ("_base", "_ids", "_on_taken_over", "_windows", "epoch", "fence", "held", "name", "root", "sessions")

    def __init__(
        self,
        sessions: Sessions,
        name: str,
        root: bytes,
        fence: int,
        epoch: int,
        on_taken_over: Callable[[], None],
    ) -> None:
        self.sessions = sessions
        self._on_taken_over = on_taken_over
        self.name = name
        self.root = root
        self.fence = fence
        self.epoch = epoch
        self.held = True
        self._base = f"{root.decode()}:{epoch}:"
        # A window of another size is laid out in another way.
        self._windows = f"{self._base}w{sessions.window}:"
        self._ids = f"{self._base}i".encode()

    def claim(self, identity: Identity, done: Claimed) -> None:
        if not self.held:
            done(Refusal.STALE)
            return
        sessions = self.sessions
        if isinstance(identity, tuple) and 0 <= identity[1] <= scripts.LARGEST:
            sender, number = identity
            record = (self._windows + sender).encode("utf-8", "surrogatepass")
            key = f"{self._base}l:n:{number}:{sender}".encode("utf-8", "surrogatepass")
            lock = RedisLock(self, (self.root, record, key), (b"C", self.fence, number, sessions.token()), done)
        else:
            text = identity if isinstance(identity, str) else f"{identity[1]}:{identity[0]}"
            name = text.encode("utf-8", "surrogatepass")
            key = b"%sl:i:%s" % (self._base.encode(), name)
            lock = RedisLock(self, (self.root, self._ids, key), (b"c", self.fence, name, sessions.token()), done)
        sessions.queue.submit(lock)

    def close(self) -> None:
        if self.held:
            self.held = False
            self.sessions.remove(self)
            sessions = self.sessions
            sessions.queue.submit(Settlement(sessions.counters, (self.root,), (b"X", self.fence), repeated=True))

    def lose(self) -> None:
        """Another session has the receiver now."""
        if self.held:
            self.held = False
            self.sessions.remove(self)
            self.sessions.counters.taken_over += 1
            self._on_taken_over()


class RedisLock:
    """Implements :class:`stompbridge.dedup.store.Lock`, and is the operation that asks for it."""

    __slots__ = ("_done", "_receiver", "args", "in_doubt", "keys")
    lasting: ClassVar[bool] = False

    def __init__(self, receiver: RedisReceiver, keys: tuple[bytes, ...], args: Args, done: Claimed) -> None:
        self._receiver = receiver
        self._done = done
        self.keys = keys
        self.args = args
        self.in_doubt = False

    def answer(self, reply: Any) -> None:
        if reply == scripts.NEW:
            self._done(self)
        elif reply == scripts.IN_DOUBT:
            self.in_doubt = True
            self._receiver.sessions.counters.in_doubt += 1
            self._done(self)
        else:
            if reply == scripts.STALE:
                self._receiver.lose()
            self._done(_REFUSALS[reply])

    def refuse(self) -> None:
        self._receiver.sessions.counters.unavailable += 1
        self._done(Refusal.UNAVAILABLE)

    def undo(self) -> Operation:
        root, _, key = self.keys
        _, fence, _, token = self.args
        return Settlement(self._receiver.sessions.counters, (root, key), (b"R", fence, token), repeated=True)

    def commit(self, done: Settled | None = None) -> None:
        letter, *what = self.args
        sessions = self._receiver.sessions
        args = (b"K" if letter == b"C" else b"k", *what)
        sessions.queue.submit(Settlement(sessions.counters, self.keys, args, done))

    def release(self, done: Settled | None = None) -> None:
        root, _, key = self.keys
        _, fence, _, token = self.args
        sessions = self._receiver.sessions
        sessions.queue.submit(Settlement(sessions.counters, (root, key), (b"R", fence, token), done))


class _Open:
    __slots__ = ("_done", "_name", "_on_taken_over", "_sessions", "args", "keys")
    lasting: ClassVar[bool] = False

    def __init__(
        self, sessions: Sessions, name: str, root: bytes, on_taken_over: Callable[[], None], done: Opened
    ) -> None:
        self._sessions = sessions
        self._name = name
        self._on_taken_over = on_taken_over
        self._done = done
        self.keys = (root,)
        self.args = (b"O",)

    def answer(self, reply: Any) -> None:
        fence, epoch = reply
        session = RedisReceiver(self._sessions, self._name, self.keys[0], fence, epoch, self._on_taken_over)
        self._sessions.add(session)
        # A still newer session may have announced itself before this answer came.
        self._sessions.queue.submit(_Touch(session))
        self._done(session)

    def refuse(self) -> None:
        self._sessions.counters.unavailable += 1
        self._done(None)

    def undo(self) -> None:
        """A session that nobody has: the next one takes it over."""


class _Touch:
    __slots__ = ("_session", "args", "keys")
    lasting: ClassVar[bool] = False

    def __init__(self, session: RedisReceiver) -> None:
        self._session = session
        self.keys = (session.root,)
        self.args = (b"T", session.fence, session.epoch)

    def answer(self, reply: Any) -> None:
        if reply == scripts.STALE:
            self._session.lose()

    def refuse(self) -> None:
        """All are touched when the server is back."""

    def undo(self) -> None:
        """All are touched when the server is back."""
