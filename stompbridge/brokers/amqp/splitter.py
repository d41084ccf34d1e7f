"""Takes the frames of our own channels out of the byte stream that the AMQP library reads.

The library keeps channel 0 (handshake, heart-beats, close). Everything on a registered channel is decoded here, once,
synchronously, and never reaches it. Bytes in, events out: no sockets, no event loop.
"""

from __future__ import annotations

from struct import Struct, error
from typing import ClassVar

from ..base import Message
from . import methods
from .codec import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, decode_message
from .fields import read_short_string
from .methods import Close, read_close

_FRAME = Struct(">BHI")
_TAG = Struct(">QB")
_CODE = Struct(">H")
_SIZE = Struct(">Q")

MAX_FRAME = 64 * 1024 * 1024
"""Octets of one frame beyond which the stream cannot be AMQP."""


class StreamError(Exception):
    """The broker's bytes are not AMQP 0-9-1 frames."""


class Delivery:
    """A message for one of our consumers."""

    __slots__ = ("channel", "consumer", "message", "tag")

    def __init__(self, channel: int, consumer: str, tag: int, message: Message) -> None:
        self.channel = channel
        self.consumer = consumer
        self.tag = tag
        self.message = message


class Confirm:
    """Basic.Ack or Basic.Nack of publishes."""

    __slots__ = ("ack", "channel", "multiple", "tag")

    def __init__(self, channel: int, tag: int, multiple: bool, ack: bool) -> None:
        self.channel = channel
        self.tag = tag
        self.multiple = multiple
        self.ack = ack


class Returned:
    """Basic.Return: a mandatory message that no queue took."""

    __slots__ = ("channel", "code", "message", "text")

    def __init__(self, channel: int, code: int, text: str, message: Message) -> None:
        self.channel = channel
        self.code = code
        self.text = text
        self.message = message


class Method:
    """Any other method: its payload, the first four bytes of which name it."""

    __slots__ = ("channel", "payload")

    def __init__(self, channel: int, payload: bytes) -> None:
        self.channel = channel
        self.payload = payload


class Blocked:
    """Connection.Blocked with its reason; ``None`` for Connection.Unblocked."""

    __slots__ = ("channel", "reason")

    def __init__(self, reason: str | None) -> None:
        self.channel = 0
        self.reason = reason


class ConnectionClosing:
    """Connection.Close from the broker. (The library answers it.)"""

    __slots__ = ("channel", "close")

    def __init__(self, close: Close) -> None:
        self.channel = 0
        self.close = close


Event = Delivery | Confirm | Returned | Method | Blocked | ConnectionClosing


class _Content:
    """A delivery or a return of which header or body is still to come."""

    __slots__ = ("header", "method", "missing", "parts")

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.header: bytes | None = None
        self.parts: list[bytes] = []
        self.missing = 0


