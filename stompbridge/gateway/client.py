"""One connected client: between its STOMP session and the router.

Frames take effect in their order. What has to wait for the broker (a subscription's binding, a queue's first
declaration, too much in flight) holds the frames behind it, of this client alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from secrets import token_urlsafe
from time import time
from typing import Any

import structlog

from stompbridge.auth.base import Identity
from stompbridge.brokers.base import Failure
from stompbridge.dedup.store import Receiver
from stompbridge.gateway.admission import Admission
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.frames import ws_frame
from stompbridge.gateway.gate import Settling
from stompbridge.gateway.rates import rates
from stompbridge.gateway.replies import prepare
from stompbridge.gateway.shared import Shared
from stompbridge.gateway.subscriptions import SubscriptionReceiver, make_receiver, queue_to_delete
from stompbridge.routing.router import Permissions, Router, failure_to_error
from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.frames import HEARTBEAT
from stompbridge.stomp.heartbeat import HeartBeat
from stompbridge.stomp.session import (
    Commit,
    Connect,
    Delivery,
    Disconnect,
    Done,
    Keep,
    Refused,
    Send,
    ServerSession,
    Settle,
    Subscribe,
    Subscription,
    Unsubscribe,
)

_log = structlog.get_logger("stompbridge.session")

_HEARTBEAT_FRAME = ws_frame(HEARTBEAT, False)
_HELD_INPUT_MAX = 64 * 1024
"""Bytes that may wait behind a held frame before the socket is no longer read."""


@dataclass(slots=True)
class _CommitEnd:
    """Stands behind the frames of a transaction: its receipt follows their last answer."""

    receipt: str | None


class Client:
    """Listens to one connection and drives one STOMP session."""

    __slots__ = (
        "_admission",
        "_commit_failed",
        "_connect_deadline",
        "_disconnect",
        "_expires",
        "_gone",
        "_heartbeat",
        "_held",
        "_in_flight",
        "_opened_at",
        "_rates",
        "_receivers",
        "_replay",
        "_resume_at",
        "_running",
        "_throttled",
        "connection",
        "identity",
        "messages_in",
        "messages_out",
        "named",
        "next_seq",
        "permissions",
        "router",
        "scope",
        "sender_id",
        "session",
        "shared",
        "user",
    )

    def __init__(self, connection: Connection, shared: Shared) -> None:
        self.connection = connection
        self.shared = shared
        self.sender_id = f"session-{token_urlsafe(16)}"
        self.next_seq = 0
        self.session = ServerSession(shared.session_settings, self.sender_id)
        self.messages_in = 0
        self.messages_out = 0
        self._opened_at = shared.now()
        self._connect_deadline: float | None = self._opened_at + shared.limits.connect_timeout
        self._heartbeat: HeartBeat | None = None
        self._receivers: dict[str, SubscriptionReceiver] = {}
        self._admission: Admission | None = None
        # What its admission found out.
        self.identity: Identity | None = None
        self.user = self.sender_id
        self.scope = ""
        self.permissions: Permissions | None = None
        self.router: Router = shared.router
        self.named: Receiver | None = None
        self._expires: float | None = None
        self._rates = rates(shared.limits, self._opened_at)
        self._throttled = False
        self._in_flight = 0
        # While held, frames wait; with a number, until no more than so many SENDs are unanswered.
        self._held = False
        self._resume_at: int | None = None
        self._running = False
        # The frames of a transaction that is being committed; they go before what the session has next.
        self._replay: deque[Send | Settle | _CommitEnd] = deque()
        self._commit_failed = False
        self._disconnect: Disconnect | None = None
        self._gone = False

    # The connection's news (ConnectionListener)

    def on_open(self, connection: Connection) -> None:
        """The WebSocket is open; the session waits for CONNECT, and nothing longer than one is taken before it."""
        connection.max_message = self.shared.limits.frame_before_connect

    def on_data(self, data: bytes) -> None:
        self.session.feed(data)
        if not self._held:
            self._run()
        elif self.session.buffered > _HELD_INPUT_MAX:
            self.connection.pause_reading()

    def on_writable(self) -> None:
        for receiver in list(self._receivers.values()):
            receiver.on_writable()

    def on_check(self, now: float) -> None:
        """Deadlines, once a sweep: time to CONNECT, heart-beats due and missed."""
        if self._connect_deadline is not None and now >= self._connect_deadline:
            self.fail(errors.connect_timeout(), reason=CloseReason.CONNECT_TIMEOUT)
            return
        heartbeat, connection = self._heartbeat, self.connection
        if heartbeat is None:
            return
        if self._expires is not None and now >= self._expires:
            self.fail(errors.session_expired(), reason=CloseReason.SESSION_EXPIRED)
            return
        if self._throttled:
            self._unthrottle(now)
        if self.named is not None:
            for receiver in list(self._receivers.values()):
                receiver.on_check()
        if heartbeat.expired(now, connection.last_read):
            connection.close(CloseReason.HEARTBEAT_LOST)
            return
        if heartbeat.send_due(now, connection.last_write, 2 * self.shared.sweep_interval):
            connection.write(_HEARTBEAT_FRAME)

    def _unthrottle(self, now: float) -> None:
        assert self._rates is not None
        if self._rates.exhausted(now):
            limits = self.shared.limits
            allowed = f"limits.message_rate {limits.message_rate}, limits.byte_rate {limits.byte_rate} a second"
            self.fail(errors.too_fast(allowed), reason=CloseReason.RATE_LIMITED)
        elif self._rates.level(now):
            self._throttled = False
            self._release()

    def refresh_permissions(self) -> None:
        """The rules have changed."""
        if self._heartbeat is not None:
            self.permissions = self.shared.permissions_of(self.identity)

    def on_lost(self, reason: CloseReason) -> None:
        """The connection is gone: subscriptions end, and what the client did not acknowledge goes back."""
        self._leave()
        if self._heartbeat is not None:
            _log.info(
                "session_closed",
                session=self.sender_id,
                remote=self.connection.remote,
                reason=reason.label,
                seconds=round(self.shared.now() - self._opened_at, 3),
                messages_in=self.messages_in,
                messages_out=self.messages_out,
            )

    # Frames in

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            while not self._held and not self._gone:
                event = self._replay.popleft() if self._replay else self.session.next_event()
                if event is None:
                    self.connection.resume_reading()
                    break
                try:
                    _HANDLERS[type(event)](self, event)
                except StompError as error:
                    self._commit_failed = True
                    self.fail(error, getattr(event, "receipt", None))
        finally:
            self._running = False

    def _hold(self, resume_at: int | None = None) -> None:
        self._held = True
        self._resume_at = resume_at

    def _release(self) -> None:
        self._held = False
        self._resume_at = None
        if not self._gone:
            self._run()

    def _on_connect(self, event: Connect) -> None:
        self._hold()
        self._admission = Admission(self, event)
        try:
            self._admission.begin()
        except StompError:
            self._held = False
            raise

    def admit(self, event: Connect, admission: Admission) -> None:
        """The client is who it says it is, and may come in."""
        if self._gone or self.connection.reason is not None:
            admission.close()
            return
        self._connect_deadline = None
        self._heartbeat = event.heartbeat
        self.named, self.scope, self.router = admission.named, admission.scope, admission.router
        self.permissions = self.shared.permissions_of(admission.identity)
        extra = self._identify(admission.identity) if admission.identity is not None else ()
        connection = self.connection
        connection.accepted()
        connection.max_message = self.shared.limits.frame
        connection.ping = not event.heartbeat.receive
        connection.send(self.session.accept(self.shared.server, extra))
        _log.info(
            "session_opened",
            session=self.sender_id,
            remote=connection.remote,
            user=None if self.identity is None else self.user,
            version=str(event.version),
            heartbeat=event.heartbeat.header,
        )
        self._release()

    def turn_down(self, error: StompError, reason: CloseReason = CloseReason.STOMP_ERROR) -> None:
        """The client is not let in; it may try again on the same connection unless the error is fatal."""
        self.fail(error, reason=reason)
        self._release()

    def _identify(self, identity: Identity) -> Iterable[tuple[str, str]]:
        """Takes over who the client is; returns what CONNECTED says of it (``user-name``, as Spring has it)."""
        self.identity, self.user = identity, identity.user
        if identity.expires_at is not None:
            self._expires = self.shared.now() + identity.expires_at - time()
        # RabbitMQ's own STOMP has no such header; CONNECTED knows no escapes (STOMP 1.2, "Value Encoding").
        shown = identity.virtual_host is None and identity.user.isprintable()
        return [("user-name", identity.user)] if shown else ()

    def _on_send(self, event: Send) -> None:
        if "reply-to" in event.headers and prepare(self, event, partial(self._on_reply_queue, event)):
            return
        self.messages_in += 1
        self._in_flight += 1
        router = self.router
        try:
            done = partial(self._on_sent, event.receipt, bool(self._replay))
            waits = router.send(self, event, done, self._release)
        except StompError:
            self._in_flight -= 1
            raise
        if waits:
            self._hold()
        elif self._in_flight >= self.shared.in_flight_max:
            self._hold(self.shared.in_flight_max // 2)
        elif router.congested:
            self._hold()
            router.when_clear(self._release)
        elif self._rates is not None and self._rates.spend(len(event.body), self.shared.now()):
            self._throttled = True
            self._hold()

    def _on_reply_queue(self, event: Send, receiver: SubscriptionReceiver, failure: Failure | None) -> None:
        if failure is None:
            self._replay.appendleft(event)
        else:
            self._drop(receiver)
            self._commit_failed = True
            self.fail(failure_to_error(failure), event.receipt)
        self._release()

    def _on_keep(self, event: Keep) -> None:
        self.router.check(self, event.send)
        self.session.keep(event)

    def _on_sent(self, receipt: str | None, in_commit: bool, failure: Failure | None) -> None:
        self._in_flight -= 1
        if self._gone:
            return
        if failure is not None:
            self._commit_failed = self._commit_failed or in_commit
            self.fail(failure_to_error(failure), receipt)
        elif receipt is not None:
            self.connection.send(self.session.receipt(receipt))
        if self._disconnect is not None:
            self._finish_disconnect()
        elif self._resume_at is not None and self._in_flight <= self._resume_at:
            self._release()

    def _on_subscribe(self, event: Subscribe) -> None:
        subscription = event.subscription
        try:
            gates = (receiver.gate for receiver in self._receivers.values())
            receiver = make_receiver(self, subscription, {gate.scope for gate in gates if gate is not None})
        except StompError:
            self.session.forget(subscription.tag)
            raise
        self.start_receiver(receiver, partial(self._on_subscribed, event.receipt))

    def start_receiver(
        self, receiver: SubscriptionReceiver, done: Callable[[SubscriptionReceiver, Failure | None], None]
    ) -> None:
        """Begins a subscription that the session knows of. Frames wait until ``done`` lets them go on."""
        self._receivers[receiver.subscription.tag] = receiver
        self._hold()
        receiver.start(partial(done, receiver))

    def receiver(self, tag: str) -> SubscriptionReceiver | None:
        """What serves the subscription with this tag."""
        return self._receivers.get(tag)

    def _on_subscribed(self, receipt: str | None, receiver: SubscriptionReceiver, failure: Failure | None) -> None:
        if self._gone:
            return
        if failure is not None:
            self._drop(receiver)
            self.fail(failure_to_error(failure), receipt)
        else:
            self._receipt(receipt)
        self._release()

    def _on_unsubscribe(self, event: Unsubscribe) -> None:
        """The receipt means that nothing follows, and that what comes to the queue from now on is for others."""
        receiver = self._receivers.pop(event.subscription.tag)
        self._hold()
        receiver.stop(event.released, in_doubt=False, done=partial(self._on_unsubscribed, receiver, event))

    def _on_unsubscribed(self, receiver: SubscriptionReceiver, event: Unsubscribe, failure: Failure | None) -> None:
        if self._gone:
            return
        queue = queue_to_delete(receiver, event.headers)
        if queue is None:
            self._receipt(event.receipt)
            self._release()
        else:
            self.router.broker.delete_queue(queue, partial(self._on_queue_deleted, event.receipt))

    def _on_queue_deleted(self, receipt: str | None, failure: Failure | None) -> None:
        if self._gone:
            return
        if failure is None:
            self._receipt(receipt)
        else:
            self.fail(failure_to_error(failure), receipt)
        self._release()

    def _on_settle(self, event: Settle) -> None:
        """The receipt comes when the history of a client that has named itself is written."""
        self._in_flight += 1
        settling = Settling(partial(self._on_sent, event.receipt, False, None))
        for tag, deliveries in _by_tag(event.deliveries).items():
            receiver = self._receivers.get(tag)
            if receiver is not None:
                receiver.settle(deliveries, event.ack, event.requeue, settling)
        settling.settled()
        for go_on in settling.after:
            go_on()

    def _on_commit(self, event: Commit) -> None:
        """The transaction's frames take effect now, in their order and not atomically, as in RabbitMQ."""
        self._commit_failed = False
        self._replay.extend(event.actions)
        self._replay.append(_CommitEnd(event.receipt))

    def _on_commit_end(self, event: _CommitEnd) -> None:
        if self._in_flight:
            self._replay.append(event)
            self._hold(0)
        elif not self._commit_failed:
            self._receipt(event.receipt)

    def _on_done(self, event: Done) -> None:
        self._receipt(event.receipt)

    def _on_disconnect(self, event: Disconnect) -> None:
        """The receipt comes last: when all before it is confirmed."""
        self._disconnect = event
        self._stop_receivers()
        self._finish_disconnect()

    def _finish_disconnect(self) -> None:
        if self._in_flight == 0 and self._disconnect is not None:
            self._receipt(self._disconnect.receipt)
            self.connection.close(CloseReason.CLIENT_DISCONNECT)

    def _on_refused(self, event: Refused) -> None:
        self.fail(event.error, event.receipt)

    # Answers out

    def _receipt(self, receipt: str | None) -> None:
        if receipt is not None:
            self.connection.send(self.session.receipt(receipt))

    def fail(
        self, error: StompError, receipt: str | None = None, reason: CloseReason = CloseReason.STOMP_ERROR
    ) -> None:
        """Answers with an ERROR, and ends the session where the error is fatal."""
        if self._gone:
            return
        if reason is not CloseReason.STOMP_ERROR:
            error.fatal = True
        self.connection.send(self.session.error(error, receipt))
        if self.session.closing:
            self._leave()
            self.connection.close(reason, error.message)

    def hold_unacked(self, subscription: Subscription, ack_id: str, token: object) -> bool:
        """Notes a delivery that the client has to acknowledge. False when it holds too many: the session ends."""
        if self._gone:
            return False
        limit = self.shared.limits.unacked
        if len(self.session.unacked) >= limit:
            self.fail(errors.too_many_unacked(limit), reason=CloseReason.SLOW_CONSUMER)
            return False
        self.session.track(ack_id, subscription, token)
        return True

    def subscription_ended(self, receiver: SubscriptionReceiver) -> None:
        """The broker took a subscription away."""
        subscription = receiver.subscription
        if self._receivers.get(subscription.tag) is not receiver:
            return
        self._drop(receiver)
        if subscription.id is None:
            name, description = subscription.destination, f"destination='{subscription.destination}'"
        else:
            name, description = subscription.id, f"id='{subscription.id}'"
        self.fail(errors.server_cancelled(name, description))

    def _drop(self, receiver: SubscriptionReceiver) -> None:
        tag = receiver.subscription.tag
        self._receivers.pop(tag, None)
        waiting = _by_tag(self._waiting_to_settle()).get(tag, ())
        receiver.stop([*self.session.forget(tag), *waiting], in_doubt=False)

    def _waiting_to_settle(self) -> Iterator[Delivery]:
        """What a COMMIT will settle once the SENDs before it let it: the session counts it as acknowledged."""
        for event in self._replay:
            if isinstance(event, Settle):
                yield from event.deliveries

    def _stop_receivers(self) -> None:
        by_tag = _by_tag(chain(self.session.unacked.values(), self._waiting_to_settle()))
        receivers, self._receivers = self._receivers, {}
        for tag, receiver in receivers.items():
            receiver.stop(by_tag.get(tag, ()), in_doubt=True)

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._stop_receivers()
            self.router.leave(self)
            if self._admission is not None:
                self._admission.close()
            # All this would wait for the garbage collector, which comes for many objects, not for large ones.
            self._replay.clear()
            self.session.end()


def _by_tag(deliveries: Iterable[Delivery]) -> dict[str, list[Delivery]]:
    by_tag: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        by_tag.setdefault(delivery.subscription.tag, []).append(delivery)
    return by_tag


_HANDLERS: dict[type, Callable[[Client, Any], None]] = {
    Send: Client._on_send,
    Keep: Client._on_keep,
    Settle: Client._on_settle,
    Subscribe: Client._on_subscribe,
    Unsubscribe: Client._on_unsubscribe,
    Connect: Client._on_connect,
    Commit: Client._on_commit,
    _CommitEnd: Client._on_commit_end,
    Done: Client._on_done,
    Disconnect: Client._on_disconnect,
    Refused: Client._on_refused,
}
