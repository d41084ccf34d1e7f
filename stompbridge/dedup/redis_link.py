"""The wire to Redis: batches of operations to a server, and their replies.

A link keeps one connection to each server and never retries what may have been carried out: the caller knows better.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from hiredis import pack_command
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import AskError, NoScriptError, RedisError, ResponseError

from stompbridge.dedup.scripts import Script
from stompbridge.dedup.store import Counters

_PING_INTERVAL = 5.0


Args = tuple[bytes | str | int, ...]


@asynccontextmanager
async def patient(limit: float) -> AsyncIterator[None]:
    """As ``asyncio.timeout``, but the time is counted in quarters that the loop has to be there for.

    A process that was stopped for longer than the limit finds the answers that came meanwhile, instead of taking its
    own pause for the server's: bypassing the store for that, it would deliver what another bridge has delivered.
    """
    loop = asyncio.get_running_loop()

    timer: asyncio.TimerHandle

    # It is given itself: one that refers to itself is left to the garbage collector.
    def tick(again: Callable[..., None], left: int) -> None:
        nonlocal timer
        if left:
            timer = loop.call_later(limit / 4, again, again, left - 1)
        else:
            timeout.reschedule(loop.time())

    async with asyncio.timeout(None) as timeout:
        timer = loop.call_later(limit / 4, tick, tick, 3)
        try:
            yield
        finally:
            timer.cancel()


class LinkError(Exception):
    """The servers can not be reached, or one of them would not carry out a call. The text says why, for people."""


class Step(Protocol):
    """What a link has to know of an operation. The first of its keys decides the slot."""

    @property
    def keys(self) -> tuple[bytes, ...]: ...

    @property
    def args(self) -> Args: ...


class Link(Protocol):
    """A server or a cluster."""

    script: Script

    async def connect(self) -> None:
        """Connects to every server. Raises :class:`LinkError`."""

    async def close(self) -> None:
        """Drops the connections. Never raises."""

    def probes(self) -> list[bytes]:
        """The end of a key's name for each of the servers: such a key lies on it."""

    async def call(self, steps: Sequence[Step]) -> list[Any]:
        """Carries out the steps, in one call of the script for each slot, and returns their replies in order; in
        place of a reply a :class:`LinkError` where it is not known whether the step was carried out."""

    def listen(self, channel: str) -> AsyncGenerator[bytes, None]:
        """What is published on a channel, after an empty text as soon as nothing is missed any more.

        Raises :class:`LinkError` when the connection is lost.
        """


