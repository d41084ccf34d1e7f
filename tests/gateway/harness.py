"""A gateway with listeners that remember, and a client that sends any bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import connect
from websockets.speedups import apply_mask

from stompbridge.config import Limits, Listen, Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.listener import Gateway
from stompbridge.gateway.sweep import Sweep

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

WAIT = 10.0
"""Seconds before a test gives up waiting."""

REQUEST = {
    "Host": "chat.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def request(path: str = "/ws", headers: dict[str, str | None] | None = None, line: str = "GET {} HTTP/1.1") -> bytes:
    """A handshake's request; a header that is ``None`` is left out."""
    fields = {**REQUEST, **(headers or {})}
    lines = [line.format(path), *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x0f\xf0\x5a\xa5"
) -> bytes:
    """One frame from a client; unmasked where ``mask`` is ``None``."""
    return frame_head(opcode, len(payload), fin=fin, rsv=rsv, mask=mask) + (
        apply_mask(payload, mask) if mask else payload
    )


def frame_head(
    opcode: int, length: int, *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x0f\xf0\x5a\xa5"
) -> bytes:
    """The beginning of a frame, up to its payload."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0 if mask is None else 0x80
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (mask or b"")


def close_payload(code: int, text: str = "") -> bytes:
    """What a Close frame holds."""
    return struct.pack("!H", code) + text.encode()


class Listener:
    """Remembers its calls. ``hook`` is called with each payload."""

    def __init__(self) -> None:
        self.connection: Connection
        self.opened = 0
        self.data: list[bytes] = []
        self.writable = 0
        self.checks = 0
        self.lost: list[CloseReason] = []
        self.hook: Callable[[bytes], None] | None = None
        self.failing = ""
        self._news = asyncio.Event()

    def on_open(self, connection: Connection) -> None:
        self.connection = connection
        self.opened += 1
        self._note("on_open")

    def on_data(self, data: bytes) -> None:
        assert not self.lost
        self.data.append(data)
        self._note("on_data")
        if self.hook is not None:
            self.hook(data)

    def on_writable(self) -> None:
        self.writable += 1
        self._note("on_writable")

    def on_check(self, now: float) -> float:
        assert not self.lost
        self.checks += 1
        self._note("on_check")
        return now

    def on_lost(self, reason: CloseReason) -> None:
        self.lost.append(reason)
        self._note("on_lost")

    async def until(self, condition: Callable[[Listener], object]) -> None:
        """Waits for what comes with one of the calls."""
        async with asyncio.timeout(WAIT):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    async def until_lost(self) -> CloseReason:
        await self.until(lambda listener: listener.lost)
        return self.lost[0]

    def _note(self, name: str) -> None:
        self._news.set()
        if self.failing == name:
            raise RuntimeError(f"{name} fails")


class Client:
    """One raw socket to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(WAIT):
            await self.writer.drain()

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower-case) and, but for 101, body."""
        async with asyncio.timeout(WAIT):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")[:-2]
            status = int(lines[0].split(" ")[1])
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
            body = b"" if status == 101 else await self.reader.read()
        return status, headers, body

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the server's next frame."""
        async with asyncio.timeout(WAIT):
            first, length = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80
            assert length < 128
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def closed(self) -> tuple[int, str]:
        """Code and text of the Close frame, which must come next, followed by the end of the stream."""
        opcode, payload = await self.frame()
        assert opcode == CLOSE
        assert await self.rest() == b""
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def rest(self) -> bytes:
        """All that comes up to the end of the stream."""
        async with asyncio.timeout(WAIT):
            return await self.reader.read()

    async def gone(self) -> None:
        """Reads up to the end, clean or not."""
        with contextlib.suppress(ConnectionError):
            await self.rest()

    def close(self) -> None:
        self.writer.close()

    async def abort(self) -> None:
        """Ends the socket for good."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def kill(self) -> None:
        """Resets the connection."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Server:
    """A gateway, once :meth:`start` was called."""

    def __init__(self) -> None:
        self.listen: dict[str, Any] = {"port": 0}
        self.limits: dict[str, Any] = {"open_timeout": 30.0, "close_timeout": 30.0}
        self.interval = 0.02
        self.listeners: list[Listener] = []
        self.trust: ssl.SSLContext | None = None
        """What the clients trust, with which they speak TLS."""
        self.new_listener: Callable[[Connection], Listener] = lambda connection: Listener()
        self.gateway: Gateway
        self.port = 0
        self._sweep: Sweep | None = None
        self._clients: list[Client] = []
        self._watches: list[Callable[[], None]] = []

    async def start(self) -> None:
        self._sweep = Sweep(asyncio.get_running_loop(), self.interval)
        settings = Settings(listen=Listen(**self.listen), limits=Limits(**self.limits))
        self.gateway = Gateway(settings, self._accept, self._sweep)
        [(_, self.port)] = await self.gateway.start()
        self._sweep.add(self._watch)
        self._sweep.start()

    async def stop(self) -> None:
        if self._sweep is not None:
            for client in self._clients:
                await client.abort()
            await self.gateway.stop_accepting()
            await self.gateway.close_all(CloseReason.SHUTDOWN, 0.5)
            self._sweep.stop()
            assert self.gateway.connections_open == 0

    async def raw(self, *, receive_buffer: int | None = None) -> Client:
        """A client that has connected and sent nothing."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        hostname = None if self.trust is None else "localhost"
        client = Client(*await asyncio.open_connection(sock=sock, ssl=self.trust, server_hostname=hostname))
        self._clients.append(client)
        return client

    async def open(self, *, receive_buffer: int | None = None) -> tuple[Client, Listener]:
        """A client past its handshake, and its listener."""
        client = await self.raw(receive_buffer=receive_buffer)
        await client.send(request())
        status, _, _ = await client.response()
        assert status == 101
        return client, self.listeners[-1]

    def websocket(self, **options: Any) -> connect:
        """websockets' own client, as a context manager."""
        scheme, host = ("ws", "127.0.0.1") if self.trust is None else ("wss", "localhost")
        values = {"compression": None, "ssl": self.trust, "host": "127.0.0.1", **options}
        return connect(f"{scheme}://{host}:{self.port}/ws", proxy=None, **values)

    async def until_ended(self, reason: CloseReason, count: int = 1) -> None:
        """Waits until so many sockets are gone for this reason."""
        ended = asyncio.Event()
        self._watches.append(lambda: ended.set() if self.gateway.closed[reason] >= count else None)
        await asyncio.wait_for(ended.wait(), WAIT)

    async def until_accepted(self, count: int = 1) -> None:
        """Waits until so many sockets were accepted."""
        accepted = asyncio.Event()
        self._watches.append(lambda: accepted.set() if self.gateway.connections_total >= count else None)
        await asyncio.wait_for(accepted.wait(), WAIT)

    def _watch(self, now: float) -> None:
        for watch in self._watches:
            watch()

    def _accept(self, connection: Connection) -> Listener:
        listener = self.new_listener(connection)
        listener.connection = connection
        self.listeners.append(listener)
        return listener
