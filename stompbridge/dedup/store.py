"""The memory behind "nothing twice": what was delivered to whom, and what a sender has sent already.

A store answers three questions, each in one atomic step. May this message be delivered to this receiver
(:meth:`Receiver.claim`)? Who is the newest session of this receiver (:meth:`Store.open`)? Was this message of a sender
published already (:meth:`Store.begin`)? Asking leaves a lock; what came of it is told to the lock.

Everything is called from the event loop's thread and returns at once. An answer comes through a ``done`` callback,
exactly once; it may come from inside the call. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Protocol, cast

Identity = tuple[str, int] | str
"""Which message: its sender and the sender's running number, or another program's ``message_id``.

Both texts are opaque. A receiver that may rightly get the same message several times, through several subscriptions,
makes the subscription a part of them.
"""


class Refusal(Enum):
    """Why a message was not claimed."""

    DUPLICATE = "duplicate"
    """It was committed before."""
    TOO_OLD = "too_old"
    """Its number lies below the sender's window: whether it was committed can not be known any more."""
    BUSY = "busy"
    """The same session holds it already, and the deadline has not passed. To be asked again, never to be dropped."""
    STALE = "stale"
    """The receiver was opened by a newer session, discarded, or closed by this one."""
    UNAVAILABLE = "unavailable"
    """The store can not be reached. Nothing is known and nothing is held."""


class Outcome(Enum):
    """Why a sender's message is not to be published."""

    DONE = "done"
    """It was published under this key, and the broker has confirmed it."""
    MISMATCH = "mismatch"
    """The key stands for another body."""
    IN_FLIGHT = "in_flight"
    """It is still being published, and the time to wait for that, the lock's, has passed."""
    UNAVAILABLE = "unavailable"
    """The store can not be reached. Nothing is known and nothing is held."""


Settled = Callable[[bool], None]
"""Whether a settlement took effect. False also where that can not be known, since the store can not be reached."""


class Lock(Protocol):
    """A claimed message. It is to be settled once, by :meth:`commit` or :meth:`release`.

    A settlement takes effect only while the lock is held: not once the session is no longer the newest, nor when the
    deadline has passed *and* the message was claimed again, nor after another settlement. Without effect it changes
    nothing, and ``counters.void`` counts it.
    """

    @property
    def in_doubt(self) -> bool:
        """The message was claimed before and never settled: a client may have seen it."""

    def commit(self, done: Settled | None = None) -> None:
        """The receiver has the message: records it in the history and unlocks it."""

    def release(self, done: Settled | None = None) -> None:
        """The receiver has not got it: unlocks it and records nothing. The next claim is a first one."""


Claimed = Callable[[Lock | Refusal], None]


class Receiver(Protocol):
    """One session of a receiver, from :meth:`Store.open` on."""

    name: str
    fence: int
    """Grows with each session of the receiver, on whatever node."""

    @property
    def held(self) -> bool:
        """False once the session was closed or, as far as is known here, taken over."""

    def claim(self, identity: Identity, done: Claimed) -> None:
        """Asks for the right to deliver a message, which is checked and locked in one atomic step.

        A number is told from a duplicate by a window: the highest number that was committed and a bit for each of
        its ``window - 1`` predecessors, never by the highest number alone. A first delivery that comes late is
        granted.
        """

    def close(self) -> None:
        """Ends the session. The history is kept for ``history_ttl``. What is locked then is in doubt for the next
        session. Without effect on a newer session."""


class Attempt(Protocol):
    """The right to publish a sender's message. It is to be settled once.

    It stays with this process for as long as the process runs and reaches the store; then it ends with the lock's
    deadline. A settlement takes effect only while the right is held.
    """

    @property
    def in_doubt(self) -> bool:
        """Another process had the right and did not settle it: the broker may have the message."""

    def finish(self, done: Settled | None = None) -> None:
        """The broker has confirmed the message: the key stands for it for ``idempotency_window``."""

    def abandon(self, done: Settled | None = None) -> None:
        """The message was not published. The next who asks may publish it."""


