"""AMQP 0-9-1 messages and the frames of the hot path on the wire: pure functions from values to bytes and back."""

from __future__ import annotations

from struct import Struct, error

from ..base import Message
from .fields import cached_string, decode_table, encode_fields, encode_table, read_short_string, short_string

SENDER_HEADER = "x-stompbridge-sender"
SEQ_HEADER = "x-stompbridge-seq"
CACHED = 1024
"""How many encoded routes are kept."""

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8
FRAME_OVERHEAD = 8
"""Octets of a frame around its payload: type, channel, size and the end octet."""
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_FRAME = Struct(">BHI")
_CONTENT = Struct(">HHQH")
_ACK = Struct(">BHIHHQBB")
_U8 = Struct(">B")
_U16 = Struct(">H")
_U32 = Struct(">I")
_U64 = Struct(">Q")
_I64 = Struct(">q")

_routes: dict[tuple[int, str, str, bool], bytes] = {}

_CLASS_BASIC = 60
_CONTENT_TYPE = 1 << 15
_CONTENT_ENCODING = 1 << 14
_HEADERS = 1 << 13
_DELIVERY_MODE = 1 << 12
_PRIORITY = 1 << 11
_CORRELATION_ID = 1 << 10
_REPLY_TO = 1 << 9
_EXPIRATION = 1 << 8
_MESSAGE_ID = 1 << 7
_TIMESTAMP = 1 << 6
_TYPE = 1 << 5
_USER_ID = 1 << 4
_APP_ID = 1 << 3


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One whole frame."""
    return _FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


_SENDER = short_string(SENDER_HEADER) + b"S"
_SEQ = short_string(SEQ_HEADER) + b"l"


def encode_publish(channel: int, message: Message, frame_max: int, mandatory: bool) -> bytes:
    """Basic.Publish with its content: method, header and as many body frames as ``frame_max`` (octets, 0 for no
    limit) asks for. Raises ``ValueError`` when AMQP cannot express the message."""
    route = (channel, message.exchange, message.routing_key, mandatory)
    method = _routes.get(route)
    if method is None:
        method = _encode_route(*route)
        if len(_routes) >= CACHED:
            _routes.clear()
        _routes[route] = method
    body = message.body
    size = len(body)
    header = _encode_header(message, size)
    room = (frame_max or 0xFFFF_FFFF) - FRAME_OVERHEAD
    if len(header) > room:
        raise ValueError(f"headers of {len(header)} bytes exceed the broker's frame size of {frame_max} bytes")
    pack = _FRAME.pack
    parts = [method, pack(FRAME_HEADER, channel, len(header)), header, b"\xce"]
    if size <= room:
        if size:
            parts += (pack(FRAME_BODY, channel, size), body, b"\xce")
    else:
        for start in range(0, size, room):
            part = body[start : start + room]
            parts += (pack(FRAME_BODY, channel, len(part)), part, b"\xce")
    return b"".join(parts)


def _encode_route(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    names = short_string(exchange) + short_string(routing_key)
    return frame(FRAME_METHOD, channel, b"\x00\x3c\x00\x28\x00\x00" + names + bytes((mandatory,)))


def _encode_header(message: Message, body_size: int) -> bytes:
    flags = 0
    parts = [b""]
    if message.content_type is not None:
        flags |= _CONTENT_TYPE
        parts.append(cached_string(message.content_type))
    if message.content_encoding is not None:
        flags |= _CONTENT_ENCODING
        parts.append(short_string(message.content_encoding))
    headers = message.headers
    if message.sender is not None:
        flags |= _HEADERS
        if SENDER_HEADER in headers or SEQ_HEADER in headers:
            headers = {name: value for name, value in headers.items() if name not in (SENDER_HEADER, SEQ_HEADER)}
        table = _encode_identity(message.sender, message.seq)
        if headers:
            table += encode_fields(headers)
        parts += (_U32.pack(len(table)), table)
    elif headers:
        flags |= _HEADERS
        parts.append(encode_table(headers))
    try:
        if message.delivery_mode is not None:
            flags |= _DELIVERY_MODE
            parts.append(_U8.pack(message.delivery_mode))
        if message.priority is not None:
            flags |= _PRIORITY
            parts.append(_U8.pack(message.priority))
        if message.correlation_id is not None:
            flags |= _CORRELATION_ID
            parts.append(short_string(message.correlation_id))
        if message.reply_to is not None:
            flags |= _REPLY_TO
            parts.append(short_string(message.reply_to))
        if message.expiration is not None:
            flags |= _EXPIRATION
            parts.append(short_string(message.expiration))
        if message.message_id is not None:
            flags |= _MESSAGE_ID
            parts.append(short_string(message.message_id))
        if message.timestamp is not None:
            flags |= _TIMESTAMP
            parts.append(_U64.pack(message.timestamp))
    except error as problem:
        raise ValueError(f"a property is out of range: {problem}") from None
    if message.type is not None:
        flags |= _TYPE
        parts.append(short_string(message.type))
    if message.user_id is not None:
        flags |= _USER_ID
        parts.append(short_string(message.user_id))
    if message.app_id is not None:
        flags |= _APP_ID
        parts.append(short_string(message.app_id))
    parts[0] = _CONTENT.pack(_CLASS_BASIC, 0, body_size, flags)
    return b"".join(parts)


def _encode_identity(sender: str, seq: int) -> bytes:
    name = sender.encode()
    try:
        return b"".join((_SENDER, _U32.pack(len(name)), name, _SEQ, _I64.pack(seq)))
    except error as problem:
        raise ValueError(f"a sequence number is out of range: {problem}") from None


def encode_ack(channel: int, tag: int, multiple: bool) -> bytes:
    """Basic.Ack."""
    return _ACK.pack(FRAME_METHOD, channel, 13, 60, 80, tag, multiple, 0xCE)


def encode_nack(channel: int, tag: int, multiple: bool, requeue: bool) -> bytes:
    """Basic.Nack."""
    return _ACK.pack(FRAME_METHOD, channel, 13, 60, 120, tag, multiple | requeue << 1, 0xCE)


def decode_message(exchange: str, routing_key: str, redelivered: bool, header: bytes, body: bytes) -> Message:
    """A message from the payload of its content header frame. What cannot be read of its properties is left out:
    a message is never lost for a property."""
    message = Message(exchange, routing_key, body, redelivered=redelivered)
    try:
        _decode_properties(message, header)
    except (ValueError, LookupError, RecursionError, error):
        return message
    headers = message.headers
    if headers:
        sender, seq = headers.get(SENDER_HEADER), headers.get(SEQ_HEADER)
        if isinstance(sender, str) and sender and type(seq) is int and seq >= 0:
            del headers[SENDER_HEADER], headers[SEQ_HEADER]
            message.sender, message.seq = sender, seq
    return message


def _decode_properties(message: Message, data: bytes) -> None:
    (flags,) = _U16.unpack_from(data, 12)
    pos = 14
    if flags & _CONTENT_TYPE:
        message.content_type, pos = read_short_string(data, pos)
    if flags & _CONTENT_ENCODING:
        message.content_encoding, pos = read_short_string(data, pos)
    if flags & _HEADERS:
        message.headers, pos = decode_table(data, pos)
    if flags & _DELIVERY_MODE:
        message.delivery_mode = data[pos]
        pos += 1
    if flags & _PRIORITY:
        message.priority = data[pos]
        pos += 1
    if flags & _CORRELATION_ID:
        message.correlation_id, pos = read_short_string(data, pos)
    if flags & _REPLY_TO:
        message.reply_to, pos = read_short_string(data, pos)
    if flags & _EXPIRATION:
        message.expiration, pos = read_short_string(data, pos)
    if flags & _MESSAGE_ID:
        message.message_id, pos = read_short_string(data, pos)
    if flags & _TIMESTAMP:
        (message.timestamp,) = _U64.unpack_from(data, pos)
        pos += 8
    if flags & _TYPE:
        message.type, pos = read_short_string(data, pos)
    if flags & _USER_ID:
        message.user_id, pos = read_short_string(data, pos)
    if flags & _APP_ID:
        message.app_id, pos = read_short_string(data, pos)
