"""STOMP over plain TCP, for the same client as over WebSocket."""

from __future__ import annotations

import asyncio
from typing import cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError

from tests.support.stomp import TIMEOUT, Client


class TcpSocket:
    """A TCP connection that looks like a WebSocket to :class:`~tests.support.stomp.Client`: a frame a message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._buffer = b""
        self.close_code: int | None = None
        """1006 once it is closed: TCP has no close codes."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        return self._writer.transport

    async def send(self, data: str | bytes) -> None:
        """Writes bytes, whatever they hold of a frame or of several."""
        if self._writer.is_closing():
            raise ConnectionClosedError(None, None)
        self._writer.write(data.encode() if isinstance(data, str) else data)
        try:
            await self._writer.drain()
        except OSError:
            raise ConnectionClosedError(None, None) from None

    async def recv(self) -> bytes:
        """The next frame, or ends of lines between frames."""
        while (end := self._end_of_frame()) == 0:
            try:
                data = await self._reader.read(65536)
            except OSError:
                data = b""
            if not data:
                self.close_code = 1006
                raise ConnectionClosedError(None, None)
            self._buffer += data
        frame, self._buffer = self._buffer[:end], self._buffer[end:]
        return frame

    async def wait_closed(self) -> None:
        await self.close()

    async def close(self) -> None:
        self._writer.close()

    def _end_of_frame(self) -> int:
        """Where the first frame in the buffer ends, with the end of line behind it; 0 while it is not whole."""
        buffer = self._buffer
        beats = len(buffer) - len(buffer.lstrip(b"\n"))
        if beats:
            return beats
        head, separator, _ = buffer.partition(b"\n\n")
        if not separator:
            return 0
        start = len(head) + 2
        for line in head.split(b"\n"):
            if line.startswith(b"content-length:"):
                start += int(line.partition(b":")[2])
                break
        end = buffer.find(b"\0", start) + 1
        return end + (buffer[end : end + 1] == b"\n") if end else 0


async def open_tcp(port: int) -> Client:
    """A client before CONNECT."""
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    return Client(cast(ClientConnection, TcpSocket(reader, writer)))
