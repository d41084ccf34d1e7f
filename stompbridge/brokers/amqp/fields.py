"""AMQP 0-9-1 strings and field tables.

Field types follow RabbitMQ where it differs from the specification (https://www.rabbitmq.com/amqp-0-9-1-errata,
section 3): ``s`` is a signed 16 bit integer, ``l`` a signed 64 bit one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct, error

from ..base import HeaderValue

CACHED = 1024
"""How many encoded names are kept."""

_U8 = Struct(">B")
_I8 = Struct(">b")
_U16 = Struct(">H")
_I16 = Struct(">h")
_U32 = Struct(">I")
_I32 = Struct(">i")
_U64 = Struct(">Q")
_I64 = Struct(">q")
_F32 = Struct(">f")
_F64 = Struct(">d")

_strings: dict[str, bytes] = {}


def short_string(value: str) -> bytes:
    """A string of at most 255 bytes. Raises ``ValueError`` for a longer one."""
    data = value.encode()
    if len(data) > 255:
        raise ValueError(f"{value[:32]!r}... is longer than 255 bytes")
    return _U8.pack(len(data)) + data


def _long_string(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data


def cached_string(value: str) -> bytes:
    """``short_string`` of what comes up again and again: header names, content types."""
    data = _strings.get(value)
    if data is None:
        data = short_string(value)
        if len(_strings) >= CACHED:
            _strings.clear()
        _strings[value] = data
    return data


def encode_table(table: Mapping[str, HeaderValue]) -> bytes:
    """A field table with its length. Raises ``ValueError`` for what AMQP cannot express."""
    data = encode_fields(table)
    return _U32.pack(len(data)) + data


def encode_fields(table: Mapping[str, HeaderValue]) -> bytes:
    """A field table's fields, without its length."""
    parts: list[bytes] = []
    for name, value in table.items():
        if type(value) is str:
            data = value.encode()
            parts += (cached_string(name), b"S", _U32.pack(len(data)), data)
        else:
            parts += (cached_string(name), _encode_value(value))
    return b"".join(parts)


def _encode_value(value: HeaderValue) -> bytes:
    match value:
        case str():
            return b"S" + _long_string(value.encode())
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            try:
                return b"l" + _I64.pack(value)
            except error:
                raise ValueError(f"integer {value} does not fit into 64 bits") from None
        case float():
            return b"d" + _F64.pack(value)
        case None:
            return b"V"
        case bytes() | bytearray() | memoryview():
            return b"x" + _long_string(bytes(value))
        case Mapping():
            return b"F" + encode_table(value)
        case list() | tuple():
            return b"A" + _long_string(b"".join(map(_encode_value, value)))
        case datetime():
            return b"T" + _encode_timestamp(value)
        case Decimal():
            return b"D" + _encode_decimal(value)
    raise ValueError(f"a value of type {type(value).__name__} cannot stand in an AMQP header")


def _encode_timestamp(value: datetime) -> bytes:
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    seconds = int(value.timestamp())
    if seconds < 0:
        raise ValueError(f"timestamp {value} lies before 1970")
    return _U64.pack(seconds)


def _encode_decimal(value: Decimal) -> bytes:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and -255 <= exponent <= 32:
        scale = max(0, -exponent)
        unscaled = value.scaleb(scale)
        if -0x8000_0000 <= unscaled <= 0x7FFF_FFFF:
            return _U8.pack(scale) + _I32.pack(int(unscaled))
    raise ValueError(f"decimal {value} does not fit into 32 bits")


def decode_table(data: bytes, pos: int = 0) -> tuple[dict[str, HeaderValue], int]:
    """The table that starts at ``pos`` and the position after it. A string that is no UTF-8 comes as ``bytes``.

    Raises ``ValueError``, ``LookupError``, ``struct.error`` or ``RecursionError`` when the bytes are no table.
    """
    unpack = _U32.unpack_from
    pos, end = pos + 4, pos + 4 + unpack(data, pos)[0]
    if end > len(data):
        raise ValueError("table longer than its frame")
    table: dict[str, HeaderValue] = {}
    while pos < end:
        start = pos + 1
        pos = start + data[pos]
        name = data[start:pos].decode("utf-8", "replace")
        kind = data[pos]
        if kind == 0x53:  # S, by far the most frequent
            start = pos + 5
            pos = start + unpack(data, pos + 1)[0]
            text = data[start:pos]
            try:
                table[name] = text.decode()
            except UnicodeDecodeError:
                table[name] = text
        else:
            table[name], pos = _DECODERS[kind](data, pos + 1)
    if pos != end:
        raise ValueError("field longer than its table")
    return table, end


def _number(layout: Struct) -> Callable[[bytes, int], tuple[HeaderValue, int]]:
    unpack, size = layout.unpack_from, layout.size

    def decode(data: bytes, pos: int) -> tuple[HeaderValue, int]:
        return unpack(data, pos)[0], pos + size

    return decode


def _boolean(data: bytes, pos: int) -> tuple[HeaderValue, int]:
    return data[pos] != 0, pos + 1


def _decimal(data: bytes, pos: int) -> tuple[HeaderValue, int]:
    return Decimal(_I32.unpack_from(data, pos + 1)[0]).scaleb(-data[pos]), pos + 5


def _octets(data: bytes, pos: int) -> tuple[bytes, int]:
    end = pos + 4 + _U32.unpack_from(data, pos)[0]
    return data[pos + 4 : end], end


def _string(data: bytes, pos: int) -> tuple[HeaderValue, int]:
    value, end = _octets(data, pos)
    try:
        return value.decode(), end
    except UnicodeDecodeError:
        return value, end


def _array(data: bytes, pos: int) -> tuple[HeaderValue, int]:
    end = pos + 4 + _U32.unpack_from(data, pos)[0]
    pos += 4
    values: list[HeaderValue] = []
    while pos < end:
        value, pos = _DECODERS[data[pos]](data, pos + 1)
        values.append(value)
    return values, end


def _timestamp(data: bytes, pos: int) -> tuple[HeaderValue, int]:
    (seconds,) = _U64.unpack_from(data, pos)
    try:
        return datetime.fromtimestamp(seconds, UTC), pos + 8
    except (ValueError, OverflowError, OSError):
        return seconds, pos + 8


def _void(data: bytes, pos: int) -> tuple[HeaderValue, int]:
    return None, pos


_DECODERS: dict[int, Callable[[bytes, int], tuple[HeaderValue, int]]] = {
    ord("t"): _boolean,
    ord("b"): _number(_I8),
    ord("B"): _number(_U8),
    ord("s"): _number(_I16),
    ord("U"): _number(_I16),
    ord("u"): _number(_U16),
    ord("I"): _number(_I32),
    ord("i"): _number(_U32),
    ord("l"): _number(_I64),
    ord("L"): _number(_U64),
    ord("f"): _number(_F32),
    ord("d"): _number(_F64),
    ord("D"): _decimal,
    ord("S"): _string,
    ord("A"): _array,
    ord("T"): _timestamp,
    ord("F"): decode_table,
    ord("V"): _void,
    ord("x"): _octets,
}


def read_short_string(data: bytes, pos: int) -> tuple[str, int]:
    """The short string at ``pos`` and the position after it."""
    start = pos + 1
    end = start + data[pos]
    return data[start:end].decode("utf-8", "replace"), end
