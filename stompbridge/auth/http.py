"""A webhook that says who a client is, and what it may do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated

import httpx
import msgspec

from stompbridge.auth.acl import check_own_rules
from stompbridge.auth.base import AuthUnavailable, Credentials, Identity, access_refused
from stompbridge.auth.calls import SharedCalls
from stompbridge.auth.digests import Digests, Remembered
from stompbridge.auth.fetch import FetchError, fetch, make_client
from stompbridge.config import AclRule, HttpAuth

Clock = Callable[[], float]

AT_A_TIME = 32
WAITING = 1000
"""Clients that are asked about, and that wait to be."""
ANSWER_MAX = 64 * 1024
"""Bytes."""
REMEMBERED = 10_000


class Answer(msgspec.Struct, frozen=True):
    """The body of a 200. Members beside these are left alone."""

    user: Annotated[str, msgspec.Meta(min_length=1)]
    groups: tuple[str, ...] = ()
    expires_at: float | None = None
    """Seconds since 1970."""
    acl: tuple[AclRule, ...] | None = None
    """In place of the configuration's."""


class WebhookAuthenticator:
    """The ``http`` backend.

    The webhook is asked by POST, with ``login``, ``passcode``, ``host``, ``address`` and ``headers`` in a JSON object.
    Its status says 200 for yes, 401 or 403 for no; anything else is no answer. A yes is kept for a while.
    """

    def __init__(self, settings: HttpAuth, clock: Clock = time.time, now: Clock = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._now = now
        self._forwarded = tuple(name.lower() for name in settings.forward_headers)
        self._digests = Digests()
        self._answers: Remembered[Identity] = Remembered(REMEMBERED)
        # As long for a turn as for the answer.
        self._calls: SharedCalls[Identity] = SharedCalls(AT_A_TIME, WAITING, 2 * settings.timeout)
        self._client: httpx.AsyncClient | None = None
        self.recalled = 0
        """Clients let in by an answer that was kept."""
        self.unanswered = 0
        """Requests without a usable answer."""

    @property
    def asked(self) -> int:
        """Requests made."""
        return self._calls.started

    @property
    def turned_away(self) -> int:
        """Clients that were not asked about, since too many were."""
        return self._calls.turned_away + self._calls.timed_out

    async def start(self) -> None:
        self._client = make_client(self._settings.url, AT_A_TIME)

    async def stop(self) -> None:
        await self._calls.stop()
        if self._client is not None:
            await self._client.aclose()

    def reload(self) -> None:
        self._answers.clear()

    def counters(self) -> Mapping[str, int]:
        return {
            "webhook_requests": self.asked,
            "webhook_unanswered": self.unanswered,
            "webhook_recalled": self.recalled,
            "webhook_turned_away": self.turned_away,
        }

    async def authenticate(self, credentials: Credentials) -> Identity:
        question = self._question(credentials)
        key = self._digests.of(question)
        identity = self._answers.get(key, self._now())
        if identity is not None:
            self.recalled += 1
            return identity
        return await self._calls.run(key, lambda: self._ask(question, key, credentials.login))

    def _question(self, credentials: Credentials) -> bytes:
        upgrade = credentials.upgrade
        return msgspec.json.encode(
            {
                "login": credentials.login,
                "passcode": credentials.passcode,
                "host": credentials.host,
                "address": credentials.address,
                "headers": {name: upgrade[name] for name in self._forwarded if name in upgrade},
            }
        )

    async def _ask(self, question: bytes, key: bytes, login: str | None) -> Identity:
        assert self._client is not None
        settings = self._settings
        asked_at = self._now()
        try:
            status, data = await fetch(
                self._client, "POST", settings.url, within=settings.timeout, size=ANSWER_MAX, body=question
            )
            if status in (401, 403):
                raise access_refused(login, f"auth.http.url: HTTP status {status}")
            if status != 200:
                raise FetchError(f"HTTP status {status}")
            identity = _identity(data)
        except FetchError as error:
            self.unanswered += 1
            raise AuthUnavailable(f"auth.http.url: {error}") from None
        remaining = settings.cache
        if identity.expires_at is not None:
            remaining = min(remaining, identity.expires_at - self._clock())
            if identity.expires_at <= self._clock():
                raise access_refused(login, "auth.http.url: the answer has expired")
        self._answers.put(key, identity, asked_at + remaining)
        return identity


def _identity(data: bytes) -> Identity:
    """What an answer says. Raises :class:`FetchError` that quotes nothing of it."""
    try:
        answer = msgspec.json.decode(data, type=Answer)
        if answer.acl is not None:
            check_own_rules(answer.acl)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise FetchError("the answer is not as it should be") from None
    return Identity(answer.user, frozenset(answer.groups), answer.expires_at, answer.acl)
