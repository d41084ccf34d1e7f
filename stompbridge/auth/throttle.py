"""Who was refused too often is refused unseen for a while, so that passwords cannot be guessed by trying."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from stompbridge.auth.base import (
    Authenticator,
    AuthRefused,
    AuthUnavailable,
    Credentials,
    Identity,
    access_refused,
)
from stompbridge.auth.digests import Digests

T = TypeVar("T")
Clock = Callable[[], float]

TABLE_SIZE = 10_000
"""Addresses, and logins, that are kept in mind; the one that was quiet for longest is forgotten first."""
PATIENCE = 5.0
"""Seconds that an attempt waits for the outcome of others of the same address or login."""


class _Unseen(Exception):
    """Refused too often before."""


class _Tally:
    """Attempts of one address, or for one login."""

    __slots__ = ("refused", "running", "since", "waiting")

    def __init__(self, since: float) -> None:
        self.refused = 0
        self.running = 0
        self.since = since
        self.waiting: deque[asyncio.Future[bool]] = deque()


class _Table:
    """Tallies by digest: what clients call themselves may be long, and is nobody's business.

    Attempts under way count as if they were refused until their outcome is known. Otherwise any number of guesses
    could be had by making them at the same time.
    """

    def __init__(self, failures: int, window: float, now: Clock) -> None:
        self._failures = failures
        self._window = window
        self._now = now
        self._digests = Digests()
        self._tallies: OrderedDict[bytes, _Tally] = OrderedDict()
        self.unseen = 0

    def __len__(self) -> int:
        return len(self._tallies)

    async def enter(self, name: str) -> tuple[bytes, _Tally]:
        """Begins an attempt, which :meth:`leave` has to end. Raises :class:`_Unseen`."""
        key = self._digests.of(name)
        now = self._now()
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally(now)
            if len(self._tallies) > TABLE_SIZE:
                self._tallies.popitem(last=False)
        else:
            self._tallies.move_to_end(key)
            if now - tally.since >= self._window:
                tally.refused = 0
        if tally.refused + tally.running < self._failures:
            tally.running += 1
        elif tally.refused >= self._failures or not await self._turn(key, tally):
            self.unseen += 1
            raise _Unseen
        return key, tally

    def leave(self, key: bytes, tally: _Tally, outcome: bool | None, forgive: bool) -> None:
        """Ends an attempt: the client was let in, refused, or neither (``None``)."""
        tally.running -= 1
        if outcome is False:
            if not tally.refused:
                tally.since = self._now()
            tally.refused += 1
        elif outcome and forgive:
            tally.refused = 0
        while tally.waiting:
            blocked = tally.refused >= self._failures
            if not blocked and tally.refused + tally.running >= self._failures:
                break
            turn = tally.waiting.popleft()
            if not turn.done():
                tally.running += not blocked
                turn.set_result(not blocked)
        if not tally.refused and not tally.running and self._tallies.get(key) is tally:
            del self._tallies[key]

    async def _turn(self, key: bytes, tally: _Tally) -> bool:
        """Waits until an attempt has ended; then there is one more to make, or no more for now."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        tally.waiting.append(turn)
        try:
            async with asyncio.timeout(PATIENCE):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.result():
                # It was this one's turn, just when it stopped waiting.
                self.leave(key, tally, None, False)
            if isinstance(error, TimeoutError):
                raise AuthUnavailable("too many attempts of one address or login at a time") from None
            raise


class Throttle:
    """Counts refusals of an address and for a login. ``failures`` of either within ``window`` seconds of the first,
    and until the window ends nobody is asked any more.

    A success clears the login, not the address, which would otherwise be cleared at will by whoever has an account.
    """

    def __init__(self, failures: int, window: float, clock: Clock = time.monotonic) -> None:
        self._addresses = _Table(failures, window, clock)
        self._logins = _Table(failures, window, clock)

    @property
    def refused_addresses(self) -> int:
        """Attempts refused unseen for their address."""
        return self._addresses.unseen

    @property
    def refused_logins(self) -> int:
        """Attempts refused unseen for their login."""
        return self._logins.unseen

    async def attempt(self, address: str, login: str | None, call: Callable[[], Awaitable[T]]) -> T:
        """The outcome of ``call``, or a refusal without calling."""
        entered: list[tuple[_Table, bytes, _Tally]] = []
        outcome: bool | None = None
        try:
            entered.append((self._addresses, *await self._addresses.enter(network(address))))
            if login is not None:
                entered.append((self._logins, *await self._logins.enter(login)))
            result = await call()
            outcome = True
            return result
        except _Unseen:
            what = "login" if entered else "address"
            raise access_refused(login, f"refused unseen: too many refusals of this {what}", unseen=True) from None
        except AuthRefused:
            outcome = False
            raise
        finally:
            for table, key, tally in entered:
                table.leave(key, tally, outcome, forgive=table is self._logins)


class Throttled:
    """An authenticator that is asked only for clients that were not refused too often.

    ``by_login`` is off where the ``login`` header proves nothing, so that nobody is locked out by others' use of it.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        failures: int,
        window: float,
        clock: Clock = time.monotonic,
        *,
        by_login: bool = True,
    ) -> None:
        self.authenticator = authenticator
        self.throttle = Throttle(failures, window, clock)
        self._by_login = by_login

    async def start(self) -> None:
        await self.authenticator.start()

    async def stop(self) -> None:
        await self.authenticator.stop()

    async def authenticate(self, credentials: Credentials) -> Identity:
        login = credentials.login if self._by_login else None
        return await self.throttle.attempt(
            credentials.address, login, lambda: self.authenticator.authenticate(credentials)
        )

    def reload(self) -> None:
        self.authenticator.reload()

    def counters(self) -> Mapping[str, int]:
        throttle = self.throttle
        return {
            "throttled_addresses": throttle.refused_addresses,
            "throttled_logins": throttle.refused_logins,
            **self.authenticator.counters(),
        }


def network(address: str) -> str:
    """What is counted as one address: an IPv4 address, or the /64 of an IPv6 one, which is one customer's."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return address
    return str(ip.ipv4_mapped) if ip.ipv4_mapped else f"{int(ip) >> 64:x}/64"
