"""From CONNECT to CONNECTED: who a client is, which broker login serves it, and the history it may have left.

One step after the other; each may take its time, while the client's later frames wait.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import structlog

from stompbridge.auth.base import AuthRefused, AuthUnavailable, Credentials, Identity
from stompbridge.dedup.store import Receiver
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.shared import Lease, Shared
from stompbridge.routing.router import Router
from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.events import Connect

_log = structlog.get_logger("stompbridge.session")

CLIENT_ID_MAX = 255
"""Bytes of a client's name."""


class Entrant(Protocol):
    """The client, as far as its admission goes."""

    connection: Connection
    shared: Shared

    def admit(self, event: Connect, admission: Admission) -> None:
        """All is known: answer CONNECTED, and go on with the frames that waited."""

    def turn_down(self, error: StompError, reason: CloseReason = CloseReason.STOMP_ERROR) -> None:
        """Answer with an ERROR, and go on: the client may CONNECT again unless the error is fatal."""

    def fail(
        self, error: StompError, receipt: str | None = None, reason: CloseReason = CloseReason.STOMP_ERROR
    ) -> None: ...


class Admission:
    """One CONNECT. What it has taken (a link, a history, a place among the user's sessions) it gives back in
    :meth:`close`, whether the client was admitted or not."""

    __slots__ = ("_closed", "_counted", "_entrant", "_event", "_lease", "_task", "client_id", "identity", "named")

    def __init__(self, entrant: Entrant, event: Connect) -> None:
        self._entrant = entrant
        self._event = event
        self._task: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._counted = False
        self._closed = False
        self.identity: Identity | None = None
        """Who the client is; ``None`` where nobody authenticates."""
        self.client_id = event.headers.get("client-id")
        self.named: Receiver | None = None
        """The client's history, where it has named itself (``client-id``)."""

    @property
    def router(self) -> Router:
        """The way to the broker: that of the client's own login, or the bridge's."""
        return self._entrant.shared.router if self._lease is None else self._lease.router

    @property
    def scope(self) -> str:
        """Whose the client's names and keys are; empty where nobody authenticates."""
        identity = self.identity
        if identity is None:
            return ""
        return identity.user if identity.virtual_host is None else f"{identity.virtual_host}\0{identity.user}"

    def begin(self) -> None:
        """Starts. Raises :class:`~stompbridge.stomp.errors.StompError` for what is wrong with the frame itself."""
        shared, headers = self._entrant.shared, self._event.headers
        if self.client_id is not None and not 0 < len(self.client_id.encode()) <= CLIENT_ID_MAX:
            raise errors.bad_client_id(CLIENT_ID_MAX)
        hosts, host = shared.settings.stomp.hosts, headers.get("host")
        if hosts and host is not None and host not in hosts:
            raise errors.bad_host(host)
        if shared.authenticator is None:
            self._identified()
        else:
            self._task = asyncio.create_task(self._authenticate())

    def close(self) -> None:
        """Lets go of everything."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self.named is not None:
            # What the client did not acknowledge is in doubt for its next session.
            self.named.close()
        if self._counted:
            assert self.identity is not None
            self._entrant.shared.sessions_of.leave(self.identity.user)
        if self._lease is not None:
            self._lease.release()

    async def _authenticate(self) -> None:
        shared, connection, headers = self._entrant.shared, self._entrant.connection, self._event.headers
        assert shared.authenticator is not None
        auth, logins = shared.settings.auth, shared.traffic.logins
        credentials = Credentials(
            login=headers.get("login", auth.default_login or None),
            passcode=headers.get("passcode", auth.default_passcode or None),
            host=headers.get("host"),
            headers=headers,
            upgrade=connection.upgrade,
            address=connection.address,
        )
        try:
            self.identity = await shared.authenticator.authenticate(credentials)
            if shared.upstreams is not None:
                self._lease = await shared.upstreams.acquire(self.identity, self._revoked)
            logins["accepted"] += 1
        except AuthRefused as refusal:
            logins["throttled" if refusal.unseen else "refused"] += 1
            tell = _log.debug if refusal.unseen else _log.warning
            tell("connect_refused", remote=connection.remote, login=credentials.login, cause=refusal.cause)
            self._refuse(errors.bad_connect(refusal.text))
        except AuthUnavailable as problem:
            logins["unavailable"] += 1
            _log.warning("connect_failed", remote=connection.remote, login=credentials.login, cause=str(problem))
            error = errors.bad_connect(problem.text) if problem.text else errors.auth_unavailable()
            self._refuse(error, CloseReason.AUTH_UNAVAILABLE)
        except Exception:
            logins["unavailable"] += 1
            _log.exception("connect_failed", remote=connection.remote)
            self._refuse(errors.auth_unavailable(), CloseReason.AUTH_UNAVAILABLE)
        else:
            self._identified()

    def _revoked(self, text: str) -> None:
        """RabbitMQ does not let the login in any more."""
        self._entrant.fail(errors.bad_connect(text), reason=CloseReason.ACCESS_REVOKED)

    def _identified(self) -> None:
        shared = self._entrant.shared
        if self.identity is not None:
            expires_at = self.identity.expires_at
            if expires_at is not None and expires_at <= time.time():
                self._refuse(errors.session_expired(), CloseReason.SESSION_EXPIRED)
                return
            if not shared.sessions_of.enter(self.identity.user):
                self._refuse(errors.too_many_sessions(self.identity.user))
                return
            self._counted = True
        if self.client_id is None:
            self._entrant.admit(self._event, self)
            return
        name = f"{self.scope}\0{self.client_id}" if self.scope else self.client_id
        shared.idempotence.store.open(name, self._taken_over, self._opened)

    def _opened(self, named: Receiver | None) -> None:
        """The store has, or has not, opened the history of a client that names itself."""
        if self._closed:
            if named is not None:
                named.close()
            return
        idempotence = self._entrant.shared.idempotence
        if named is None and idempotence.hold_without_store:
            self._refuse(errors.store_unavailable())
            return
        idempotence.bypassed += named is None
        self.named = named
        self._entrant.admit(self._event, self)

    def _taken_over(self) -> None:
        assert self.client_id is not None
        self._entrant.fail(errors.taken_over(self.client_id), reason=CloseReason.TAKEN_OVER)

    def _refuse(self, error: StompError, reason: CloseReason = CloseReason.STOMP_ERROR) -> None:
        self.close()
        self._entrant.turn_down(error, reason)