class Splitter:
    """The parser. Put the numbers of our own channels into ``channels``."""

    __slots__ = ("_buffered", "_chunks", "_contents", "_needed", "_raw", "_started", "channels")

    _KINDS: ClassVar[frozenset[int]] = frozenset((FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT))

    def __init__(self) -> None:
        self.channels: set[int] = set()
        self._contents: dict[int, _Content] = {}
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._needed = 8
        self._started = False
        self._raw = False

    def feed(self, data: bytes) -> tuple[bytes, list[Event]]:
        """Takes what was read. Returns the whole frames that are not ours, and what came on our channels, in order.

        Raises :class:`StreamError` when the bytes cannot be AMQP; the connection is of no use then.
        """
        if self._raw:
            return data, []
        self._buffered += len(data)
        if self._chunks or self._buffered < self._needed:
            self._chunks.append(data)
            if self._buffered < self._needed:
                return b"", []
            data = b"".join(self._chunks)
            self._chunks.clear()
        if not self._started:
            self._started = True
            if data.startswith(b"AMQP"):
                # The broker's answer to a protocol version that it does not speak: no frame, and the last bytes.
                self._raw = True
                return data, []
        try:
            return self._split(data)
        except (ValueError, LookupError, error) as problem:
            raise StreamError(f"malformed method: {problem}") from None

    def _split(self, data: bytes) -> tuple[bytes, list[Event]]:
        passed: list[bytes] = []
        events: list[Event] = []
        channels, unpack = self.channels, _FRAME.unpack_from
        size, pos, needed = len(data), 0, 8
        while size - pos >= 8:
            kind, channel, length = unpack(data, pos)
            end = pos + 7 + length
            if kind not in self._KINDS or length > MAX_FRAME:
                raise StreamError(f"no AMQP frame: type {kind}, size {length}")
            if end >= size:
                needed = length + 8
                break
            if data[end] != 0xCE:
                raise StreamError("frame without its end octet")
            if channel in channels:
                if data.startswith(methods.BASIC_DELIVER, pos + 7) and kind == FRAME_METHOD:
                    whole = self._whole_delivery(channel, data, pos + 7, end, events)
                    if whole:
                        pos = whole
                        continue
                self._own(kind, channel, data, pos + 7, end, events)
            else:
                passed.append(data[pos : end + 1])
                if channel == 0 and kind == FRAME_METHOD:
                    self._connection_method(data[pos + 7 : end], events)
            pos = end + 1
        self._buffered = size - pos
        self._needed = needed
        if self._buffered:
            self._chunks.append(data[pos:])
        return b"".join(passed), events

    def _whole_delivery(self, channel: int, data: bytes, start: int, end: int, events: list[Event]) -> int:
        """A delivery that lies in one piece behind its method frame, with a body of one frame: the usual case, without
        the detour over what is still missing. Returns the position after it; 0 when it is not so."""
        pos, size, unpack = end + 1, len(data), _FRAME.unpack_from
        if size - pos < 8:
            return 0
        kind, number, length = unpack(data, pos)
        header, header_end = pos + 7, pos + 7 + int(length)
        pos = header_end + 1
        if kind != FRAME_HEADER or number != channel or length < 14 or size - pos < 8:
            return 0
        kind, number, length = unpack(data, pos)
        body, body_end = pos + 7, pos + 7 + int(length)
        if (
            kind != FRAME_BODY
            or number != channel
            or body_end >= size
            or _SIZE.unpack_from(data, header + 4)[0] != length
            or data[header_end] != 0xCE
            or data[body_end] != 0xCE
        ):
            return 0
        delivery = _delivery(channel, data[start:end], data[header:header_end], data[body:body_end])
        events.append(delivery)
        return body_end + 1

    def _own(self, kind: int, channel: int, data: bytes, start: int, end: int, events: list[Event]) -> None:
        if kind == FRAME_BODY:
            content = self._contents.get(channel)
            if content is None or content.header is None:
                raise StreamError("content body without its header")
            content.parts.append(data[start:end])
            content.missing -= end - start
            if content.missing <= 0:
                self._complete(channel, content, events)
        elif kind == FRAME_HEADER:
            content = self._contents.get(channel)
            if content is None or end - start < 14:
                raise StreamError("content header without its method")
            content.header = data[start:end]
            (content.missing,) = _SIZE.unpack_from(data, start + 4)
            if not content.missing:
                self._complete(channel, content, events)
        else:
            name = data[start : start + 4]
            if name == methods.BASIC_DELIVER or name == methods.BASIC_RETURN:
                self._contents[channel] = _Content(data[start:end])
            elif name == methods.BASIC_ACK:
                tag, bits = _TAG.unpack_from(data, start + 4)
                events.append(Confirm(channel, tag, bool(bits & 1), True))
            elif name == methods.BASIC_NACK:
                tag, bits = _TAG.unpack_from(data, start + 4)
                events.append(Confirm(channel, tag, bool(bits & 1), False))
            else:
                events.append(Method(channel, data[start:end]))

    def _complete(self, channel: int, content: _Content, events: list[Event]) -> None:
        del self._contents[channel]
        method, header, parts = content.method, content.header, content.parts
        assert header is not None
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if method.startswith(methods.BASIC_DELIVER):
            events.append(_delivery(channel, method, header, body))
        else:
            (code,) = _CODE.unpack_from(method, 4)
            text, pos = read_short_string(method, 6)
            exchange, pos = read_short_string(method, pos)
            key, _ = read_short_string(method, pos)
            events.append(Returned(channel, code, text, decode_message(exchange, key, False, header, body)))

    def _connection_method(self, payload: bytes, events: list[Event]) -> None:
        name = payload[:4]
        if name == methods.CONNECTION_BLOCKED:
            events.append(Blocked(read_short_string(payload, 4)[0]))
        elif name == methods.CONNECTION_UNBLOCKED:
            events.append(Blocked(None))
        elif name == methods.CONNECTION_CLOSE:
            events.append(ConnectionClosing(read_close(payload)))

    def forget(self, channel: int) -> None:
        """Drops a channel that is closed on both sides."""
        self.channels.discard(channel)
        self._contents.pop(channel, None)


def _delivery(channel: int, method: bytes, header: bytes, body: bytes) -> Delivery:
    consumer, pos = read_short_string(method, 4)
    tag, redelivered = _TAG.unpack_from(method, pos)
    exchange, pos = read_short_string(method, pos + 9)
    key, _ = read_short_string(method, pos)
    return Delivery(channel, consumer, tag, decode_message(exchange, key, redelivered != 0, header, body))
