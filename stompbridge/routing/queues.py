"""Queues as RabbitMQ's STOMP plugin has them, where each session has a connection of its own.

Here all sessions share one. So it is kept here which session uses which queue (it is declared at its first use and
not again, whatever later frames say of it) and whose an exclusive queue is (nobody else may declare or consume it, and
it goes with its session).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from stompbridge.brokers.base import Broker, Done, Failure, Message, QueueConsumer, QueueListener, QueueSpec
from stompbridge.routing.destinations import Destination, sent_queue
from stompbridge.routing.once import Waiting
from stompbridge.stomp.session import Send

_DECLARED_MAX = 10_000
_USED_MAX = 1_000


class SessionQueues:
    """What one session has done with queues."""

    __slots__ = ("exclusive", "gone", "used")

    def __init__(self) -> None:
        self.used: dict[str, None] = {}
        self.exclusive: dict[str, _Claim] = {}
        self.gone = False

    def use(self, queue: str) -> None:
        self.used[queue] = None
        if len(self.used) > _USED_MAX:
            del self.used[next(iter(self.used))]


class _Claim:
    """An exclusive queue. ``users`` are its consumers, and frames that are declaring it."""

    __slots__ = ("declared", "owner", "spec", "users")

    def __init__(self, owner: SessionQueues, spec: QueueSpec) -> None:
        self.owner = owner
        self.spec = spec
        self.users = 0
        self.declared = False


class Queues:
    """The queues of all sessions. A session is any object that is told from the others."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sessions: dict[object, SessionQueues] = {}
        self._claims: dict[str, _Claim] = {}
        self._consumed: dict[QueueListener, _Claim] = {}
        # What SENDs have declared, so that it is not done again for each session.
        self._declared: OrderedDict[str, QueueSpec] = OrderedDict()

    def session(self, session: object) -> SessionQueues:
        """The entry of a session that has not ended."""
        known = self._sessions.get(session)
        if known is None:
            known = self._sessions[session] = SessionQueues()
        return known

    def to_consume(self, session: object, spec: QueueSpec) -> QueueSpec | Failure:
        """What a SUBSCRIBE of the session declares where it asks for ``spec``."""
        known = self.session(session)
        refusal = self._refusal(known, spec.name)
        if refusal is not None:
            return refusal
        if not spec.declare or spec.bindings:
            return spec
        if spec.name in known.used:
            return replace(spec, reuse=True)
        known.use(spec.name)
        return spec

    def consume(
        self,
        session: object,
        spec: QueueSpec,
        prefetch: int,
        listener: QueueListener,
        done: Callable[[QueueConsumer | Failure], None],
    ) -> QueueConsumer:
        """As :meth:`.Broker.consume`, of what :meth:`to_consume` said."""
        claim = self._claim(self.session(session), spec)
        if claim is None:
            return self._broker.consume(spec, prefetch, listener, done)
        self._consumed[listener] = claim

        def started(result: QueueConsumer | Failure) -> None:
            if isinstance(result, Failure):
                self._let_go(self._consumed.pop(listener))
            else:
                claim.declared = True
            done(result)

        return self._broker.consume(spec, prefetch, listener, started)

    def cancel(self, consumer: QueueConsumer, listener: QueueListener, done: Done | None = None) -> None:
        """Ends a consumer, be it set up or not."""
        claim = self._consumed.pop(listener, None)
        consumer.cancel(done if claim is None else partial(self._cancelled, claim, done))

    def publish(
        self,
        known: SessionQueues,
        message: Message,
        destination: Destination,
        event: Send,
        done: Done,
        resume: Callable[[], None],
    ) -> bool:
        """Publishes to a queue, which is declared where it is not there. Returns True when later frames must wait
        until ``resume``. ``known`` is what :meth:`session` said when the frame came."""
        queue = destination.queue
        if queue not in known.used:
            refusal = self._refusal(known, queue)
            if refusal is not None:
                done(refusal)
                return False
            spec = sent_queue(destination, event.headers)
            if self._declared.get(queue) != spec:
                return self._declare_and_publish(known, spec, message, done, resume)
            known.use(queue)

        def published(failure: Failure | None) -> None:
            if is_unroutable(failure):
                # Deleted since it was declared: RabbitMQ's plugin would drop the message and send a RECEIPT.
                self._declared.pop(queue, None)
                self._declare_and_publish(known, sent_queue(destination, event.headers), message, done, _nothing)
            else:
                done(failure)

        self._broker.publish(message, published)
        return False

    def leave(self, session: object) -> None:
        """The session has ended, its consumers have been cancelled: its exclusive queues go."""
        known = self._sessions.pop(session, None)
        if known is not None:
            known.gone = True
            for claim in list(known.exclusive.values()):
                if claim.declared and not (claim.spec.auto_delete and claim.users):
                    self._delete(claim)

    def _declare_and_publish(
        self, known: SessionQueues, spec: QueueSpec, message: Message, done: Done, resume: Callable[[], None]
    ) -> bool:
        claim = self._claim(known, spec)
        waits = Waiting(resume)

        def declared(failure: Failure | None) -> None:
            if failure is not None:
                done(failure)
            else:
                known.use(spec.name)
                if claim is not None:
                    claim.declared = True
                else:
                    self._declared[spec.name] = spec
                    if len(self._declared) > _DECLARED_MAX:
                        self._declared.popitem(last=False)
                self._broker.publish(message, done)
            if claim is not None:
                self._let_go(claim)
                if claim.declared and known.gone:
                    self._delete(claim)
            waits.end()

        self._broker.declare_queue(spec, declared)
        return waits.begun()

    def _refusal(self, known: SessionQueues, queue: str) -> Failure | None:
        claim = self._claims.get(queue)
        if claim is None or claim.owner is known:
            return None
        return Failure(
            "resource_locked",
            f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost "
            f"'{self._broker.virtual_host}'. It could be originally declared on another connection or the exclusive "
            "property value does not match that of the original declaration.",
        )

    def _claim(self, known: SessionQueues, spec: QueueSpec) -> _Claim | None:
        claim = self._claims.get(spec.name)
        if claim is None and spec.exclusive:
            claim = self._claims[spec.name] = known.exclusive[spec.name] = _Claim(known, spec)
        if claim is not None:
            claim.users += 1
        return claim

    def _cancelled(self, claim: _Claim, done: Done | None, failure: Failure | None) -> None:
        if claim.users == 1 and claim.spec.auto_delete:
            claim.declared = False
        self._let_go(claim)
        if done is not None:
            done(failure)

    def _delete(self, claim: _Claim) -> None:
        def deleted(_failure: Failure | None) -> None:
            claim.declared = False
            self._let_go(claim)

        claim.users += 1
        self._broker.delete_queue(claim.spec, deleted)

    def _let_go(self, claim: _Claim) -> None:
        claim.users -= 1
        if not claim.users and not claim.declared:
            del self._claims[claim.spec.name]
            del claim.owner.exclusive[claim.spec.name]


def is_unroutable(failure: Failure | None) -> bool:
    """Whether no queue took a message."""
    return failure is not None and failure.code == "no_route"


def _nothing() -> None:
    """Nobody waits."""
