"""What all clients of the process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stompbridge.auth.base import Authenticator, Identity
from stompbridge.config import Limits, Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.gate import Idempotence
from stompbridge.gateway.traffic import Traffic
from stompbridge.routing.router import Permissions, Router
from stompbridge.stomp.session import SessionSettings

if TYPE_CHECKING:
    from stompbridge.gateway.client import Client


class Lease(Protocol):
    """A client's share in the link of its login."""

    router: Router

    def release(self) -> None:
        """The client has gone."""


class Upstreams(Protocol):
    """The links to the broker under the clients' own logins."""

    async def acquire(self, identity: Identity, on_revoked: Callable[[str], None]) -> Lease:
        """A share in the link of ``identity``, which is opened where there is none. ``on_revoked`` tells that the
        broker does not let the login in any more, with a text for the client.

        Raises :class:`~stompbridge.auth.base.AuthRefused` or :class:`~stompbridge.auth.base.AuthUnavailable`.
        """


class SessionsOf:
    """Counts the sessions of each user, and lets in no more than ``limit`` of one (0: any number)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._count: dict[str, int] = {}
        self.refused = 0

    def enter(self, user: str) -> bool:
        """One more session, if it may be."""
        count = self._count.get(user, 0)
        if self.limit and count >= self.limit:
            self.refused += 1
            return False
        self._count[user] = count + 1
        return True

    def leave(self, user: str) -> None:
        """One session less."""
        count = self._count[user] - 1
        if count:
            self._count[user] = count
        else:
            del self._count[user]


def _nobody(_client: Client, _reason: CloseReason) -> None:
    """Nobody wants to know."""


def _anything(_identity: Identity | None) -> None:
    """There is no access control."""


@dataclass(slots=True)
class Shared:
    """Settings and parts, made once by the composition root."""

    settings: Settings
    session_settings: SessionSettings
    router: Router
    server: str
    in_flight_max: int
    """Unconfirmed SENDs of one session. Below the deduplication window, so that when all of them have to be
    published again every copy is still recognised."""
    now: Callable[[], float]
    sweep_interval: float
    idempotence: Idempotence
    sessions_of: SessionsOf
    traffic: Traffic
    authenticator: Authenticator | None = None
    """Tells who a client is; ``None``: nobody asks."""
    permissions_of: Callable[[Identity | None], Permissions | None] = _anything
    """What a client may do; ``None``: anything. Without an identity it is nobody in particular."""
    on_closed: Callable[[Client, CloseReason], None] = _nobody
    """Told of each session that was let in and is over."""
    watch: Callable[[Client], None] | None = None
    """Told of each client that comes while frames are traced."""
    upstreams: Upstreams | None = None
    """The links of the clients' own logins, where RabbitMQ authenticates them."""

    @property
    def limits(self) -> Limits:
        return self.settings.limits
