"""RabbitMQ under a client's own login, so that it enforces what it has granted the login."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable

import structlog

from ...config import BrokerSettings, Exchange
from ...histogram import Latency
from ..base import BrokerListener, Failure, LoginRefused, Unreachable
from .broker import AmqpBroker
from .link import Link
from .login import Login
from .wire import SILENTLY, Wire, WireError

# RabbitMQ 3.10, rabbit_reader: as many connections as the virtual host, or the user, may have.
_LIMIT = re.compile(r"connection limit \(.*\) is reached$")

_log = structlog.get_logger(__name__)


class AmqpLoginBroker(AmqpBroker):
    """:class:`stompbridge.brokers.base.LoginBroker` over AMQP 0-9-1.

    It declares no exchange and binds each key, so that RabbitMQ checks each. ``on_refused`` is called once RabbitMQ
    does not let the login in any more, or takes back what a subscription needs; there is no further attempt then.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        node: str,
        extra_exchanges: Iterable[Exchange],
        login: Login,
        on_refused: Callable[[LoginRefused], None],
        latency: Latency | None = None,
    ) -> None:
        super().__init__(settings, node, extra_exchanges, login, latency)
        self._as = login
        self._on_refused = on_refused
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._mailboxes.bindings.on_revoked = self._revoked

    async def open(self, listener: BrokerListener) -> None:
        """See :class:`stompbridge.brokers.base.LoginBroker`. Whatever it raises, ``stop`` is to be called."""
        await self.start(listener)
        await self._outcome

    async def verify(self) -> None:
        """See :class:`stompbridge.brokers.base.LoginBroker`."""
        reasons = []
        for url in self._settings.urls:
            try:
                wire = Wire(url, f"stompbridge {self._node} check", 0, _ignore, _nothing, self._as)
                await wire.open(self._settings.connect_timeout)
            except WireError as problem:
                if problem.refused is None or problem.refused is SILENTLY:
                    reasons.append(str(problem))
                elif _is_limit(problem.refused):
                    return
                else:
                    raise _refusal(problem.refused) from None
            else:
                await wire.close(1.0)
                return
        raise Unreachable("; ".join(reasons))

    def _mailbox_prefix(self) -> str:
        """Fits permissions that were granted for the plugin's queues. Whoever has them might consume from it, and
        must not guess the name."""
        return f"stomp-subscription-stompbridge.{self._node}.{secrets.token_hex(12)}"

    async def _prepare(self, link: Link) -> None:
        """The exchanges are the affair of the bridge's own login."""

    def _turned_away(self, refused: Failure) -> None:
        # After a loss, the broker may be gone again, and the connections that have just died may count for a while.
        if not self._outcome.done() or not (refused is SILENTLY or _is_limit(refused)):
            raise _refusal(refused)

    def _attempted(self, problem: LoginRefused | Unreachable | None) -> None:
        if self._outcome.done():
            if isinstance(problem, LoginRefused):
                self._on_refused(problem)
        elif problem is None:
            self._outcome.set_result(None)
        else:
            self._outcome.set_exception(problem)

    def _say(self, level: int, event: str, **fields: object) -> None:
        """What the bridge's own connection goes through, so do all others; they need not say it again."""
        _log.debug(event, login=self._as.user, **fields)

    def _revoked(self, problem: Failure) -> None:
        self._attempted(LoginRefused(problem.text))


def _is_limit(failure: Failure) -> bool:
    """Whether it is not the login that is refused, but one more connection."""
    return failure.code == "not_allowed" and _LIMIT.search(failure.text) is not None


def _refusal(failure: Failure) -> LoginRefused:
    """What Connection.Close during the handshake means: 403 is about the login, 530 about the virtual host. (That a
    user may come from loopback only is told as a 403 like any other.)"""
    return LoginRefused(failure.text, virtual_host=failure.code == "not_allowed")


def _ignore(_reason: str) -> None:
    """A connection of which nothing is wanted any more."""


def _nothing() -> None:
    """Nothing goes over it."""
