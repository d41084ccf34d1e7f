"""RabbitMQ knows the users: a client's login and passcode are tried there, and used for all that the client does."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping

from stompbridge.auth.base import AuthRefused, Credentials, Identity, access_refused
from stompbridge.config import Auth
from stompbridge.stomp.errors import bad_host

Check = Callable[[str, str, str], Awaitable[None]]
"""Asks RabbitMQ whether it lets a login with a passcode into a virtual host. Raises :class:`.AuthRefused` or
:class:`.AuthUnavailable`."""

LOOPBACK_ONLY = frozenset({"guest"})
"""Logins that RabbitMQ's default configuration (``loopback_users``) lets in from its own machine only. It sees the
bridge's address, so that it is here that the client's counts."""


class RabbitmqAuthenticator:
    """An :class:`.Authenticator`. Texts are those of RabbitMQ's STOMP plugin."""

    def __init__(self, auth: Auth, check: Check) -> None:
        self._auth = auth
        self._check = check

    async def start(self) -> None:
        """Nothing is to be read."""

    async def stop(self) -> None:
        """Nothing is kept."""

    def counters(self) -> Mapping[str, int]:
        """None: the links have theirs."""
        return {}

    def reload(self) -> None:
        """Nothing is to be read."""

    async def authenticate(self, credentials: Credentials) -> Identity:
        """Who the client is, with what it takes to get at RabbitMQ in its name."""
        auth, login, passcode = self._auth, credentials.login, credentials.passcode
        if login is None or passcode is None:
            raise AuthRefused("Missing login or passcode header(s)", "no login or no passcode")
        if credentials.host is None:
            virtual_host = auth.virtual_host
        else:
            virtual_host = auth.virtual_hosts.get(credentials.host, credentials.host)
        if not login or not passcode or "\0" in login + passcode:
            # RabbitMQ has no such users (SASL PLAIN, RFC 4616, parts them by NUL).
            raise access_refused(login, "no possible login or passcode")
        if len(virtual_host.encode()) > 255:
            # More than connection.open can carry.
            raise AuthRefused(bad_host(virtual_host).body, "no possible virtual host")
        if login in LOOPBACK_ONLY and not _is_loopback(credentials.address):
            raise AuthRefused("non-loopback access denied", f"'{login}' may come from loopback only")
        await self._check(login, passcode, virtual_host)
        return Identity(user=login, virtual_host=virtual_host, passcode=passcode)


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
