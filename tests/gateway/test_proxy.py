from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.gateway.proxy import Networks, ProxyError, ProxyHeader, forwarded_for, parse_address, plain

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = ip_address("192.0.2.1").packed + ip_address("198.51.100.2").packed + struct.pack("!HH", 56324, 443)
V6 = ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed + struct.pack("!HH", 56324, 443)


def v2(command: int, family: int, addresses: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses) if length is None else length) + addresses


GOOD: dict[str, tuple[bytes, tuple[str, int] | None]] = {
    "TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", ("192.0.2.1", 56324)),
    "TCP6": (b"PROXY TCP6 2001:db8::1 2001:DB8::2 56324 443\r\n", ("2001:db8::1", 56324)),
    "IPv4 in TCP6": (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ("192.0.2.1", 1)),
    "longest TCP6": (
        b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n",
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "UNKNOWN and more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "longest UNKNOWN": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "v2 TCP4": (v2(0x21, 0x11, V4), ("192.0.2.1", 56324)),
    "v2 TCP6": (v2(0x21, 0x21, V6), ("2001:db8::1", 56324)),
    "v2 with more": (v2(0x21, 0x11, V4 + b"\x04\x00\x03abc"), ("192.0.2.1", 56324)),
    "v2 longest": (v2(0x21, 0x11, V4 + bytes(4096 - len(V4))), ("192.0.2.1", 56324)),
    "v2 LOCAL": (v2(0x20, 0x00, b""), None),
    "v2 LOCAL with addresses": (v2(0x20, 0x11, V4), None),
    "v2 LOCAL, odd family": (v2(0x20, 0x77, b"x"), None),
    "v2 unspecified": (v2(0x21, 0x00, b""), None),
    "v2 datagrams": (v2(0x21, 0x12, V4), None),
    "v2 UNIX": (v2(0x21, 0x31, bytes(216)), None),
}

BAD: dict[str, bytes] = {
    "HTTP": b"GET /ws HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "lower case": b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "endless": b"PROXY TCP4 " + b"1" * 200,
    "line feed only": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
    "no port": b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    "two spaces": b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    "more": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
    "another protocol": b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "big port": b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    "big other port": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 70000\r\n",
    "negative port": b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
    "IPv6 in TCP4": b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    "IPv4 in TCP6": b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    "bad other address": b"PROXY TCP4 192.0.2.1 192.0.2.300 1 2\r\n",
    "octal address": b"PROXY TCP4 192.0.2.010 192.0.2.2 1 2\r\n",
    "name": b"PROXY TCP4 evil.example 192.0.2.2 1 2\r\n",
    "no UNKNOWN": b"PROXY UNKNOWNS\r\n",
    "a carriage return inside": b"PROXY UNKNOWN a\rb\r\n",
    "v2, bad signature": b"\r\n\r\n\x00\r\nQUIT\r" + b"\x21\x11\x00\x0c" + V4,
    "v2, version 1": v2(0x11, 0x11, V4),
    "v2, unknown command": v2(0x22, 0x11, V4),
    "v2, unknown family": v2(0x21, 0x41, V4),
    "v2, too long": v2(0x21, 0x11, V4, 4097),
    "v2, longest length": v2(0x21, 0x11, V4, 65535),
    "v2, short": v2(0x21, 0x11, V4[:-1]),
    "v2, short IPv6": v2(0x21, 0x21, V4),
}


@pytest.mark.parametrize(("data", "source"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n\r\n", b"PROXY UNKNOWN\r\n"], ids=repr)
def test_headers(data: bytes, source: tuple[str, int] | None, rest: bytes) -> None:
    expected = None if source is None else (ip_address(source[0]), source[1])
    whole = ProxyHeader()
    assert whole.receive(data + rest) == rest
    assert whole.source == expected
    bytewise = ProxyHeader()
    for n in range(len(data) - 1):
        assert bytewise.receive(data[n : n + 1]) is None
        assert bytewise.source is None
    assert bytewise.receive(data[-1:] + rest) == rest
    assert bytewise.source == expected


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(ProxyError):
        ProxyHeader().receive(data)
    bytewise = ProxyHeader()
    fed = 0

    def feed_on() -> None:
        nonlocal fed
        for n in range(len(data)):
            fed += 1
            assert bytewise.receive(data[n : n + 1]) is None

    with pytest.raises(ProxyError):
        feed_on()
    assert bytewise.source is None
    assert fed <= 107


def test_something_else_is_seen_at_its_first_byte() -> None:
    with pytest.raises(ProxyError):
        ProxyHeader().receive(b"G")


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21"]))
def test_anything(data: bytes, start: bytes) -> None:
    try:
        rest = ProxyHeader().receive(start + data)
    except ProxyError:
        return
    assert rest is None or data.endswith(rest)


TRUSTED = Networks(["10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8:1::9", True),
        ("2001:db8:2::9", False),
        ("::10.1.2.3", False),
    ],
)
def test_networks(address: str, expected: bool) -> None:
    assert (ip_address(address) in TRUSTED) is expected


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "chat.example", ""])
def test_no_networks(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Networks([text])


def test_ipv4_as_an_ipv6_socket_shows_it() -> None:
    assert plain(ip_address("::ffff:10.0.0.1")) == ip_address("10.0.0.1")
    assert plain(ip_address("2001:db8::1")) == ip_address("2001:db8::1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.5", "203.0.113.5"),
        (" 203.0.113.5 ", "203.0.113.5"),
        ("203.0.113.5:1234", "203.0.113.5"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:1234", "2001:db8::1"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("[]", None),
        ("203.0.113.5:", None),
        ("203.0.113.5:x", None),
        ("203.0.113.5 evil", None),
        ("203.0.113.05", None),
        ("203.0.113.5\n", "203.0.113.5"),
    ],
)
def test_addresses(text: str, expected: str | None) -> None:
    assert parse_address(text) == (None if expected is None else ip_address(expected))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([""], None),
        (["203.0.113.5"], "203.0.113.5"),
        (["203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        (["203.0.113.5, 10.0.0.2,192.0.2.7"], "203.0.113.5"),
        # Forged by the client: its own address was added behind it.
        (["1.2.3.4, 203.0.113.5"], "203.0.113.5"),
        (["10.0.0.1, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        # Several headers are one list (RFC 9110 section 5.3).
        (["1.2.3.4", "203.0.113.5", "10.0.0.2"], "203.0.113.5"),
        # From inside.
        (["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        (["unknown"], None),
        (["203.0.113.5, unknown"], None),
        (["203.0.113.5, unknown, 10.0.0.2"], None),
        (["evil, 203.0.113.5"], "203.0.113.5"),
        (["203.0.113.5,"], None),
    ],
)
def test_forwarded_for(headers: list[str], expected: str | None) -> None:
    assert forwarded_for(headers, TRUSTED) == (None if expected is None else ip_address(expected))


@given(st.lists(st.text(max_size=40), max_size=4))
def test_forwarded_for_anything(headers: list[str]) -> None:
    forwarded_for(headers, TRUSTED)
