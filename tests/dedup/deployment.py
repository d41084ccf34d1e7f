"""The processes of a deployment and the store that they share, for tests: asked with ``await``, with a clock to turn.

A memory store is one process, so that all of its nodes are the same store.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from stompbridge.dedup import scripts
from stompbridge.dedup.memory import MemoryStore
from stompbridge.dedup.redis import RedisStore
from stompbridge.dedup.store import Attempt, Identity, Lock, Outcome, Receiver, Refusal, Store, StoreOptions

T = TypeVar("T")

LIMIT = 10.0
"""Seconds after which something that should happen has not happened."""
LOCK_TTL = 30.0
DEFAULTS: dict[str, Any] = {"window": 64, "history_ttl": 600.0, "lock_ttl": LOCK_TTL, "idempotency_window": 120.0}


def options(**changes: Any) -> StoreOptions:
    return StoreOptions(**{**DEFAULTS, **changes})


class Answer(asyncio.Future[T]):
    """A future to be handed over as a callback, which must be called once."""

    def __call__(self, result: T) -> None:
        self.set_result(result)


async def within(awaitable: Answer[T]) -> T:
    return await asyncio.wait_for(awaitable, LIMIT)


async def until(condition: Callable[[], bool], every: Callable[[], None] = lambda: None) -> None:
    """Returns once the condition holds; calls ``every`` between two looks at it."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            every()
            await asyncio.sleep(0.005)


class Session:
    """An opened receiver."""

    def __init__(self, receiver: Receiver, losses: list[int]) -> None:
        self.receiver = receiver
        self.losses = losses

    async def claim(self, identity: Identity) -> Lock | Refusal:
        answer: Answer[Lock | Refusal] = Answer()
        self.receiver.claim(identity, answer)
        return await within(answer)

    async def lock(self, identity: Identity) -> Lock:
        """Claims what must be granted, and not in doubt."""
        lock = await self.claim(identity)
        assert not isinstance(lock, Refusal), lock
        assert not lock.in_doubt
        return lock

    async def lock_in_doubt(self, identity: Identity) -> Lock:
        lock = await self.claim(identity)
        assert not isinstance(lock, Refusal), lock
        assert lock.in_doubt
        return lock

    async def deliver(self, *identities: Identity) -> None:
        for identity in identities:
            assert await commit(await self.lock(identity))

    async def lost(self) -> None:
        """Returns once it was told that it has been taken over."""
        await until(lambda: bool(self.losses))


async def commit(lock: Lock) -> bool:
    answer: Answer[bool] = Answer()
    lock.commit(answer)
    return await within(answer)


async def release(lock: Lock) -> bool:
    answer: Answer[bool] = Answer()
    lock.release(answer)
    return await within(answer)


async def finish(attempt: Attempt) -> bool:
    answer: Answer[bool] = Answer()
    attempt.finish(answer)
    return await within(answer)


async def abandon(attempt: Attempt) -> bool:
    answer: Answer[bool] = Answer()
    attempt.abandon(answer)
    return await within(answer)


class Node:
    """One process's store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def try_open(self, name: str) -> Session | None:
        losses: list[int] = []
        answer: Answer[Receiver | None] = Answer()
        self.store.open(name, lambda: losses.append(1), answer)
        receiver = await within(answer)
        return None if receiver is None else Session(receiver, losses)

    async def open(self, name: str) -> Session:
        session = await self.try_open(name)
        assert session is not None
        return session

    def ask(self, key: str, digest: str = "digest") -> Answer[Attempt | Outcome]:
        answer: Answer[Attempt | Outcome] = Answer()
        self.store.begin(key, digest, answer)
        return answer

    async def begin(self, key: str, digest: str = "digest") -> Attempt | Outcome:
        return await within(self.ask(key, digest))

    async def attempt(self, key: str, digest: str = "digest") -> Attempt:
        """Begins what must be granted."""
        attempt = await self.begin(key, digest)
        assert not isinstance(attempt, Outcome), attempt
        return attempt


class Deployment(Protocol):
    attempts_expire: bool
    """Whether an attempt of a process that does not renew it ends with its deadline."""

    async def node(self) -> Node:
        """One more process."""

    def advance(self, seconds: float) -> None:
        """Turns the clock that deadlines are measured with."""

    async def stop(self) -> None: ...


class MemoryDeployment:
    attempts_expire = False

    def __init__(self, **changes: Any) -> None:
        self.now = 1000.0
        self.store = MemoryStore(options(**changes), lambda: self.now)

    async def node(self) -> Node:
        await self.store.start()
        return Node(self.store)

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def stop(self) -> None:
        await self.store.stop()


class RedisDeployment:
    """Stores on a server or cluster, with keys of their own. The server's clock stands still, but for TTLs."""

    attempts_expire = True

    def __init__(self, url: str, **changes: Any) -> None:
        self.options = options(url=url, prefix=f"t{secrets.token_hex(6)}", **changes)
        self._now = 1_700_000_000_000_000
        self._stores: list[RedisStore] = []

    async def node(self) -> Node:
        store = RedisStore(self.options)
        self._stores.append(store)
        self._set_clock(store)
        await store.start()
        assert store.available
        return Node(store)

    def advance(self, seconds: float) -> None:
        self._now += round(seconds * 1_000_000)
        for store in self._stores:
            self._set_clock(store)

    async def stop(self) -> None:
        for store in self._stores:
            await store.stop()

    def _set_clock(self, store: RedisStore) -> None:
        source = scripts.build(self.options).source
        assert source.count(scripts.CLOCK) == 1
        time = f"{{'{self._now // 1_000_000}', '{self._now % 1_000_000}'}}"
        store._link.script = scripts.Script.of(source.replace(scripts.CLOCK, time))


class Watched:
    """A store with its news."""

    def __init__(self, url: str, **changes: Any) -> None:
        self.store = RedisStore(options(url=url, **{"timeout": 0.3, **changes}))
        self.store.on_change = lambda available, reason: self.news.append((available, reason))
        self.news: list[tuple[bool, str]] = []
        self.node = Node(self.store)

    async def down(self) -> None:
        await until(lambda: not self.store.available, self.store.sweep)

    async def up(self) -> None:
        available = asyncio.Event()
        self.store.when_available(available.set)
        async with asyncio.timeout(10):
            await available.wait()
