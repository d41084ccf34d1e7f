"""A TCP proxy that breaks connections at a chosen place of the conversation."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import cast

from tests.support.ports import free_port

_AMQP_GREETING = 8
_METHOD = 1
_FRAME_HEAD = 7


class Way(Enum):
    """Which half of a connection."""

    TO_SERVER = "to the server"
    FROM_SERVER = "from the server"


class Method(Enum):
    """AMQP 0-9-1 methods, by class and number (specification section 1.8)."""

    PUBLISH = (60 << 16) | 40
    DELIVER = (60 << 16) | 60
    ACK = (60 << 16) | 80
    """To the server an acknowledgement, from it a publisher's confirm."""


class Trap:
    """Cuts all connections of its proxy at the ``count``-th thing that goes one way: a method, or any piece of data.
    Where not ``forward``, the thing itself does not arrive."""

    def __init__(self, way: Way, method: Method | None, count: int, forward: bool) -> None:
        self.way = way
        self.method = method
        self.left = count
        self.forward = forward
        self.sprung: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def takes(self, way: Way, method: int | None) -> bool:
        """Whether this thing is the one that it waits for."""
        if way is not self.way or (self.method is not None and method != self.method.value):
            return False
        self.left -= 1
        return self.left == 0


class Proxy:
    """Passes connections on to a port of this machine. With ``amqp`` it passes on whole frames and knows methods."""

    def __init__(self, server_port: int, *, amqp: bool = False) -> None:
        self.port = free_port()
        self.server_port = server_port
        self.amqp = amqp
        self.refusing = False
        """New connections are cut at once."""
        self.muted: set[Way] = set()
        """What goes these ways does not arrive; connections stay."""
        self.cuts = 0
        self._trap: Trap | None = None
        self._ends: set[_End] = set()
        self._server: asyncio.Server | None = None
        self._stalled = False

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self, Way.TO_SERVER), "127.0.0.1", self.port)

    async def stop(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def cut(self) -> None:
        """Breaks all connections, on both sides."""
        self.cuts += bool(self._ends)
        for end in list(self._ends):
            end.abort()

    def cut_off(self) -> None:
        """Breaks all connections, and lets none through until :meth:`restore`."""
        self.refusing = True
        self.cut()

    def stall(self) -> None:
        """Reads nothing any more, on either side, until :meth:`restore`."""
        self._stalled = True
        for end in self._ends:
            end.hold()

    def restore(self) -> None:
        """Passes everything on again. What was muted stays lost."""
        self.refusing = self._stalled = False
        self.muted.clear()
        for end in self._ends:
            end.release()

    def trap(self, way: Way, method: Method | None = None, *, count: int = 1, forward: bool = False) -> Trap:
        """Lays a trap; it stands until it has sprung or another is laid."""
        self._trap = Trap(way, method, count, forward)
        return self._trap

    # For the ends

    def add(self, end: _End) -> None:
        self._ends.add(end)
        if self._stalled:
            end.hold()

    def discard(self, end: _End) -> None:
        self._ends.discard(end)

    def passes(self, way: Way, method: int | None) -> tuple[bool, bool]:
        """Whether a thing is to be passed on, and whether all connections are to be cut then."""
        trap = self._trap
        if trap is not None and trap.takes(way, method):
            self._trap = None
            trap.sprung.set_result(None)
            return trap.forward, True
        return way not in self.muted, False


class _End(asyncio.Protocol):
    """One side of a connection; what it reads goes ``way``."""

    def __init__(self, proxy: Proxy, way: Way, peer: _End | None = None) -> None:
        self._proxy = proxy
        self._way = way
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._early: deque[bytes] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._frames = _Frames(greeting=way is Way.TO_SERVER) if proxy.amqp else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._proxy.refusing:
            self.abort()
            return
        self._proxy.add(self)
        if self._peer is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        peer = _End(self._proxy, Way.FROM_SERVER, self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: peer, "127.0.0.1", self._proxy.server_port)
        except OSError:
            self.abort()
            return
        self._peer = peer
        if self._transport is None:
            peer.abort()
        while self._early:
            self.data_received(self._early.popleft())

    def data_received(self, data: bytes) -> None:
        peer = self._peer
        if peer is None:
            self._early.append(data)
            return
        things: Iterator[tuple[bytes, int | None]] = (
            iter(((data, None),)) if self._frames is None else self._frames.feed(data)
        )
        out: list[bytes] = []
        cut = False
        for thing, method in things:
            forward, cut = self._proxy.passes(self._way, method)
            if forward:
                out.append(thing)
            if cut:
                break
        peer.write(b"".join(out))
        if cut:
            # What has been written is to arrive first: the write went to the socket at once.
            self._proxy.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._proxy.discard(self)
        if self._peer is not None:
            self._peer.close()

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.hold()

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer.release()

    def write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def hold(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def release(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Frames:
    """Cuts a stream of AMQP into its frames (specification section 2.3.5)."""

    def __init__(self, greeting: bool) -> None:
        self._greeting = greeting
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int | None]]:
        """Whole frames, and of those that have one the method."""
        data = self._rest + data if self._rest else data
        at = 0
        if self._greeting:
            if len(data) < _AMQP_GREETING:
                self._rest = data
                return
            self._greeting = False
            at = _AMQP_GREETING
            yield data[:at], None
        size = len(data)
        while at + _FRAME_HEAD <= size:
            end = at + _FRAME_HEAD + int.from_bytes(data[at + 3 : at + 7], "big") + 1
            if end > size:
                break
            method = int.from_bytes(data[at + 7 : at + 11], "big") if data[at] == _METHOD else None
            yield data[at:end], method
            at = end
        self._rest = data[at:]
