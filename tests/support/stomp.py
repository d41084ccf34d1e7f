"""A small STOMP client over WebSocket that shares no code with the program and hides nothing of the wire."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed

PROTOCOLS = ("v12.stomp", "v11.stomp", "v10.stomp")
TIMEOUT = 10.0
_receipts = itertools.count(1)


@dataclass
class Frame:
    """One frame; of repeated headers the first counts, all of them are in ``pairs``."""

    command: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pairs: list[tuple[str, str]] = field(default_factory=list)
    binary: bool = False
    """Whether it came in a binary WebSocket message."""
    received: float = 0.0
    """``time.monotonic`` at its arrival."""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def message(self) -> str:
        """The ``message`` header of an ERROR."""
        return self.headers.get("message", "")

    @property
    def ack(self) -> str:
        return self.headers["ack"]


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n").replace(":", "\\c")


def unescape(text: str) -> str:
    out, rest = [], iter(text)
    for char in rest:
        out.append({"c": ":", "n": "\n", "r": "\r", "\\": "\\"}[next(rest)] if char == "\\" else char)
    return "".join(out)


def encode(
    command: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes | str = b"",
    *,
    content_length: bool = True,
    escaped: bool = True,
) -> bytes:
    """The frame's bytes, NUL included."""
    raw = body.encode() if isinstance(body, str) else body
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if raw and content_length and not any(name == "content-length" for name, _ in pairs):
        pairs.append(("content-length", str(len(raw))))
    change = escape if escaped else str
    head = "".join(f"{change(name)}:{change(value)}\n" for name, value in pairs)
    return f"{command}\n{head}\n".encode() + raw + b"\0"


def decode(data: bytes) -> Frame:
    """A whole frame with nothing but end-of-lines after it, as servers send them."""
    head, _, rest = data.partition(b"\n\n")
    command, *lines = head.decode().split("\n")
    escaped = command != "CONNECTED"
    pairs = []
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon, f"header without colon: {line!r}"
        pairs.append((unescape(name), unescape(value)) if escaped else (name, value))
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers.setdefault(name, value)
    if "content-length" in headers:
        length = int(headers["content-length"])
        body, rest = rest[:length], rest[length:]
        assert len(body) == length, "body shorter than content-length"
    else:
        body, _, tail = rest.partition(b"\0")
        rest = b"\0" + tail
    assert rest.startswith(b"\0"), f"no NUL after the body: {rest[:20]!r}"
    assert not rest[1:].strip(b"\n"), f"more than a frame in a message: {rest[:60]!r}"
    return Frame(command, headers, body, pairs)


