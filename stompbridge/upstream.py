"""Links to RabbitMQ under the clients' own logins: one for each virtual host, login and passcode.

RabbitMQ enforces on each what it has granted the login. The sessions of a login share its link, which outlives the last
of them for a while. A passcode that a link was opened with stands for it; any other opens a link of its own, or is
refused by RabbitMQ in the attempt. So a changed passcode is good from its first use, and whoever has another token for
the same login has a link with what that token grants.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from stompbridge.auth.base import AuthRefused, AuthUnavailable, Identity, access_refused
from stompbridge.brokers.base import LoginBroker, LoginRefused, Message, Unreachable
from stompbridge.config import Auth
from stompbridge.routing.router import Router
from stompbridge.stomp.errors import bad_host

OPENING = 16
"""Links and checks that may be under way to RabbitMQ at a time."""
VERIFY_AFTER = 30.0
"""Seconds for which RabbitMQ's word about a passcode holds for further sessions."""
SWEEP_ROUTERS = 30.0
"""Seconds between two looks for histories that can be forgotten."""
MIN_LINGER = 1.0
"""Seconds that a link is there for the client whose credentials opened it."""

_log = structlog.get_logger("stompbridge")

OnRefused = Callable[[LoginRefused], None]
MakeBroker = Callable[[str, str, str, OnRefused], LoginBroker]
"""Makes the broker of a login, passcode and virtual host; it calls back when it is not let in any more."""
MakeRouter = Callable[[LoginBroker], Router]


class _Name(NamedTuple):
    """What a link is found by. The passcode is a keyed digest, so that nothing can be learnt from comparisons."""

    virtual_host: str
    login: str
    digest: bytes


class _Full(Exception):
    """There are as many links as there may be."""


class _Link:
    """One login's broker, hub and router, and the sessions that share them. Listens to the broker for its hub."""

    __slots__ = ("broker", "idle_since", "leases", "name", "next_sweep", "router", "verified", "verifying")

    def __init__(self, name: _Name, broker: LoginBroker, router: Router, now: float) -> None:
        self.name = name
        self.broker = broker
        self.router = router
        self.leases: dict[Lease, None] = {}
        self.idle_since = now
        self.verified = now
        self.verifying: asyncio.Task[None] | None = None
        self.next_sweep = now + SWEEP_ROUTERS

    def on_mailbox_messages(self, exchange: str, messages: Sequence[Message]) -> None:
        self.router.hub.on_mailbox_messages(exchange, messages)

    def add_counters(self, total: Counter[str]) -> None:
        """Adds what was counted on it."""
        total.update(self.broker.counters())
        total.update(self.router.counters())

    def on_broker_up(self) -> None:
        """Its sessions need not be told."""

    def on_broker_down(self, reason: str) -> None:
        """Its sessions wait, as all do."""


class Lease:
    """One session's share in a link."""

    __slots__ = ("_link", "_now", "on_revoked", "router")

    def __init__(self, link: _Link, on_revoked: Callable[[str], None], now: Callable[[], float]) -> None:
        self._link = link
        self._now = now
        self.on_revoked = on_revoked
        self.router = link.router
        link.leases[self] = None

    def release(self) -> None:
        """The session has gone. Harmless when called again."""
        link = self._link
        if link.leases.pop(self, self) is None and not link.leases:
            link.idle_since = self._now()


