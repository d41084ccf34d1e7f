"""Asks the store whether a named receiver may have a message.

A client that names itself (``client-id``) has a history that outlives its session. Each delivery to it is claimed,
written, and committed: on write in ack mode ``auto``, on the client's ACK otherwise. What a session leaves unsettled is
in doubt for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from stompbridge.brokers.base import Message
from stompbridge.dedup.store import Lock, Receiver, Refusal, Settled, Store
from stompbridge.routing.identity import identity_of

Grant = Callable[[Message, Lock | None], None]
"""Takes a message that may be delivered, marked ``redelivered`` where the client may have seen it, and its lock."""
Drop = Callable[[], None]
"""The message is not for this receiver, since it has it already: it is to be settled."""


@dataclass(slots=True)
class Idempotence:
    """What all gates of the process share: the store, what to do in doubt and without it, and what happened."""

    store: Store
    drop_in_doubt: bool
    hold_without_store: bool
    suppressed: int = 0
    in_doubt: int = 0
    bypassed: int = 0
    """Messages that were delivered, or published, without the store's word."""


class Settling:
    """Calls back once everything that was begun is settled, whether or not it took effect. ``after`` is what comes once
    all was begun."""

    __slots__ = ("_done", "_open", "after")

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._open = 1
        self.after: list[Callable[[], None]] = []

    def begin(self) -> Settled:
        """To be called when one thing more is settled."""
        self._open += 1
        return self.settled

    def settled(self, effect: bool = True) -> None:
        """One of them is settled, or, called once at the end, everything was begun."""
        self._open -= 1
        if not self._open:
            self._done()


class _Item:
    """One message on its way through the gate, and the answer once there is one."""

    __slots__ = ("answer", "asked", "drop", "grant", "message")

    def __init__(self, message: Message, grant: Grant, drop: Drop) -> None:
        self.message = message
        self.grant = grant
        self.drop = drop
        self.answer: Lock | Refusal | None = None
        self.asked = False


class Gate:
    """One subscription's way to its receiver's history. ``scope`` tells it from the client's other subscriptions, which
    may rightly get the same message; ``limit`` bounds what waits, and ``overflow`` is called beyond it."""

    __slots__ = ("_closed", "_items", "_limit", "_overflow", "_receiver", "_shared", "scope")

    def __init__(
        self, receiver: Receiver, scope: str, shared: Idempotence, limit: int, overflow: Callable[[], None]
    ) -> None:
        self._receiver = receiver
        self.scope = scope
        self._shared = shared
        self._limit = limit
        self._overflow = overflow
        self._items: deque[_Item] = deque()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Messages that wait for the store."""
        return len(self._items)

    def ask(self, message: Message, grant: Grant, drop: Drop) -> None:
        """Calls one of both, perhaps inside, in the order of the messages; neither once the gate is closed."""
        if self._closed:
            return
        if len(self._items) >= self._limit:
            self._overflow()
            return
        item = _Item(message, grant, drop)
        self._items.append(item)
        self._claim(item)

    def retry(self) -> None:
        """Asks again for what waits: a message that is busy, or all of them while the store is away."""
        for item in list(self._items):
            if item.answer is None and not item.asked:
                self._claim(item)

    def close(self) -> None:
        """Nothing is passed on any more; what waits is left to the broker."""
        self._closed = True
        for item in self._items:
            if item.answer is not None and not isinstance(item.answer, Refusal):
                item.answer.release()
        self._items.clear()

    def _claim(self, item: _Item) -> None:
        identity = identity_of(item.message)
        if identity is None:
            # Nothing to recognise it by. It goes as if the store had not been asked, in its turn.
            item.answer = Refusal.UNAVAILABLE
            self._drain()
            return
        item.asked = True
        if isinstance(identity, str):
            self._receiver.claim(f"{self.scope}\n{identity}", partial(self._answered, item))
        else:
            self._receiver.claim((f"{self.scope}\n{identity[0]}", identity[1]), partial(self._answered, item))

    def _answered(self, item: _Item, answer: Lock | Refusal) -> None:
        item.asked = False
        if self._closed:
            if not isinstance(answer, Refusal):
                answer.release()
            return
        if answer is Refusal.UNAVAILABLE:
            if self._shared.hold_without_store:
                return
            self._shared.bypassed += 1
        elif answer is Refusal.BUSY or answer is Refusal.STALE:
            # Busy: asked again later. Stale: the session is about to be closed, and the newer one gets the message.
            return
        item.answer = answer
        self._drain()

    def _drain(self) -> None:
        items = self._items
        while items and items[0].answer is not None:
            self._pass(items.popleft())

    def _pass(self, item: _Item) -> None:
        shared, message, answer = self._shared, item.message, item.answer
        # A lock holds on to whoever asked for it: only the garbage collector would end the circle, for each message.
        item.answer = None
        if answer is Refusal.DUPLICATE:
            shared.suppressed += 1
            item.drop()
        elif answer is Refusal.UNAVAILABLE or (answer is Refusal.TOO_OLD and not message.redelivered):
            # Below the window nobody knows; that the broker has never delivered it before is good enough.
            item.grant(message, None)
        elif answer is Refusal.TOO_OLD:
            shared.in_doubt += 1
            if shared.drop_in_doubt:
                item.drop()
            else:
                item.grant(message, None)
        else:
            assert answer is not None
            assert not isinstance(answer, Refusal)
            self._pass_claimed(item, answer)

    def _pass_claimed(self, item: _Item, lock: Lock) -> None:
        shared = self._shared
        if not lock.in_doubt:
            item.grant(item.message, lock)
            return
        shared.in_doubt += 1
        if shared.drop_in_doubt:
            lock.commit()
            item.drop()
        else:
            item.grant(replace(item.message, redelivered=True), lock)
