"""Field tables, against pamqp where it agrees with RabbitMQ."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pamqp.decode
import pamqp.encode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.brokers.amqp import fields
from stompbridge.brokers.amqp.fields import cached_string, decode_table, encode_table, read_short_string, short_string

NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
# pamqp takes year 1 to 9999 and local time for naive values; decimals are unsigned there.
TIMES = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
DECIMALS = st.builds(lambda number, scale: Decimal(number).scaleb(-scale), st.integers(0, 2**31 - 1), st.integers(0, 9))
SCALARS = (
    TEXTS
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, width=32)
    | TIMES
    | DECIMALS
    | st.none()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=6)


@given(TABLES)
def test_pamqp_reads_what_we_write(table: dict[str, Any]) -> None:
    data = encode_table(table)
    consumed, decoded = pamqp.decode.field_table(data)
    assert consumed == len(data)
    assert decoded == table


@given(TABLES)
def test_we_read_what_pamqp_writes(table: dict[str, Any]) -> None:
    data = pamqp.encode.field_table(table)
    assert decode_table(data) == (table, len(data))


@given(TABLES, st.binary(max_size=20))
def test_round_trip_anywhere(table: dict[str, Any], around: bytes) -> None:
    data = around + encode_table(table) + around
    assert decode_table(data, len(around)) == (table, len(data) - len(around))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"t\x01", True),
        (b"t\x00", False),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"U\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, 2**64 - 1),
        (b"f" + struct.pack(">f", 0.5), 0.5),
        (b"d" + struct.pack(">d", 0.1), 0.1),
        (b"D\x02\x00\x00\x00\x7b", Decimal("1.23")),
        (b"D\x00\xff\xff\xff\xff", Decimal(-1)),
        (b"S\x00\x00\x00\x02\xc3\xa9", "é"),
        (b"S\x00\x00\x00\x01\xff", b"\xff"),
        (b"x\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
        (b"V", None),
        (b"T\x00\x00\x00\x00\x00\x00\x00\x01", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (b"T" + b"\xff" * 8, 2**64 - 1),
        (b"F\x00\x00\x00\x03\x01aV", {"a": None}),
        (b"A\x00\x00\x00\x03Vt\x01", [None, True]),
        (b"A\x00\x00\x00\x06S\x00\x00\x00\x01\xff", [b"\xff"]),
        (b"A\x00\x00\x00\x06S\x00\x00\x00\x01a", ["a"]),
    ],
)
def test_every_type(data: bytes, value: object) -> None:
    table = b"\x01k" + data
    encoded = struct.pack(">I", len(table)) + table
    decoded, end = decode_table(encoded)
    assert decoded == {"k": value}
    assert type(decoded["k"]) is type(value)
    assert end == len(encoded)


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ((1, 2), [1, 2]),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        (b"\xff", b"\xff"),
        (datetime(1970, 1, 2), datetime(1970, 1, 2, tzinfo=UTC)),
        (Decimal("-1.5"), Decimal("-1.5")),
        (Decimal("1E+3"), Decimal(1000)),
    ],
)
def test_values_of_other_types(value: object, decoded: object) -> None:
    assert decode_table(encode_table({"k": value}))[0] == {"k": decoded}


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**63) - 1,
        object(),
        datetime(1969, 1, 1, tzinfo=UTC),
        Decimal(2**31),
        Decimal("NaN"),
        Decimal("1E+40"),
        Decimal("1E-300"),
        {"x" * 256: 1},
        ["ok", {1, 2}],
    ],
)
def test_what_amqp_cannot_express(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode_table({"k": value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x00\x05",
        b"\x00\x00\x00\x01\x01",
        b"\x00\x00\x00\x03\x01k?",
        b"\x00\x00\x00\x04\x01kl\x00",
        b"\x00\x00\x00\x08\x01kS\x00\x00\x00\xff\xff",
        b"\x00\x00\x00\x08\x01kA\x00\x00\x00\xff\xff",
    ],
)
def test_broken_tables(data: bytes) -> None:
    with pytest.raises((ValueError, LookupError, struct.error)):
        decode_table(data)


def test_short_strings() -> None:
    assert short_string("é") == b"\x02\xc3\xa9"
    assert read_short_string(b"?\x02\xc3\xa9", 1) == ("é", 4)
    assert read_short_string(b"\x01\xff", 0) == ("\ufffd", 2)
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        short_string("é" * 128)


def test_the_cache_is_bounded() -> None:
    for number in range(2 * fields.CACHED + 5):
        assert cached_string(str(number)) == short_string(str(number))
    assert len(fields._strings) <= fields.CACHED
