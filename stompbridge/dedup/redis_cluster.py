"""The wire to a Redis Cluster: batches of operations by slot, each to the master that serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from stompbridge.dedup.redis_link import Call, LinkError, Server, Step, described, listen_to
from stompbridge.dedup.scripts import Script
from stompbridge.dedup.store import Counters

_SLOTS = REDIS_CLUSTER_HASH_SLOTS
_UNSETTLED = (AskError, TryAgainError, ClusterDownError)  # MovedError is an AskError
_RETRY_PAUSE = 0.05


class ClusterLink:
    """Implements :class:`Link` for a cluster: all of its masters have to be there.

    Where slots have moved or are moving, the map is asked for again and the call repeated, until the timeout: the
    server has not carried it out.
    """

    def __init__(self, seeds: Sequence[Server], timeout: float, script: Script, counters: Counters) -> None:
        self._seeds = list(seeds)
        self._timeout = timeout
        self._counters = counters
        self.script = script
        self._masters: dict[tuple[str, int], Server] = {}
        self._slots: list[Server] = []

    async def connect(self) -> None:
        try:
            await self._read_map()
            for server in self._masters.values():
                if not server.connected:
                    await server.connect()
        except Exception as error:
            raise described(error) from error

    async def _read_map(self) -> None:
        """Asks for the slots and their masters. The masters known so far are asked first: those in the configuration
        may be gone."""
        failure = LinkError("no server is known")
        for server in [*self._masters.values(), *self._seeds]:
            asked = server.at(*server.address)
            try:
                await asked.connect()
                found = await asked.command("CLUSTER", "SLOTS")
            except Exception as error:
                failure = described(error)
            else:
                await self._take_map(found, asked)
                return
            finally:
                await asked.close()
        raise failure

    async def _take_map(self, found: Sequence[Any], asked: Server) -> None:
        masters: dict[tuple[str, int], Server] = {}
        slots: list[Server | None] = [None] * _SLOTS
        for first, last, master, *_ in found:
            address = (master[0].decode() or asked.address[0], int(master[1]))
            server = masters.get(address) or self._masters.get(address) or asked.at(*address)
            masters[address] = server
            slots[first : last + 1] = [server] * (last + 1 - first)
        served = [server for server in slots if server is not None]
        if len(served) < _SLOTS:
            raise LinkError(f"the cluster serves only {len(served)} of {_SLOTS} slots")
        gone = [server for address, server in self._masters.items() if address not in masters]
        self._masters, self._slots = masters, served
        for server in gone:
            await server.close()

    async def close(self) -> None:
        for server in self._masters.values():
            await server.close()

    def probes(self) -> list[bytes]:
        found: dict[int, bytes] = {}
        number = 0
        while len(found) < len(self._masters):
            key = b"{probe%d}" % number
            found.setdefault(id(self._slots[key_slot(key)]), key)
            number += 1
        return list(found.values())

    async def call(self, steps: Sequence[Step]) -> list[Any]:
        by_slot: dict[int, Call] = {}
        for place, step in enumerate(steps):
            slot = key_slot(step.keys[0])
            call = by_slot.get(slot)
            if call is None:
                call = by_slot[slot] = Call(slot)
            call.add(place, step)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        todo = list(by_slot.values())
        while True:
            await self._send(todo)
            todo = [call for call in todo if isinstance(call.error, _UNSETTLED)]
            if not todo or loop.time() > deadline:
                break
            await asyncio.sleep(_RETRY_PAUSE)
            await self._follow(todo)
        replies: list[Any] = [None] * len(steps)
        for call in by_slot.values():
            for index, place in enumerate(call.places):
                replies[place] = call.reply if isinstance(call.reply, LinkError) else call.reply[index]
        return replies

    async def _follow(self, calls: Sequence[Call]) -> None:
        """Asks for the map again. What an answer says of a slot goes beyond it: not every master has heard of it."""
        with suppress(LinkError):
            await self.connect()
        for call in calls:
            if isinstance(call.error, MovedError):
                address = (call.error.host or self._slots[call.slot].address[0], call.error.port)
                server = self._masters.get(address)
                if server is None:
                    server = self._masters[address] = self._seeds[0].at(*address)
                self._slots[call.slot] = server

    async def _send(self, calls: Sequence[Call]) -> None:
        by_server: dict[Server, list[Call]] = {}
        for call in calls:
            call.reply = call.error = None
            by_server.setdefault(self._slots[call.slot], []).append(call)
        self._counters.calls += len(calls)
        for receive in (False, True):
            for server, mine in list(by_server.items()):
                try:
                    await (server.receive(mine, self.script) if receive else server.send(mine, self.script))
                except Exception as error:
                    del by_server[server]
                    for call in mine:
                        call.reply = call.reply or described(error)

    async def listen(self, channel: str) -> AsyncGenerator[bytes, None]:
        # A cluster passes on what is published to all of its servers, so that any of them will do.
        failure = LinkError("no server is known")
        for server in [*self._masters.values(), *self._seeds]:
            try:
                async with aclosing(listen_to(server, channel)) as messages:
                    async for message in messages:
                        yield message
            except LinkError as error:
                failure = error
        raise failure