class Upstreams:
    """All links. ``timeout`` limits how long a client waits for one, in seconds; ``now`` gives monotonic seconds."""

    def __init__(
        self,
        auth: Auth,
        timeout: float,
        make_broker: MakeBroker,
        make_router: MakeRouter,
        now: Callable[[], float],
    ) -> None:
        self.opened = 0
        self.refused = 0
        """Clients that RabbitMQ did not let in."""
        self.revoked = 0
        """Links that ended since RabbitMQ did not let the login in any more."""
        self.overflowed = 0
        """Clients turned away since there were as many links as there may be."""
        self._linger = max(auth.link_linger, MIN_LINGER)
        self._max = auth.max_links
        self._timeout = timeout
        self._make_broker = make_broker
        self._make_router = make_router
        self._now = now
        self._key = secrets.token_bytes(32)
        self._links: dict[_Link, None] = {}
        # Those that further sessions may join.
        self._open: dict[_Name, _Link] = {}
        self._opening: dict[_Name, asyncio.Task[_Link]] = {}
        self._slots = asyncio.Semaphore(OPENING)
        self._ending: dict[asyncio.Task[None], _Link] = {}
        # What those counted that are gone.
        self._counted: Counter[str] = Counter()
        self._stopped = False

    def __len__(self) -> int:
        return len(self._links)

    def routers(self) -> list[Router]:
        """Those of the links that there are."""
        return [link.router for link in self._links]

    def counters(self) -> Counter[str]:
        """Totals of all links' brokers and routers since the start."""
        total = Counter(self._counted)
        for link in (*self._links, *self._ending.values()):
            link.add_counters(total)
        return total

    def gauges(self) -> Counter[str]:
        """What all links' brokers have now."""
        total: Counter[str] = Counter()
        for link in self._links:
            total.update(link.broker.gauges())
        return total

    async def check(self, login: str, passcode: str, virtual_host: str) -> None:
        """Finds out whether RabbitMQ lets the login in. The link that comes of it is there for :meth:`acquire`.

        Raises :class:`~stompbridge.auth.base.AuthRefused` or :class:`~stompbridge.auth.base.AuthUnavailable`.
        """
        await self._find(login, passcode, virtual_host)

    async def acquire(self, identity: Identity, on_revoked: Callable[[str], None]) -> Lease:
        """A share in the link of an identity that has a virtual host and a passcode. ``on_revoked`` is called, with a
        text for the client, when RabbitMQ does not let the login in any more. Raises as :meth:`check`."""
        if identity.virtual_host is None or identity.passcode is None:
            raise AuthUnavailable("the identity has no login at RabbitMQ")
        link = await self._find(identity.user, identity.passcode, identity.virtual_host)
        return Lease(link, on_revoked, self._now)

    def sweep(self, now: float) -> None:
        """Ends links that nobody has used for long enough. To be called every second or so."""
        for link in list(self._links):
            if not link.leases and now - link.idle_since > self._linger:
                self._end(link)
            elif now >= link.next_sweep:
                link.next_sweep = now + SWEEP_ROUTERS
                link.router.sweep(now)

    async def stop(self) -> None:
        """Ends all links, each within the limits of its broker."""
        self._stopped = True
        for opening in self._opening.values():
            opening.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for link in list(self._links):
            self._end(link)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _find(self, login: str, passcode: str, virtual_host: str) -> _Link:
        text = f"{virtual_host}\0{login}\0{passcode}".encode()
        name = _Name(virtual_host, login, hmac.digest(self._key, text, "sha256"))
        try:
            link = self._open.get(name)
            if link is not None:
                await self._verify(link)
                link = self._open.get(name)
            if link is None:
                async with asyncio.timeout(self._timeout):
                    link = await self._opened(name, passcode)
            if link not in self._links:
                raise Unreachable("the link has ended")
        except LoginRefused as refused:
            self.refused += 1
            raise _auth_refused(name, refused) from None
        except Unreachable as problem:
            raise AuthUnavailable(str(problem)) from None
        except _Full as problem:
            self.overflowed += 1
            raise AuthUnavailable(str(problem), "Connection refused: connection limit reached\n") from None
        except TimeoutError:
            raise AuthUnavailable(_no_answer(self._timeout)) from None
        link.idle_since = self._now()
        return link

    async def _opened(self, name: _Name, passcode: str) -> _Link:
        """Opens a link; those who ask for the same at the same time share the attempt."""
        task = self._opening.get(name)
        if task is None:
            if self._stopped:
                raise Unreachable("stompbridge is stopping")
            task = self._opening[name] = asyncio.create_task(self._attempt(name, passcode))
            task.add_done_callback(lambda _task: self._opening.pop(name, None))
        return await asyncio.shield(task)

    async def _attempt(self, name: _Name, passcode: str) -> _Link:
        async with self._slots:
            broker = self._make_broker(name.login, passcode, name.virtual_host, lambda why: self._revoke(link, why))
            link = _Link(name, broker, self._make_router(broker), self._now())
            try:
                async with asyncio.timeout(self._timeout):
                    await broker.open(link)
                self._make_room()
            except BaseException as problem:
                await broker.stop()
                if isinstance(problem, TimeoutError):
                    raise Unreachable(_no_answer(self._timeout)) from None
                raise
        link.verified = link.idle_since = self._now()
        self._links[link] = None
        self._open[name] = link
        self.opened += 1
        _log.info("link_opened", login=name.login, vhost=name.virtual_host, links=len(self._links))
        return link

    def _make_room(self) -> None:
        """For one more link the one goes that nobody has used for the longest."""
        if len(self._links) < self._max:
            return
        idle = [link for link in self._links if not link.leases]
        if not idle:
            raise _Full(f"there are auth.max_links = {self._max} links")
        self._end(min(idle, key=lambda link: link.idle_since))

    async def _verify(self, link: _Link) -> None:
        """Has RabbitMQ say again that the passcode is right, if it has not said so lately. A link that is down finds
        out by itself."""
        if self._now() - link.verified < VERIFY_AFTER or not link.broker.up:
            return
        if link.verifying is None:
            link.verifying = asyncio.create_task(self._ask(link))
        await asyncio.shield(link.verifying)

    async def _ask(self, link: _Link) -> None:
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                await link.broker.verify()
            link.verified = self._now()
        except LoginRefused as refused:
            # Its sessions go on, as they would with RabbitMQ's own STOMP, but nobody joins them.
            self._close(link)
            _log.info("link_closed", login=link.name.login, vhost=link.name.virtual_host, reason=str(refused))
            raise
        except (Unreachable, TimeoutError):
            # What was true the last time is believed.
            return
        finally:
            link.verifying = None

    def _revoke(self, link: _Link, refused: LoginRefused) -> None:
        """RabbitMQ does not let the login in any more: its sessions end."""
        if link not in self._links:
            return
        self.revoked += 1
        leases = list(link.leases)
        _log.warning(
            "link_revoked",
            login=link.name.login,
            vhost=link.name.virtual_host,
            sessions=len(leases),
            reason=str(refused),
        )
        self._end(link)
        text = _auth_refused(link.name, refused).text
        for lease in leases:
            try:
                lease.on_revoked(text)
            except Exception:
                _log.exception("revoke_callback_failed")

    def _close(self, link: _Link) -> None:
        """To further sessions."""
        if self._open.get(link.name) is link:
            del self._open[link.name]

    def _end(self, link: _Link) -> None:
        self._close(link)
        del self._links[link]
        ending = asyncio.create_task(link.broker.stop())
        self._ending[ending] = link
        ending.add_done_callback(lambda _: self._ending.pop(ending).add_counters(self._counted))
        _log.info("link_ended", login=link.name.login, vhost=link.name.virtual_host, links=len(self._links))


def _auth_refused(name: _Name, refused: LoginRefused) -> AuthRefused:
    """What RabbitMQ's own STOMP says to the client."""
    if refused.virtual_host:
        return AuthRefused(bad_host(name.virtual_host).body, str(refused))
    return access_refused(name.login, str(refused))


def _no_answer(seconds: float) -> str:
    return f"RabbitMQ did not let the login in within {seconds:g} s"
