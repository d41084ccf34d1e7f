"""The authenticator that the configuration names."""

from __future__ import annotations

from pathlib import Path

from stompbridge.auth.base import Authenticator
from stompbridge.auth.throttle import Throttled
from stompbridge.config import Settings


def make_authenticator(settings: Settings) -> Authenticator | None:
    """The authenticator of ``auth.backend``; ``None`` where nobody is asked, and for ``rabbitmq``, where the links to
    the broker are what lets a client in."""
    auth = settings.auth
    backend: Authenticator
    # Each brings a library along that takes its time to load.
    match auth.backend:
        case "static":
            from stompbridge.auth.static import StaticUsers

            backend = StaticUsers(Path(auth.users_file))
        case "jwt":
            from stompbridge.auth.jwt import TokenAuthenticator

            backend = TokenAuthenticator(auth.jwt)
        case "http":
            from stompbridge.auth.http import WebhookAuthenticator

            backend = WebhookAuthenticator(auth.http)
        case _:
            return None
    # A login beside a token proves nothing.
    return Throttled(backend, auth.failures, auth.failure_window, by_login=auth.backend != "jwt")
