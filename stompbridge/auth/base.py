"""What authentication means to the rest of the program: credentials in, an identity or a refusal out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from stompbridge.config import AclRule


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client says of itself. ``headers`` are those of its CONNECT frame, ``upgrade`` those of the WebSocket's
    opening request, in lower case; ``address`` is the IP address that failures are counted for."""

    login: str | None
    passcode: str | None = field(repr=False)
    host: str | None
    headers: Mapping[str, str] = field(repr=False)
    upgrade: Mapping[str, str] = field(repr=False)
    address: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is."""

    user: str
    groups: frozenset[str] = frozenset()
    expires_at: float | None = None
    """Seconds since 1970 at which the session ends."""
    rules: tuple[AclRule, ...] | None = None
    """What the user may do, where the one who vouches for the user says so, too; otherwise the configuration's."""
    virtual_host: str | None = None
    passcode: str | None = field(default=None, repr=False)
    """With ``virtual_host``: the client's messages go to RabbitMQ under its own login."""


class AuthRefused(Exception):
    """The client is not let in. ``text`` is for the client and never says which half was wrong; ``cause`` is for the
    log, and holds no secret. ``unseen``: nobody was asked, as one of many attempts that are not worth a warning each.
    """

    def __init__(self, text: str, cause: str, unseen: bool = False) -> None:
        super().__init__(cause)
        self.text = text
        self.cause = cause
        self.unseen = unseen


def access_refused(user: str | None, cause: str, unseen: bool = False) -> AuthRefused:
    """The refusal in RabbitMQ's words: the same whatever was wrong; ``user`` is what the client called itself."""
    return AuthRefused("Access refused\n" if user is None else f"Access refused for user '{user}'\n", cause, unseen)


class AuthUnavailable(Exception):
    """It can not be said now whether the client may come in: what is asked does not answer. ``cause`` is for the log;
    ``text`` is for the client where it may know more than that."""

    def __init__(self, cause: str, text: str = "") -> None:
        super().__init__(cause)
        self.text = text


class Authenticator(Protocol):
    """One way of telling who a client is."""

    async def start(self) -> None:
        """Gets ready. Raises ``ValueError`` for what is wrong with its files, so that the start fails."""

    async def stop(self) -> None:
        """Lets go of connections and tasks."""

    async def authenticate(self, credentials: Credentials) -> Identity:
        """Raises :class:`AuthRefused` or :class:`AuthUnavailable`. Takes a limited time."""

    def reload(self) -> None:
        """Reads its files anew. Raises ``ValueError`` and keeps what it has when they are not right."""

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name; which there are depends on the backend."""