class Call:
    """Steps of one slot, their command, and what came of it."""

    __slots__ = ("_steps", "error", "places", "reply", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.places: list[int] = []
        self.reply: Any = None
        self.error: ResponseError | None = None
        self._steps: list[Step] = []

    def add(self, place: int, step: Step) -> None:
        self.places.append(place)
        self._steps.append(step)

    def pack(self, script: Script) -> bytes:
        keys: list[bytes] = []
        args: list[bytes | str | int] = []
        for step in self._steps:
            keys += step.keys
            args += step.args
        return _pack("EVALSHA", script.sha, len(keys), *keys, *args)


def _pack(*command: bytes | str | int) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # hiredis declares a tuple of one
    return packed


class Server:
    """One server: how to reach it, and the connection to it.

    One limit for a whole exchange costs less than redis-py's own, of each write and each read.
    """

    def __init__(self, make: Callable[..., Connection], options: dict[str, Any], timeout: float) -> None:
        self._make = make
        self._options = options
        self.timeout = timeout
        self._connection = self.another()

    @classmethod
    def of(cls, url: str, timeout: float) -> Server:
        """Raises ``ValueError`` for a bad URL."""
        options: dict[str, Any] = {"socket_connect_timeout": timeout, **parse_url(url)}
        make = options.pop("connection_class", Connection)
        return cls(make, {**options, "socket_timeout": None, "protocol": 2}, timeout)

    def at(self, host: str, port: int) -> Server:
        """Another server that is reached in the same way."""
        return Server(self._make, {**self._options, "host": host, "port": port}, self.timeout)

    @property
    def address(self) -> tuple[str, int]:
        return self._options.get("host", "localhost"), self._options.get("port", 6379)

    @property
    def connected(self) -> bool:
        return bool(self._connection.is_connected)

    def another(self) -> Connection:
        """A new connection, which is not connected yet."""
        return self._make(**self._options)

    async def connect(self) -> None:
        async with patient(self.timeout):
            await self._connection.connect()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await _drop(self._connection)

    async def command(self, *command: str) -> Any:
        """One command and its reply."""
        async with patient(self.timeout):
            return await self._command(*command)

    async def exchange(self, call: Call, script: Script) -> None:
        """Sends a call and takes its reply."""
        async with patient(self.timeout):
            await self._send((call,), script)
            await self._receive((call,), script)

    async def send(self, calls: Iterable[Call], script: Script) -> None:
        async with patient(self.timeout):
            await self._send(calls, script)

    async def receive(self, calls: Sequence[Call], script: Script) -> None:
        """Takes the replies of calls that were sent."""
        async with patient(self.timeout):
            await self._receive(calls, script)

    async def _command(self, *command: str) -> Any:
        await _send(self._connection, *command)
        return await self._connection.read_response()

    async def _send(self, calls: Iterable[Call], script: Script) -> None:
        packed = [call.pack(script) for call in calls]
        await self._connection.send_packed_command(packed, check_health=False)

    async def _receive(self, calls: Sequence[Call], script: Script) -> None:
        """Reads the replies; makes the script known where it is not, and sends again."""
        unknown = [call for call in calls if not await self._take_reply(call)]
        if unknown:
            await self._command("SCRIPT", "LOAD", script.source)
            await self._send(unknown, script)
            for call in unknown:
                await self._take_reply(call)

    async def _take_reply(self, call: Call) -> bool:
        """Reads one reply; False when the server does not know the script."""
        try:
            call.reply = await self._connection.read_response()
        except ResponseError as error:
            call.error = error
            call.reply = described(error)
            return not isinstance(error, NoScriptError)
        return True


async def _send(connection: Connection, *command: str) -> None:
    await connection.send_packed_command([_pack(*command)], check_health=False)


async def _drop(connection: Connection) -> None:
    """Closes a connection without waiting for the peer, which may have broken it."""
    with suppress(RedisError, OSError, RuntimeError):
        await connection.disconnect(nowait=True)


def described(error: Exception) -> LinkError:
    if isinstance(error, LinkError):
        return error
    if isinstance(error, AskError):
        return LinkError(f"slot {error.slot_id} is at {error.node_addr}")
    if isinstance(error, TimeoutError):
        return LinkError("no answer in time")
    return LinkError(str(error) or type(error).__name__)


async def _ping_if_silent(connection: Connection, message: object, silent: bool) -> bool:
    """Whether a ping interval has passed without a message; after a second one the ping was not answered."""
    if message is not None:
        return False
    if silent:
        raise LinkError("no answer to a ping")
    await _send(connection, "PING")
    return True


async def listen_to(server: Server, channel: str) -> AsyncGenerator[bytes, None]:
    connection = server.another()
    silent = False
    try:
        async with patient(server.timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
        await _send(connection, "SUBSCRIBE", channel)
        while True:
            message = await connection.read_response(timeout=_PING_INTERVAL)
            silent = await _ping_if_silent(connection, message, silent)
            if not silent and message[0] == b"subscribe":
                yield b""
            elif not silent and message[0] == b"message":
                yield message[2]
    except Exception as error:
        raise described(error) from error
    finally:
        await _drop(connection)


class ServerLink:
    """Implements :class:`Link` for one server."""

    def __init__(self, server: Server, script: Script, counters: Counters) -> None:
        self._server = server
        self._counters = counters
        self.script = script

    async def connect(self) -> None:
        try:
            await self._server.connect()
        except Exception as error:
            raise described(error) from error

    async def close(self) -> None:
        await self._server.close()

    def probes(self) -> list[bytes]:
        return [b"{probe}"]

    async def call(self, steps: Sequence[Step]) -> list[Any]:
        call = Call(0)
        for place, step in enumerate(steps):
            call.add(place, step)
        self._counters.calls += 1
        try:
            await self._server.exchange(call, self.script)
        except Exception as error:
            raise described(error) from error
        if isinstance(call.reply, LinkError):
            raise call.reply
        replies: list[Any] = call.reply
        return replies

    def listen(self, channel: str) -> AsyncGenerator[bytes, None]:
        return listen_to(self._server, channel)