class Client:
    """One WebSocket; ``ws`` and :meth:`send_raw` are for what no well-behaved client does."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.pending: deque[Frame] = deque()
        self.beats: list[float] = []
        """When the server's heart-beats came."""
        self.connected: Frame | None = None

    async def connect(self, headers: Mapping[str, str] | None = None, command: str = "CONNECT") -> Frame:
        """Send CONNECT as stompjs does, without login or host, and return CONNECTED."""
        wanted = {"accept-version": "1.2,1.1,1.0", "heart-beat": "0,0"} if headers is None else headers
        await self.send_raw(encode(command, wanted, escaped=False))
        self.connected = await self.expect("CONNECTED")
        return self.connected

    @property
    def session(self) -> str:
        assert self.connected is not None
        return self.connected.headers["session"]

    async def send_raw(self, data: bytes | str) -> None:
        """One WebSocket message: text where the bytes are UTF-8."""
        if isinstance(data, bytes):
            with contextlib.suppress(UnicodeDecodeError):
                data = data.decode()
        await self.ws.send(data)

    async def send_frame(
        self, command: str, headers: Mapping[str, str] | None = None, body: bytes | str = b"", **more: str
    ) -> None:
        """Send a frame; ``more`` are headers whose ``_`` stand for ``-``."""
        all_headers = dict(headers or {}) | {name.replace("_", "-"): value for name, value in more.items()}
        await self.send_raw(encode(command, all_headers, body))

    async def send(self, destination: str, body: bytes | str = b"", **more: str) -> None:
        await self.send_frame("SEND", {"destination": destination}, body, **more)

    async def request(
        self, command: str, headers: Mapping[str, str] | None = None, body: bytes | str = b"", **more: str
    ) -> Frame:
        """Send a frame with a receipt and wait for it; MESSAGEs that come before it stay pending."""
        receipt = f"r{next(_receipts)}"
        await self.send_frame(command, dict(headers or {}) | {"receipt": receipt}, body, **more)
        return await self.receipt(receipt)

    async def receipt(self, receipt: str, within: float = TIMEOUT) -> Frame:
        """Wait for this RECEIPT; MESSAGEs that come before it stay pending, anything else is an error."""
        others: list[Frame] = []
        try:
            while True:
                frame = await self.receive(within)
                if frame.command == "RECEIPT" and frame.headers["receipt-id"] == receipt:
                    return frame
                assert frame.command == "MESSAGE", f"instead of RECEIPT {receipt}: {frame}"
                others.append(frame)
        finally:
            self.pending.extendleft(reversed(others))

    async def send_and_wait(self, destination: str, body: bytes | str = b"", **more: str) -> Frame:
        """SEND and wait for its RECEIPT."""
        return await self.request("SEND", {"destination": destination}, body, **more)

    async def subscribe(self, destination: str, id: str = "s0", ack: str = "auto", **more: str) -> None:
        """SUBSCRIBE and wait for the RECEIPT: what is sent from now on will arrive."""
        await self.request("SUBSCRIBE", {"destination": destination, "id": id, "ack": ack}, **more)

    async def unsubscribe(self, id: str = "s0") -> None:
        await self.request("UNSUBSCRIBE", {"id": id})

    async def acknowledge(self, frame: Frame, command: str = "ACK", **more: str) -> None:
        """ACK or NACK a MESSAGE as STOMP 1.2 does, and wait for the RECEIPT."""
        await self.request(command, {"id": frame.ack}, **more)

    async def receive(self, within: float = TIMEOUT) -> Frame:
        """The next frame; heart-beats are noted in ``beats`` and passed over. ``TimeoutError`` when none comes."""
        if self.pending:
            return self.pending.popleft()
        async with asyncio.timeout(within):
            while True:
                data = await self.ws.recv()
                if frame := self._decode(data):
                    return frame

    async def expect(self, command: str, within: float = TIMEOUT, **headers: str) -> Frame:
        """The next frame, which has to be this one."""
        try:
            frame = await self.receive(within)
        except ConnectionClosed as closed:
            raise AssertionError(f"closed instead of {command}: {closed}") from closed
        except TimeoutError:
            raise AssertionError(f"no {command} within {within:g} s") from None
        assert frame.command == command, f"{frame} instead of {command}"
        for name, value in headers.items():
            name = name.replace("_", "-")
            assert frame.headers.get(name) == value, f"{name} is {frame.headers.get(name)!r}, not {value!r}: {frame}"
        return frame

    async def message(self, body: bytes | str | None = None, within: float = TIMEOUT, **headers: str) -> Frame:
        """The next frame, which has to be a MESSAGE, with this body if one is given."""
        frame = await self.expect("MESSAGE", within, **headers)
        if body is not None:
            wanted = body.encode() if isinstance(body, str) else body
            assert frame.body == wanted, f"body {frame.body[:200]!r}, not {wanted[:200]!r}"
        return frame

    async def messages(self, count: int, within: float = TIMEOUT) -> list[Frame]:
        """The next ``count`` frames, which have to be MESSAGEs; ``within`` is for all of them."""
        async with asyncio.timeout(within):
            return [await self.message(within=within) for _ in range(count)]

    async def error(self, message: str | None = None, body: str | None = None, within: float = TIMEOUT) -> Frame:
        """The next frame, which has to be an ERROR, with this ``message`` header and this text in its body."""
        frame = await self.expect("ERROR", within)
        assert message is None or frame.message == message, f"{frame}, not {message!r}"
        assert body is None or body in frame.text, f"{frame.text!r} has no {body!r}"
        return frame

    async def silent(self, seconds: float = 0.3) -> None:
        """Nothing comes for a while. For what cannot be told by something else that comes first."""
        try:
            frame = await self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"expected nothing, got {frame}")

    async def alive(self) -> None:
        """The session still answers."""
        await self.request("BEGIN", {"transaction": "alive"})
        await self.request("ABORT", {"transaction": "alive"})

    async def wait_closed(self, within: float = TIMEOUT) -> int:
        """Read to the end and return the WebSocket close code (1006: none came); frames read stay pending."""
        async with asyncio.timeout(within):
            try:
                while True:
                    if frame := self._decode(await self.ws.recv()):
                        self.pending.append(frame)
            except ConnectionClosed:
                pass
            await self.ws.wait_closed()
        return self.close_code

    @property
    def close_code(self) -> int:
        return self.ws.close_code or 0

    async def disconnect(self) -> None:
        """DISCONNECT with a receipt, then close."""
        await self.request("DISCONNECT")
        await self.close()

    async def close(self) -> None:
        await self.ws.close()

    def abort(self) -> None:
        """Break the TCP connection without a closing handshake."""
        with contextlib.suppress(AttributeError):  # a transport that has ended has let go of its loop
            self.ws.transport.abort()

    async def write_bytes(self, data: bytes) -> None:
        """Bytes straight onto the TCP connection, below the WebSocket framing."""
        self.ws.transport.write(data)

    def _decode(self, data: str | bytes) -> Frame | None:
        now = time.monotonic()
        raw = data.encode() if isinstance(data, str) else data
        if not raw.strip(b"\n"):
            self.beats.append(now)
            return None
        frame = decode(raw)
        frame.binary = isinstance(data, bytes)
        frame.received = now
        return frame


async def open_client(url: str, subprotocols: Iterable[str] = PROTOCOLS, **options: Any) -> Client:
    """A WebSocket without compression, pings and limits; ``options`` are those of ``websockets``' ``connect``."""
    settings: dict[str, Any] = {
        "subprotocols": list(subprotocols) or None,
        "compression": None,
        "ping_interval": None,
        "max_size": None,
        "max_queue": None,
        "close_timeout": 2,
        "open_timeout": TIMEOUT,
        "proxy": None,
    } | options
    return Client(await open_websocket(url, **settings))


async def connect(
    url: str, headers: Mapping[str, str] | None = None, subprotocols: Iterable[str] = PROTOCOLS, **options: Any
) -> Client:
    """A connected client."""
    client = await open_client(url, subprotocols, **options)
    try:
        await client.connect(headers)
    except BaseException:
        client.abort()
        raise
    return client
