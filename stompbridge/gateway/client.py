"""One connected client: between its STOMP session and the router.

Frames take effect in their order. What has to wait for the broker (a subscription's binding, a queue's first
declaration, too much in flight) holds the frames behind it, of this client alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from secrets import token_urlsafe
from typing import Any

import structlog

from stompbridge.brokers.base import Failure
from stompbridge.config import Limits, Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection, ws_frame
from stompbridge.gateway.subscriptions import SubscriptionReceiver, make_receiver
from stompbridge.routing.router import Router, failure_to_error
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
    Refused,
    Send,
    ServerSession,
    SessionSettings,
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
class Shared:
    """What all clients of the process share."""

    settings: Settings
    session_settings: SessionSettings
    router: Router
    server: str
    in_flight_max: int
    """Unconfirmed SENDs of one session. Below the deduplication window, so that when all of them have to be
    published again every copy is still recognised."""
    now: Callable[[], float]
    sweep_interval: float

    @property
    def limits(self) -> Limits:
        return self.settings.limits


class Client:
    """Listens to one connection and drives one STOMP session."""

    __slots__ = (
        "_connect_deadline",
        "_disconnect",
        "_gone",
        "_heartbeat",
        "_held",
        "_in_flight",
        "_opened_at",
        "_receivers",
        "_resume_at",
        "_running",
        "connection",
        "messages_in",
        "messages_out",
        "next_seq",
        "sender_id",
        "session",
        "shared",
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
        self._in_flight = 0
        # While held, frames wait; with a number, until no more than so many SENDs are unanswered.
        self._held = False
        self._resume_at: int | None = None
        self._running = False
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
        if heartbeat.expired(now, connection.last_read):
            connection.close(CloseReason.HEARTBEAT_LOST)
            return
        if heartbeat.send_due(now, connection.last_write, 2 * self.shared.sweep_interval):
            connection.write(_HEARTBEAT_FRAME)

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
                event = self.session.next_event()
                if event is None:
                    self.connection.resume_reading()
                    break
                try:
                    _HANDLERS[type(event)](self, event)
                except StompError as error:
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
        hosts = self.shared.settings.stomp.hosts
        host = event.headers.get("host")
        if hosts and host is not None and host not in hosts:
            raise errors.bad_host(host)
        self._connect_deadline = None
        self._heartbeat = event.heartbeat
        self.connection.max_message = self.shared.limits.frame
        self.connection.ping = not event.heartbeat.receive
        self.connection.send(self.session.accept(self.shared.server))
        _log.info(
            "session_opened",
            session=self.sender_id,
            remote=self.connection.remote,
            version=str(event.version),
            heartbeat=event.heartbeat.header,
        )

    def _on_send(self, event: Send) -> None:
        self.messages_in += 1
        self._in_flight += 1
        router = self.shared.router
        try:
            in_order = router.send(self, event, partial(self._on_sent, event.receipt))
        except StompError:
            self._in_flight -= 1
            raise
        if in_order and self._in_flight:
            self._hold(0)
        elif self._in_flight >= self.shared.in_flight_max:
            self._hold(self.shared.in_flight_max // 2)
        elif router.broker.congested:
            self._hold()
            router.broker.when_clear(self._release)

    def _on_sent(self, receipt: str | None, failure: Failure | None) -> None:
        self._in_flight -= 1
        if self._gone:
            return
        if failure is not None:
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
            receiver = make_receiver(self, subscription, self.shared.router)
        except StompError:
            self.session.forget(subscription.tag)
            raise
        self._receivers[subscription.tag] = receiver
        self._hold()
        receiver.start(partial(self._on_subscribed, receiver, event.receipt))

    def _on_subscribed(self, receiver: SubscriptionReceiver, receipt: str | None, failure: Failure | None) -> None:
        if self._gone:
            return
        if failure is not None:
            self._drop(receiver)
            self.fail(failure_to_error(failure), receipt)
        else:
            self._receipt(receipt)
        self._release()

    def _on_unsubscribe(self, event: Unsubscribe) -> None:
        receiver = self._receivers.pop(event.subscription.tag)
        receiver.stop(event.released)
        self._receipt(event.receipt)

    def _on_settle(self, event: Settle) -> None:
        self._settle(event)
        self._receipt(event.receipt)

    def _settle(self, event: Settle) -> None:
        by_tag: dict[str, list[Delivery]] = {}
        for delivery in event.deliveries:
            by_tag.setdefault(delivery.subscription.tag, []).append(delivery)
        for tag, deliveries in by_tag.items():
            receiver = self._receivers.get(tag)
            if receiver is not None:
                receiver.settle(deliveries, event.ack, event.requeue)

    def _on_commit(self, event: Commit) -> None:
        """Sends and acknowledges in order, not atomically, as in RabbitMQ. The receipt follows the last confirm."""
        outstanding = 1
        failed = False

        def answered(receipt: str | None, failure: Failure | None) -> None:
            nonlocal outstanding, failed
            outstanding -= 1
            failed = failed or failure is not None
            if outstanding == 0 and not failed and not self._gone:
                self._receipt(event.receipt)
            self._on_sent(receipt, failure)

        for action in event.actions:
            if isinstance(action, Settle):
                self._on_settle(action)
                continue
            self.messages_in += 1
            self._in_flight += 1
            outstanding += 1
            try:
                self.shared.router.send(self, action, partial(answered, action.receipt))
            except StompError as error:
                self._in_flight -= 1
                outstanding -= 1
                failed = True
                self.fail(error, action.receipt)
        outstanding -= 1
        if outstanding:
            self._hold(0)
        elif not failed:
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
        receiver.stop(self.session.forget(tag))

    def _stop_receivers(self) -> None:
        by_tag: dict[str, list[Delivery]] = {}
        for delivery in self.session.unacked.values():
            by_tag.setdefault(delivery.subscription.tag, []).append(delivery)
        receivers, self._receivers = self._receivers, {}
        for tag, receiver in receivers.items():
            receiver.stop(by_tag.get(tag, ()))

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._stop_receivers()


_HANDLERS: dict[type, Callable[[Client, Any], None]] = {
    Send: Client._on_send,
    Settle: Client._on_settle,
    Subscribe: Client._on_subscribe,
    Unsubscribe: Client._on_unsubscribe,
    Connect: Client._on_connect,
    Commit: Client._on_commit,
    Done: Client._on_done,
    Disconnect: Client._on_disconnect,
    Refused: Client._on_refused,
}
