"""The store that several processes share: a Redis server, or a cluster, of version 7 or newer.

What is asked and told in one turn of the event loop travels in one call of one script. Every key has a TTL. The
server's memory must not run full of other things: with any ``maxmemory-policy`` but ``noeviction`` it may forget early.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from contextlib import aclosing, suppress
from urllib.parse import urlsplit, urlunsplit

from stompbridge.dedup import scripts
from stompbridge.dedup.redis_cluster import ClusterLink
from stompbridge.dedup.redis_link import Link, LinkError, Server, ServerLink
from stompbridge.dedup.redis_queue import OperationQueue, end
from stompbridge.dedup.redis_receivers import Sessions
from stompbridge.dedup.redis_senders import Senders
from stompbridge.dedup.store import Begun, Changed, Counters, Opened, StoreOptions

_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0


class RedisStore:
    """Implements :class:`stompbridge.dedup.store.Store`. Raises ``ValueError`` for a bad URL or prefix."""

    def __init__(self, options: StoreOptions) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.:-]+", options.prefix):
            raise ValueError(f'the prefix {options.prefix!r} may hold letters, digits, "_", ".", ":" and "-" only')
        self.counters = Counters()
        self.on_change: Changed = lambda _available, _reason: None
        self._link = make_link(options, scripts.build(options), self.counters)
        self._queue = OperationQueue(self._link, options, self.counters, self._changed)
        self._sessions = Sessions(self._queue, options, self.counters)
        self._senders = Senders(self._queue, options, self.counters)
        self._channel = scripts.channel(options)
        self._waiting: dict[Callable[[], None], None] = {}
        self._listener: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        return self._queue.available

    async def start(self) -> None:
        await self._queue.start()
        self._listener = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        if self._listener is not None:
            await end(self._listener)
        await self._queue.stop()
        self._senders.stop()
        self._waiting.clear()

    def open(self, name: str, on_taken_over: Callable[[], None], done: Opened) -> None:
        self._sessions.open(name, on_taken_over, done)

    def discard(self, name: str) -> None:
        self._sessions.discard(name)

    def begin(self, key: str, digest: str, done: Begun) -> None:
        self._senders.begin(key, digest, done)

    def when_available(self, callback: Callable[[], None]) -> None:
        if self.available:
            callback()
        else:
            self._waiting[callback] = None

    def sweep(self) -> None:
        self._sessions.sweep()
        self._senders.sweep(asyncio.get_running_loop().time())
        self._queue.probe()

    def _changed(self, available: bool, reason: str) -> None:
        if available:
            self._sessions.touch()
            self._senders.renew()
        else:
            self._senders.on_lost()
        self.on_change(available, reason)
        if available:
            waiting, self._waiting = self._waiting, {}
            for callback in waiting:
                self._queue.guarded(callback)

    async def _listen(self) -> None:
        """Hears of take-overs by other processes."""
        pause = _SHORTEST_PAUSE
        while True:
            with suppress(LinkError):
                async with aclosing(self._link.listen(self._channel)) as notices:
                    async for notice in notices:
                        if notice:
                            self._queue.guarded(self._sessions.on_notice, notice)
                        else:
                            # What was announced before is found out by asking.
                            self._sessions.touch()
                            pause = _SHORTEST_PAUSE
            self._queue.probe()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)


def make_link(options: StoreOptions, script: scripts.Script, counters: Counters) -> Link:
    """The link for ``options.url``. Raises ``ValueError`` for a bad one."""
    seeds = servers(options.url, options.timeout)
    if not urlsplit(options.url).scheme.endswith("+cluster"):
        return ServerLink(seeds[0], script, counters)
    return ClusterLink(seeds, options.timeout, script, counters)


def servers(url: str, timeout: float) -> list[Server]:
    """The server of a URL, or those of a cluster that it names. Raises ``ValueError`` for a bad one."""
    parts = urlsplit(url)
    if not parts.scheme.endswith("+cluster"):
        return [Server.of(url, timeout)]
    user, at, hosts = parts.netloc.rpartition("@")
    if not all(hosts.split(",")):
        raise ValueError(f"a host is missing in {hosts!r}")
    scheme = parts.scheme.removesuffix("+cluster")
    return [
        Server.of(urlunsplit((scheme, user + at + host, "", parts.query, "")), timeout) for host in hosts.split(",")
    ]
