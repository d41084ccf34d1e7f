"""One connected client: between its STOMP session and the router.

Frames take effect in their order. What has to wait for the broker (a subscription's binding, a queue's first
declaration, too much in flight) holds the frames behind it, of this client alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf
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
from stompbridge.gateway.receivers import Receivers
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
        "_ending",
        "_expires",
        "_gone",
        "_heartbeat",
        "_held",
        "_in_flight",
        "_rates",
        "_replay",
        "_resume_at",
        "_running",
        "_throttled",
        "connection",
        "identity",
        "leaving",
        "messages_in",
        "messages_out",
        "named",
        "next_seq",
        "opened_at",
        "parting",
        "permissions",
        "receivers",
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
        self.session = ServerSession(shared.session_settings, self.sender_id, shared.traffic.frames_in)
        self.messages_in = 0
        self.messages_out = 0
        self.opened_at = shared.now()
        # The message of the ERROR that the session ended with.
        self.parting = ""
        self._connect_deadline = self.opened_at + shared.limits.connect_timeout
        self._heartbeat: HeartBeat | None = None
        self.receivers = Receivers(self.session)
        self._admission: Admission | None = None
        # What its admission found out.
        self.identity: Identity | None = None
        self.user = self.sender_id
        self.scope = ""
        self.permissions: Permissions | None = None
        self.router: Router = shared.router
        self.named: Receiver | None = None
        self._expires = inf
        self._rates = rates(shared.limits, self.opened_at)
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
        self.leaving = False
        """Whether queues give it nothing more, since the process stops."""
        self._ending = False

    # The connection's news (ConnectionListener)

    def on_open(self, connection: Connection) -> None:
        """The WebSocket is open; the session waits for CONNECT, and nothing longer than one is taken before it."""
        connection.max_message = self.shared.limits.frame_before_connect
        if self.shared.watch is not None:
            self.shared.watch(self)

    def on_data(self, data: bytes) -> None:
        if data == HEARTBEAT and not self.session.buffered:
            # A heart-beat. Thousands come each second that mean nothing else than that they came.
            return
        self.session.feed(data)
        if not self._held:
            self._run()
        elif self.session.buffered > _HELD_INPUT_MAX:
            self.connection.pause_reading()

    def on_writable(self) -> None:
        self.receivers.on_writable()

    def on_check(self, now: float) -> float:
        """Deadlines: time to CONNECT, heart-beats due and missed."""
        if now >= self._connect_deadline:
            self.fail(errors.connect_timeout(), reason=CloseReason.CONNECT_TIMEOUT)
            return now
        heartbeat, connection = self._heartbeat, self.connection
        if heartbeat is None:
            return self._connect_deadline
        if now >= self._expires:
            self.fail(errors.session_expired(), reason=CloseReason.SESSION_EXPIRED)
            return now
        if self._throttled:
            self._unthrottle(now)
        if self.named is not None:
            self.receivers.on_check()
        if heartbeat.expired(now, connection.last_read):
            connection.close(CloseReason.HEARTBEAT_LOST)
            return now
        margin = 2 * self.shared.sweep_interval
        if heartbeat.send_due(now, connection.last_write, margin):
            connection.write(_HEARTBEAT_FRAME)
            self.shared.traffic.heartbeats += 1
        if self._throttled or self.named is not None:
            return now
        look_at = heartbeat.look_at(now, connection.last_write, connection.last_read, margin, connection.busy)
        return min(self._expires, look_at)

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

    def refresh_limits(self) -> None:
        """The limits have changed. Those of the session's parser, and of its WebSocket, stay what they were."""
        self._rates = rates(self.shared.limits, self.shared.now())
        if self._throttled:
            self._throttled = False
            self._release()

    # What there is to see

    @property
    def accepted(self) -> bool:
        """Whether the client has been let in (CONNECTED)."""
        return self._heartbeat is not None

    @property
    def held(self) -> bool:
        """Whether a frame waits, and all behind it."""
        return self._held

    @property
    def client_id(self) -> str | None:
        """The name that the client has given itself."""
        return None if self._admission is None else self._admission.client_id

    # The process stops

    @property
    def owes(self) -> bool:
        """Whether it could still acknowledge what would be given back to a queue and come to somebody again."""
        return bool(self.session.unacked) and self.receivers.consuming

    @property
    def unanswered(self) -> int:
        """SENDs and ACKs that it will get an answer to."""
        return self._in_flight

    @property
    def committing(self) -> bool:
        """Whether a transaction has taken effect in part."""
        return bool(self._replay)

    def take_no_more(self) -> None:
        """Frames that come from now on have no effect; those before get their answers."""
        self._ending = self._held = True
        self.connection.pause_reading()

    def on_lost(self, reason: CloseReason) -> None:
        """The connection is gone: subscriptions end, and what the client did not acknowledge goes back."""
        self.shared.traffic.closed(self)
        self._leave()
        if self._heartbeat is not None:
            self.shared.on_closed(self, reason)
            _log.info(
                "session_closed",
                session=self.sender_id,
                remote=self.connection.remote,
                reason=reason.label,
                seconds=round(self.shared.now() - self.opened_at, 3),
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
        if self._ending:
            return
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
        self._connect_deadline = inf
        self._heartbeat = event.heartbeat
        self.named, self.scope, self.router = admission.named, admission.scope, admission.router
        self.permissions = self.shared.permissions_of(admission.identity)
        extra = self._identify(admission.identity) if admission.identity is not None else ()
        connection = self.connection
        connection.accepted()
        connection.max_message = self.shared.limits.frame
        connection.ping = not event.heartbeat.receive
        connection.check_at = 0.0
        connection.send(self.session.accept(self.shared.server, extra))
        self.shared.traffic.opened(self)
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
            self.connection.check_at = 0.0
            self._hold()

    def _on_reply_queue(self, event: Send, receiver: SubscriptionReceiver, failure: Failure | None) -> None:
        if failure is None:
            self._replay.appendleft(event)
        else:
            self.receivers.drop(receiver, self._replay)
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
            self._receipt(receipt)
        if self._disconnect is not None:
            self._finish_disconnect()
        elif self._resume_at is not None and self._in_flight <= self._resume_at:
            self._release()

    def _on_subscribe(self, event: Subscribe) -> None:
        subscription = event.subscription
        try:
            receiver = make_receiver(self, subscription, self.receivers.scopes)
        except StompError:
            self.session.forget(subscription.tag)
            raise
        self.start_receiver(receiver, partial(self._on_subscribed, event.receipt))

    def start_receiver(
        self, receiver: SubscriptionReceiver, done: Callable[[SubscriptionReceiver, Failure | None], None]
    ) -> None:
        """Begins a subscription that the session knows of. Frames wait until ``done`` lets them go on."""
        self.receivers.add(receiver)
        self._hold()
        receiver.start(partial(done, receiver))

    def _on_subscribed(self, receipt: str | None, receiver: SubscriptionReceiver, failure: Failure | None) -> None:
        if self._gone:
            return
        if failure is not None:
            self.receivers.drop(receiver, self._replay)
            self.fail(failure_to_error(failure), receipt)
        else:
            self._receipt(receipt)
        self._release()

    def _on_unsubscribe(self, event: Unsubscribe) -> None:
        """The receipt means that nothing follows, and that what comes to the queue from now on is for others."""
        receiver = self.receivers.pop(event.subscription.tag)
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
        self.receivers.settle(event, settling)
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
        self.receivers.stop(self._replay)
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
            self.shared.traffic.receipts += 1
            self.connection.send(self.session.receipt(receipt))

    def fail(
        self, error: StompError, receipt: str | None = None, reason: CloseReason = CloseReason.STOMP_ERROR
    ) -> None:
        """Answers with an ERROR, and ends the session where the error is fatal."""
        if self._gone:
            return
        if reason is not CloseReason.STOMP_ERROR:
            error.fatal = True
        self.shared.traffic.errors += 1
        self.connection.send(self.session.error(error, receipt))
        if self.session.closing:
            self.parting = error.message
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
        if self.receivers.get(subscription.tag) is not receiver:
            return
        self.receivers.drop(receiver, self._replay)
        if subscription.id is None:
            name, description = subscription.destination, f"destination='{subscription.destination}'"
        else:
            name, description = subscription.id, f"id='{subscription.id}'"
        self.fail(errors.server_cancelled(name, description))

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self.receivers.stop(self._replay)
            self.router.leave(self)
            if self._admission is not None:
                self._admission.close()
            # All this would wait for the garbage collector, which comes for many objects, not for large ones.
            self._replay.clear()
            self.session.end()


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