Opened = Callable[[Receiver | None], None]
Begun = Callable[[Attempt | Outcome], None]
Changed = Callable[[bool, str], None]


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    void: int = 0
    """Settlements without effect, of owners whose lock was no longer theirs."""
    in_doubt: int = 0
    """Claims and attempts granted in doubt."""
    taken_over: int = 0
    """Sessions of this process that lost their receiver to a newer one."""
    unavailable: int = 0
    """Questions answered with UNAVAILABLE."""
    unsent: int = 0
    """Settlements that were given up since the store could not be reached: what they should have recorded may be
    delivered or published again."""
    evicted: int = 0
    """Keys and message ids that were forgotten before their time, since there were too many."""
    calls: int = 0
    """Script calls sent to the store's server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How much is remembered, for how long, and where."""

    window: int
    """Numbers of a sender that are told apart, up to its highest."""
    history_ttl: float
    """How long the window of an idle sender, a message id and the history of a closed receiver are kept."""
    lock_ttl: float
    """How long a lock keeps others from a message, and the longest wait for another's attempt. An unsettled lock is
    remembered as in doubt for ``history_ttl``, at least for this long; after that it can not be settled."""
    idempotency_window: float
    """How long a sender's key stands for its message after the broker confirmed it."""
    url: str = "redis://127.0.0.1:6379/0"
    """Redis: ``redis://``, ``rediss://`` or ``unix://``; a cluster ``redis+cluster://host:port,host:port`` or
    ``rediss+cluster://``, all of whose masters have to be reachable."""
    timeout: float = 1.0
    """How long the server may leave a call unanswered before it counts as lost."""
    prefix: str = "stompbridge"
    """What all keys begin with. All processes of a deployment have the same."""
    max_ids: int = 10_000
    """Message ids that are remembered for each receiver; the oldest go first."""
    max_keys: int = 1_000_000
    """Memory store: sender's keys that are remembered; the oldest go first."""
    max_waiting: int = 10_000
    """Senders' repetitions that wait for an attempt at the same time; more are IN_FLIGHT at once."""
    max_pending: int = 65_536
    """Operations that wait for the server at the same time, and settlements kept while it is away."""


class Store(Protocol):
    """The memory of one process, or the one that the processes of a deployment share."""

    counters: Counters
    on_change: Changed
    """Called with ``available`` and, for people, the reason, whenever ``available`` changes, and when the store is out
    of reach from the start."""

    @property
    def available(self) -> bool:
        """Whether questions are answered with something else than UNAVAILABLE."""

    async def start(self) -> None:
        """Returns once ``available`` is known. A server that can not be reached is no error: it is tried again in
        the background, without end."""

    async def stop(self) -> None:
        """Sends what is outstanding, waiting ``timeout`` at most; then everything is UNAVAILABLE."""

    def open(self, name: str, on_taken_over: Callable[[], None], done: Opened) -> None:
        """Begins a session of a receiver; ``done`` gets it, or ``None`` when the store is not available.

        A session that another holds open is taken over: its locks become void, so that what it held is in doubt for
        the newer, and its ``on_taken_over`` is called, once: promptly, at the latest when its next claim is STALE.
        """

    def discard(self, name: str) -> None:
        """Forgets a receiver's history. A session that holds it open loses it as in a take-over."""

    def begin(self, key: str, digest: str, done: Begun) -> None:
        """Asks for the right to publish a sender's message. ``key`` and ``digest``, of its body, are opaque.

        While another has the right, the answer waits for what comes of that, ``lock_ttl`` at most.
        """

    def when_available(self, callback: Callable[[], None]) -> None:
        """Calls back once, at once or as soon as the store is available. The same callback is kept once."""

    def sweep(self) -> None:
        """Forgets what is over its time and renews what is not to be forgotten. To be called about once a second."""


STORES: dict[str, str] = {
    "memory": "stompbridge.dedup.memory:MemoryStore",
    "redis": "stompbridge.dedup.redis:RedisStore",
}
"""The stores by their name in the configuration, ``module:Class``. A class is called with :class:`StoreOptions`."""


def make_store(kind: str, options: StoreOptions) -> Store:
    """A store of one of the kinds in :data:`STORES`.

    Raises ``ImportError`` when a package that it needs is not installed, ``ValueError`` for a bad URL.
    """
    module, _, name = STORES[kind].partition(":")
    return cast(Store, getattr(import_module(module), name)(options))
