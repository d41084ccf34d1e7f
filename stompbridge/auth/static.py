"""Users and hashed passwords from a file."""

from __future__ import annotations

import asyncio
import base64
import math
import re
import time
import tomllib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import verify_secret

from stompbridge.auth.base import AuthRefused, AuthUnavailable, Credentials, Identity, access_refused
from stompbridge.auth.calls import SharedCalls
from stompbridge.auth.digests import Digests, Remembered
from stompbridge.config_file import read_private, show_key

THREADS = 2
WAITING = 100
"""Verifications that wait for a thread; one takes about 20 ms."""
PATIENCE = 5.0
"""Seconds that a client waits for its verification."""
REMEMBERED = 10_000
"""Passwords that were right, so that a storm of reconnects does not cost a hash each."""

# OWASP's password storage cheat sheet: the smallest that it recommends, since clients reconnect by the thousand.
TIME_COST = 2
MEMORY_COST = 19 * 1024
PARALLELISM = 1
MEMORY_MAX = 1024 * 1024
"""KiB: a hash that asks for more would take the machine down rather than a user in."""

_HASH = re.compile(
    r"(?P<cost>\$argon2id\$v=19\$m=(?P<memory>[1-9]\d{0,9}),t=[1-9]\d{0,2},p=(?P<lanes>[1-9]\d{0,2})\$)"
    r"(?P<salt>[A-Za-z0-9+/]{11,86})\$(?P<sum>[A-Za-z0-9+/]{22,86})"
)


@dataclass(frozen=True, slots=True)
class User:
    """One entry of the file."""

    identity: Identity
    hash: str = field(repr=False)


def hash_password(password: str) -> str:
    """``password`` as the file has it: an argon2id hash with a salt of its own."""
    return PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_COST, parallelism=PARALLELISM).hash(password)


def read_users(path: Path) -> dict[str, User]:
    """The users of a file: ``[users.NAME]`` with ``password`` and, if wanted, ``groups``.

    Raises ``ValueError`` that names the file and the user, and holds no password.
    """
    try:
        table = tomllib.loads(read_private(path))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: is not TOML: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name in table:
        if name != "users":
            raise ValueError(f"{path}: {show_key(name)}: no such key; users are written as [users.NAME]")
    entries = table.get("users")
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: holds no users; they are written as [users.NAME]")
    return {name: _user(f"{path}: users.{show_key(name)}", name, entry) for name, entry in entries.items()}


def _user(where: str, name: str, entry: object) -> User:
    if not name:
        raise ValueError(f"{where}: the name must not be empty")
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be a table with password and groups")
    for key in entry:
        if key not in ("password", "groups"):
            raise ValueError(f"{where}.{show_key(key)}: no such key; there are password and groups")
    password, groups = entry.get("password"), entry.get("groups", [])
    match = _HASH.fullmatch(password) if isinstance(password, str) else None
    if match is None or not _is_usable(match):
        raise ValueError(f'{where}.password: must be a hash such as "stompbridge users hash" prints')
    if not isinstance(groups, list) or not all(isinstance(group, str) and group for group in groups):
        raise ValueError(f'{where}.groups: must be a list of names: ["...", "..."]')
    return User(Identity(name, frozenset(groups)), match[0])


def _is_usable(match: re.Match[str]) -> bool:
    """Whether argon2 takes what has the form of a hash: 8 KiB for each lane, and base64 without padding."""
    if not 8 * int(match["lanes"]) <= int(match["memory"]) <= MEMORY_MAX:
        return False
    for text in (match["salt"], match["sum"]):
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            return False
        if _encode(data) != text:
            return False
    return True


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _dummy(users: dict[str, User]) -> str:
    """A hash of nothing, that costs as much as most of the users' do."""
    costs = Counter(match["cost"] for user in users.values() if (match := _HASH.fullmatch(user.hash)))
    default = f"$argon2id$v=19$m={MEMORY_COST},t={TIME_COST},p={PARALLELISM}$"
    cost = costs.most_common(1)[0][0] if costs else default
    return f"{cost}{_encode(token_bytes(16))}${_encode(token_bytes(32))}"


class StaticUsers:
    """The ``static`` backend.

    An unknown user costs a hash as well, and gets the same answer, so that neither tells who exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users: dict[str, User] = {}
        self._dummy = ""
        self._digests = Digests()
        self._right: Remembered[bool] = Remembered(REMEMBERED)
        self._calls: SharedCalls[bool] = SharedCalls(THREADS, WAITING, PATIENCE)
        self._executor: ThreadPoolExecutor | None = None

    @property
    def hashed(self) -> int:
        """Verifications that cost a hash."""
        return self._calls.started

    @property
    def turned_away(self) -> int:
        """Clients that could not be verified, since too many were."""
        return self._calls.turned_away + self._calls.timed_out

    async def start(self) -> None:
        self.reload()
        # The one place with threads: a hash takes many milliseconds by design, and in the event loop it would hold up
        # everybody else's messages. argon2 does not hold the interpreter's lock.
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")

    async def stop(self) -> None:
        await self._calls.stop()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def reload(self) -> None:
        users = read_users(self._path)
        self._users = users
        self._dummy = _dummy(users)
        self._right.clear()

    def counters(self) -> Mapping[str, int]:
        return {"password_hashes": self.hashed, "passwords_turned_away": self.turned_away}

    async def authenticate(self, credentials: Credentials) -> Identity:
        login, passcode = credentials.login, credentials.passcode
        if login is None or passcode is None:
            raise AuthRefused("Missing login or passcode header(s)", "no login or passcode")
        user = self._users.get(login)
        known = self._dummy if user is None else user.hash
        key = self._digests.of(login, passcode, known)
        if user is not None and self._right.get(key, time.monotonic()):
            return user.identity
        right = await self._calls.run(key, lambda: self._verify(known, passcode))
        # The file may have been read anew meanwhile.
        user = self._users.get(login)
        if user is None:
            raise access_refused(login, "unknown user")
        if not right or user.hash != known:
            raise access_refused(login, "wrong password")
        self._right.put(key, True, math.inf)
        return user.identity

    async def _verify(self, known: str, passcode: str) -> bool:
        assert self._executor is not None
        return await asyncio.get_running_loop().run_in_executor(self._executor, _matches, known, passcode)


def _matches(known: str, passcode: str) -> bool:
    try:
        return verify_secret(known.encode(), passcode.encode(), Type.ID)
    except VerifyMismatchError:
        return False
    except VerificationError as error:
        raise AuthUnavailable(f"the password cannot be verified: {error}") from None
