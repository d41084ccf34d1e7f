"""Who a client is that comes through a proxy: the PROXY protocol and ``X-Forwarded-For``. No I/O."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
Peer = tuple[Address, int]
"""Address and port."""

_V1 = b"PROXY "
_V1_MAX = 107
_V1_LINE = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = 16
_V2_MAX = 4096
_v2_length = struct.Struct("!H").unpack_from
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
# No address family, datagrams, and sockets of the proxy's own machine: nothing to learn from.
_OTHERS = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})


class ProxyError(ValueError):
    """No PROXY header."""


class ProxyHeader:
    """Reads the PROXY header, version 1 or 2, that a connection begins with (HAProxy's "The PROXY protocol")."""

    __slots__ = ("_data", "source")

    def __init__(self) -> None:
        self._data = b""
        self.source: Peer | None = None
        """The client, once the header is whole; ``None`` if the proxy speaks for itself or does not know."""

    def receive(self, data: bytes) -> bytes | None:
        """Takes bytes; once the header is whole returns those that follow it, ``None`` before.

        Raises :class:`ProxyError` as soon as it is none. It is bounded: 107 bytes in version 1, 4,112 in version 2.
        """
        data = self._data = self._data + data
        if data[: len(_V2)] == _V2[: len(data)]:
            return self._version_2(data)
        if data[: len(_V1)] == _V1[: len(data)]:
            return self._version_1(data)
        raise ProxyError("no PROXY header")

    def _version_1(self, data: bytes) -> bytes | None:
        end = data.find(b"\n", 0, _V1_MAX) + 1
        if not end:
            if len(data) >= _V1_MAX:
                raise ProxyError(f"PROXY header of more than {_V1_MAX} bytes")
            return None
        line = data[:end]
        if not re.match(rb"PROXY UNKNOWN( [^\r\n]*)?\r\n", line):
            fields = _V1_LINE.fullmatch(line)
            if fields is None:
                raise ProxyError("bad PROXY header")
            family, source, target, *ports = (field.decode() for field in fields.groups())
            kind = IPv4Address if family == "TCP4" else IPv6Address
            try:
                address, _ = kind(source), kind(target)
            except ValueError:
                raise ProxyError("bad address in the PROXY header") from None
            if any(int(port) > 65535 for port in ports):
                raise ProxyError("bad port in the PROXY header")
            self.source = plain(address), int(ports[0])
        return data[end:]

    def _version_2(self, data: bytes) -> bytes | None:
        if len(data) < _V2_HEAD:
            return None
        command, family = data[12], data[13]
        end = _V2_HEAD + _v2_length(data, 14)[0]
        if end > _V2_HEAD + _V2_MAX:
            raise ProxyError(f"PROXY header with more than {_V2_MAX} bytes of addresses")
        if command not in (_LOCAL, _PROXY):
            raise ProxyError("unknown version or command in the PROXY header")
        size = {_TCP4: 4, _TCP6: 16}.get(family)
        if command == _LOCAL:
            size = None
        elif size is None and family not in _OTHERS:
            raise ProxyError("unknown address family in the PROXY header")
        if size is not None and end < _V2_HEAD + 2 * size + 4:
            raise ProxyError("PROXY header without its addresses")
        if len(data) < end:
            return None
        if size is not None:
            (port,) = _v2_length(data, _V2_HEAD + 2 * size)
            self.source = plain(ip_address(data[_V2_HEAD : _V2_HEAD + size])), port
        return data[end:]


class Networks:
    """Addresses that are believed what they say of others. Raises ValueError for what is not a network."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(network) for network in networks]

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def parse_address(text: str) -> Address | None:
    """An address as it stands in ``X-Forwarded-For``: with a port behind it or not, IPv6 in brackets or not."""
    text = text.strip()
    if match := re.fullmatch(r"\[([^\]]*)\](:\d{1,5})?|([0-9.]+):\d{1,5}", text):
        text = match[1] or match[3] or ""
    try:
        return plain(ip_address(text))
    except ValueError:
        return None


def plain(address: Address) -> Address:
    """``address``, or the IPv4 address that an IPv6 socket shows as ``::ffff:192.0.2.1``."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def forwarded_for(headers: Sequence[str], trusted: Networks) -> Address | None:
    """The client that the ``X-Forwarded-For`` headers of a trusted proxy name.

    Each proxy adds who came to it, at the end; what stands before the last address that is not trusted is anybody's
    claim. ``None`` if there is no address, or something else where it should be.
    """
    address = None
    for entry in reversed(",".join(headers).split(",")):
        address = parse_address(entry)
        if address is None or address not in trusted:
            break
    return address
