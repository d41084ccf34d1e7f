"""Who may ask the admin listener for what: names of the host, origins of pages, and the token."""

from __future__ import annotations

import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from stompbridge.admin.server import Refusal, Request
from stompbridge.config import Admin
from stompbridge.config_checks import is_loopback

FAILURES = 10
"""Wrong tokens of one address within :data:`WINDOW`, after which no more are looked at until it has passed."""
WINDOW = 60.0
"""Seconds."""
ADDRESSES = 1024
"""Addresses whose failures are kept in mind; the oldest is forgotten first."""

_CHALLENGE = ("WWW-Authenticate", "Bearer")


class Access:
    """The rules. ``now`` gives monotonic seconds."""

    def __init__(self, settings: Admin, now: Callable[[], float]) -> None:
        self._token = settings.token.encode()
        self._hosts = {"localhost", settings.host.lower(), *(host.lower().rstrip(".") for host in settings.hosts)}
        self._open = is_loopback(settings.host) or not self._token
        self._now = now
        self._tries: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.failures = 0
        """Requests with a wrong token, or without the one that they need."""

    @property
    def token_configured(self) -> bool:
        return bool(self._token)

    @property
    def open(self) -> bool:
        """Whether what tells about single clients is for everybody who reaches the listener."""
        return self._open

    def check_site(self, request: Request) -> None:
        """Refuses what a page of another site has its reader's browser send: by a name of its own that leads here
        (DNS rebinding), or as a request across sites."""
        host = request.headers.get("host")
        # Browsers always send it. HTTP/1.0, as load balancers' health checks speak it, has it not.
        if host is not None and not self._is_own(host):
            raise Refusal(421, "not served under this name: ask by IP address, or add the name to admin.hosts")
        origin = request.headers.get("origin")
        own = () if host is None else (f"http://{host}".lower(), f"https://{host}".lower())
        if origin is not None and origin.lower() not in own:
            raise Refusal(403, "not served to pages of other sites")

    def check_reader(self, request: Request) -> None:
        """For what tells about single clients: only with the token where other machines reach the listener."""
        if not self._open:
            self.check_control(request)

    def check_control(self, request: Request) -> None:
        """For what changes something, or shows messages."""
        if not self._token:
            raise Refusal(403, "there is no token for this: set admin.token_file, or admin.token, and restart")
        if not self.may_control(request):
            if "authorization" not in request.headers:
                self.failures += 1
            raise Refusal(401, "needs the admin token: Authorization: Bearer TOKEN", _CHALLENGE)

    def may_control(self, request: Request) -> bool:
        """Whether the request has the token. Refuses it unseen after too many wrong ones."""
        given = request.headers.get("authorization")
        if given is None or not self._token:
            return False
        now = self._now()
        since, count = self._tries.get(request.address, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        if count >= FAILURES:
            wait = max(1, round(since + WINDOW - now))
            raise Refusal(429, f"too many wrong tokens; wait {wait} s", ("Retry-After", str(wait)))
        scheme, _, token = given.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token):
            return True
        self.failures += 1
        self._tries[request.address] = since, count + 1
        if len(self._tries) > ADDRESSES:
            self._tries.popitem(last=False)
        return False

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        name = name.rstrip(".")
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
