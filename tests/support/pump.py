"""A TCP port in front of a WebSocket address, for STOMP clients that speak nothing but TCP."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

PROTOCOLS = [Subprotocol("v12.stomp"), Subprotocol("v11.stomp"), Subprotocol("v10.stomp")]
CHUNK = 65536


class Pump:
    """Carries each TCP connection over a WebSocket of its own, bytes as they come. Use it with ``async with``."""

    def __init__(self, url: str, port: int = 0) -> None:
        """``port`` is the port to listen on; 0 takes a free one."""
        self.port = port
        self._url = url
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            websocket = await open_websocket(
                self._url, subprotocols=PROTOCOLS, max_size=None, compression=None, proxy=None
            )
        except (OSError, WebSocketException):
            writer.close()
            return
        down = asyncio.create_task(self._down(websocket, writer))
        try:
            await self._up(reader, websocket)
            await websocket.close()
        except (OSError, WebSocketException):
            pass  # what this end sees is the TCP connection's end
        finally:
            down.cancel()
            websocket.transport.abort()
            writer.close()

    @staticmethod
    async def _up(reader: asyncio.StreamReader, websocket: ClientConnection) -> None:
        while data := await reader.read(CHUNK):
            await websocket.send(data)

    @staticmethod
    async def _down(websocket: ClientConnection, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await websocket.recv(decode=False))
                await writer.drain()
        except (ConnectionClosed, OSError):
            writer.close()
