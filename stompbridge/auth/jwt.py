"""JSON Web Tokens (RFC 7519) that somebody else has signed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from stompbridge.auth.base import AuthRefused, AuthUnavailable, Credentials, Identity, access_refused
from stompbridge.auth.jwks import KeySet
from stompbridge.config import Jwt

Clock = Callable[[], float]

TOKEN_MAX = 16 * 1024
"""Bytes of a token."""


class TokenAuthenticator:
    """The ``jwt`` backend."""

    def __init__(self, settings: Jwt, clock: Clock = time.time, now: Clock = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self.keys = KeySet(settings, now)
        self._options: Any = {
            "require": ["exp", "aud", "iss"],
            # These come as floats, too, which PyJWT cuts, and infinity trips it up: see _times.
            **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat"), False),
            # Which claim names the user is a matter of the configuration: see _identity.
            **dict.fromkeys(("verify_sub", "verify_jti"), False),
        }

    async def start(self) -> None:
        await self.keys.start()

    async def stop(self) -> None:
        await self.keys.stop()

    def reload(self) -> None:
        self.keys.reload()

    def counters(self) -> Mapping[str, int]:
        """Of reads of a set of keys; none where there is one key in a file."""
        keys = self.keys
        return {"key_reads": keys.reads, "key_read_failures": keys.failures}

    async def authenticate(self, credentials: Credentials) -> Identity:
        token = find_token(credentials, self._settings)
        if token is None:
            raise _refused("no token")
        if len(token) > TOKEN_MAX:
            raise _refused("the token is too long")
        return self._identity(await self._verify(token))

    async def _verify(self, token: str) -> dict[str, Any]:
        """The claims of a token that is what it says."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _refused("the token is malformed") from None
        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._settings.algorithms:
            raise _refused("the token's algorithm is not one of auth.jwt.algorithms")
        if not self.keys:
            await self.keys.look_again()
            if not self.keys:
                raise AuthUnavailable("there are no keys to verify tokens with")
        key = self.keys.find(kid, algorithm)
        if key is None and kid is not None:
            await self.keys.look_again()
            key = self.keys.find(kid, algorithm)
        if key is None:
            if self.keys.stale:
                raise AuthUnavailable("the token's key is unknown, and the keys cannot be read anew")
            raise _refused("the token's key is unknown, or not for its algorithm")
        settings = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.material,
                algorithms=[algorithm],
                options=self._options,
                audience=settings.audience,
                issuer=settings.issuer,
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            # Their names say what is wrong; their texts may quote the token.
            raise _refused(f"the token is not valid: {type(error).__name__}") from None
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        settings = self._settings
        expires_at = self._times(claims)
        user, groups = claims.get(settings.user_claim), claims.get(settings.groups_claim, [])
        if not isinstance(user, str) or not user:
            raise _refused(f"the token's claim {settings.user_claim!r} is no name")
        if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
            raise _refused(f"the token's claim {settings.groups_claim!r} is no list of names")
        return Identity(user, frozenset(groups), expires_at)

    def _times(self, claims: Mapping[str, Any]) -> float:
        """When the session ends (RFC 7519, 4.1.4 and 4.1.5)."""
        now, leeway = self._clock(), self._settings.leeway
        expires_at = _date(claims, "exp") + leeway
        if now >= expires_at:
            raise _refused("the token has expired")
        if "nbf" in claims and now < _date(claims, "nbf") - leeway:
            raise _refused("the token is not valid yet")
        return expires_at


def find_token(credentials: Credentials, settings: Jwt) -> str | None:
    """The first thing that has the form of a token: in CONNECT's headers, the cookie, or the upgrade's Authorization.

    What has not, such as a ``passcode`` that a client sends out of habit, does not stand in the way of the next.
    """
    for name in settings.connect_headers:
        token = _bearer(credentials.headers.get(name, ""), optional=True)
        if token:
            return token
    if settings.cookie:
        for cookie in credentials.upgrade.get("cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            token = _bearer(value.strip('"'), optional=True) if name == settings.cookie else ""
            if token:
                return token
    return _bearer(credentials.upgrade.get("authorization", ""), optional=False) or None


def _bearer(value: str, *, optional: bool) -> str:
    """The token behind ``Bearer`` (RFC 6750, 2.1), which may be missing where it is ``optional``; else nothing."""
    words = value.split()
    if len(words) == 2 and words[0].lower() == "bearer":
        words = words[1:]
    elif not optional:
        return ""
    return words[0] if len(words) == 1 and words[0].count(".") == 2 else ""


def _date(claims: Mapping[str, Any], name: str) -> float:
    """Seconds since 1970 (RFC 7519, NumericDate)."""
    value = claims[name]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            date = float(value)
        except OverflowError:
            date = math.inf
        if math.isfinite(date):
            return date
    raise _refused(f"the token's claim {name!r} is no date")


def _refused(cause: str) -> AuthRefused:
    return access_refused(None, cause)
