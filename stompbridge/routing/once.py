"""A sender's retry: a SEND with an ``idempotency-key`` is published once, however often it comes, and to any node."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Protocol

from stompbridge.brokers.base import Done, Failure, Message
from stompbridge.dedup.store import Attempt, Outcome, Store
from stompbridge.routing.identity import KEYED
from stompbridge.stomp import errors
from stompbridge.stomp.events import Send

KEY_MAX = 255
"""Bytes of a key."""

MISMATCH = Failure("idempotency_mismatch", "the key was used for another message", fatal=False)
IN_FLIGHT = Failure("idempotency_in_flight", "the message is still being sent", fatal=False)
STORE = Failure("store_unavailable", "the deduplication store is out of reach", fatal=False)

_FAILURES = {Outcome.MISMATCH: MISMATCH, Outcome.IN_FLIGHT: IN_FLIGHT, Outcome.UNAVAILABLE: STORE}


class Publish(Protocol):
    """Publishes the message. True: later frames must wait for ``resume``."""

    def __call__(self, done: Done, resume: Callable[[], None]) -> bool: ...


class Waiting:
    """Whether a step has ended inside the call that began it; if not, ``resume`` is called at its end."""

    __slots__ = ("_ended", "_outside", "_resume")

    def __init__(self, resume: Callable[[], None]) -> None:
        self._resume = resume
        self._ended = False
        self._outside = False

    def end(self) -> None:
        """The step is over."""
        self._ended = True
        if self._outside:
            self._resume()

    def begun(self) -> bool:
        """The call that began the step returns; True when the step goes on."""
        self._outside = True
        return not self._ended


class Once:
    """Publishes each key's message once. While the store is out of reach, ``hold`` has the SEND refused, to be tried
    again; otherwise it is published unasked."""

    def __init__(self, store: Store, hold: bool) -> None:
        self._store = store
        self._hold = hold
        self.repeated = 0
        """SENDs that were answered without a publish, since their message had been published before."""
        self.bypassed = 0

    def publish(
        self,
        message: Message,
        scope: str,
        event: Send,
        key: str,
        publish: Publish,
        done: Done,
        resume: Callable[[], None],
    ) -> bool:
        """As :meth:`.Router.send`. The key belongs to its user (``scope``) and its destination, and the body, as it
        was sent, to the key."""
        if not 0 < len(key.encode()) <= KEY_MAX:
            raise errors.bad_idempotency_key(KEY_MAX)
        scoped = blake2b(f"{scope}\0{event.destination}\0{key}".encode(), digest_size=16).hexdigest()
        digest = blake2b(event.body, digest_size=16).hexdigest()
        if message.message_id is None:
            # With the body: a key that is used again after its time, or unasked, must not hide another message.
            message.message_id = f"{KEYED}{scoped}{digest}"
        waits = Waiting(resume)

        def begun(answer: Attempt | Outcome) -> None:
            if self._answer(answer, publish, done, waits):
                waits.end()

        self._store.begin(scoped, digest, begun)
        return waits.begun()

    def _answer(self, answer: Attempt | Outcome, publish: Publish, done: Done, waits: Waiting) -> bool:
        if not isinstance(answer, Outcome):

            def published(failure: Failure | None) -> None:
                if failure is None:
                    answer.finish()
                else:
                    answer.abandon()
                done(failure)

            return not publish(published, waits.end)
        if answer is Outcome.DONE:
            self.repeated += 1
            done(None)
        elif answer is Outcome.UNAVAILABLE and not self._hold:
            self.bypassed += 1
            return not publish(done, waits.end)
        else:
            done(_FAILURES[answer])
        return True
