from __future__ import annotations

from typing import Any

import pytest
from websockets.protocol import SEND_EOF

from stompbridge.config import Auth, HttpAuth, Limits, Listen, Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.handshake import RETRY_AFTER, StompServerProtocol
from stompbridge.gateway.opening import Door, Opening
from tests.gateway.harness import request

PROXY = ("10.0.0.1", 40000)
CLIENT = ("203.0.113.5", 50000)


def new_door(*, limits: dict[str, Any] | None = None, forward: tuple[str, ...] = (), **listen: Any) -> Door:
    auth = Auth(http=HttpAuth(forward_headers=forward))
    return Door(Settings(listen=Listen(**listen), limits=Limits(**(limits or {})), auth=auth))


def behind_proxy(**listen: Any) -> Door:
    return new_door(trusted_proxies=("10.0.0.0/8",), **listen)


def opening(door: Door, peer: tuple[str, int] | None = CLIENT) -> Opening:
    return Opening(door, StompServerProtocol(1000), peer)


def status(which: Opening) -> int:
    """The status of the answer; 0 if there is none yet."""
    out = which.output()
    assert (out[-1:] == [SEND_EOF]) is (bool(out) and not out[0].startswith(b"HTTP/1.1 101"))
    return int(out[0].split(b" ")[1]) if out else 0


def test_who_it_is() -> None:
    direct = opening(new_door())
    assert (direct.address, direct.remote) == ("203.0.113.5", "203.0.113.5:50000")
    ipv6 = opening(new_door(), ("2001:db8::1", 80))
    assert (ipv6.address, ipv6.remote) == ("2001:db8::1", "[2001:db8::1]:80")
    mapped = opening(new_door(), ("::ffff:192.0.2.1", 80))
    assert (mapped.address, mapped.remote) == ("192.0.2.1", "192.0.2.1:80")
    gone = opening(new_door(), None)
    assert (gone.address, gone.remote) == ("", "")
    assert gone.receive(request()) == b""
    assert status(gone) == 101


def test_no_room_in_all() -> None:
    door = new_door(limits={"connections": 1})
    first = opening(door)
    assert first.seat is not None
    second = opening(door)
    assert second.seat is None
    assert second.reason is CloseReason.FULL
    assert second.refusal == CloseReason.FULL.text
    answer = second.output()
    assert answer[0].startswith(b"HTTP/1.1 503 ")
    assert b"\r\nConnection: close\r\n" in answer[0]
    assert f"\r\nRetry-After: {RETRY_AFTER}\r\n".encode() in answer[0]
    assert answer[1:] == [SEND_EOF]


def test_no_room_for_an_address() -> None:
    door = new_door(limits={"connections_per_address": 1})
    first = opening(door)
    second = opening(door)
    assert (second.seat, second.reason, status(second)) == (None, CloseReason.ADDRESS_FULL, 503)
    assert opening(door, ("203.0.113.6", 1)).seat is not None
    assert door.capacity.sockets == 2
    assert first.seat is not None
    first.seat.leave()
    assert opening(door).seat is not None


# X-Forwarded-For.


def test_a_trusted_proxy_says_for_whom_it_comes() -> None:
    it = opening(behind_proxy(), PROXY)
    assert it.address == "10.0.0.1"
    assert it.receive(request(headers={"X-Forwarded-For": "1.2.3.4, 203.0.113.5"}) + b"rest") == b"rest"
    assert (it.address, it.remote, status(it)) == ("203.0.113.5", "203.0.113.5", 101)


@pytest.mark.parametrize("value", [None, "", "unknown", "203.0.113.5, evil"])
def test_a_trusted_proxy_that_says_nothing_useful(value: str | None) -> None:
    door = behind_proxy(limits={"connections_per_address": 1})
    it = opening(door, PROXY)
    it.receive(request(headers={"X-Forwarded-For": value}))
    assert (it.address, it.remote, status(it)) == ("10.0.0.1", "10.0.0.1:40000", 101)
    assert len(door.capacity.addresses) == 1


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
def test_nobody_else_is_believed(trusted: tuple[str, ...]) -> None:
    it = opening(new_door(trusted_proxies=trusted))
    it.receive(request(headers={"X-Forwarded-For": "192.0.2.99"}))
    assert (it.address, it.remote, status(it)) == ("203.0.113.5", "203.0.113.5:50000", 101)


def test_no_room_for_an_address_behind_a_proxy() -> None:
    door = behind_proxy(limits={"connections_per_address": 1})
    first, second, third = (opening(door, PROXY) for _ in range(3))
    for it, value in ((first, "203.0.113.5"), (second, "203.0.113.6"), (third, "203.0.113.5")):
        it.receive(request("/other" if it is third else "/ws", headers={"X-Forwarded-For": value}))
    assert [status(it) for it in (first, second, third)] == [101, 101, 503]
    assert third.seat is None
    assert third.reason is CloseReason.ADDRESS_FULL
    assert door.capacity.sockets == 2


# The PROXY protocol.


def test_proxy_header_first() -> None:
    it = opening(behind_proxy(proxy_protocol=True), PROXY)
    data = b"PROXY TCP4 203.0.113.5 10.0.0.1 50000 443\r\n" + request()
    for n in range(len(data) - 1):
        assert it.receive(data[n : n + 1]) is None
    assert it.receive(data[-1:] + b"rest") == b"rest"
    assert (it.address, it.remote, status(it)) == ("203.0.113.5", "203.0.113.5:50000", 101)


def test_proxy_for_itself() -> None:
    it = opening(behind_proxy(proxy_protocol=True), PROXY)
    assert it.receive(b"PROXY UNKNOWN\r\n" + request()) == b""
    assert (it.address, status(it)) == ("10.0.0.1", 101)


def test_a_proxy_behind_a_proxy() -> None:
    it = opening(behind_proxy(proxy_protocol=True), PROXY)
    forwarded = request(headers={"X-Forwarded-For": "203.0.113.5"})
    it.receive(b"PROXY TCP4 10.0.0.2 10.0.0.1 1 2\r\n" + forwarded)
    assert it.remote == "203.0.113.5"
    # Whom the header names is not believed any more than if it came itself.
    it = opening(behind_proxy(proxy_protocol=True), PROXY)
    it.receive(b"PROXY TCP4 203.0.113.5 10.0.0.1 1 2\r\n" + request(headers={"X-Forwarded-For": "192.0.2.99"}))
    assert it.remote == "203.0.113.5:1"


@pytest.mark.parametrize("data", [request(), b"PROXY TCP4 a b 1 2\r\n", b"\x16\x03\x01"])
def test_no_proxy_header(data: bytes) -> None:
    it = opening(behind_proxy(proxy_protocol=True), PROXY)
    assert it.receive(data) == b""
    assert (it.reason, status(it)) == (CloseReason.BAD_PROXY, 400)
    assert it.refusal


@pytest.mark.parametrize("peer", [CLIENT, None])
def test_a_header_of_somebody_else(peer: tuple[str, int] | None) -> None:
    it = opening(behind_proxy(proxy_protocol=True), peer)
    assert (it.reason, status(it)) == (CloseReason.BAD_PROXY, 400)
    assert it.refusal == "not from a trusted proxy"


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 192.0.2.99 10.0.0.1 1 2\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"]
)
def test_a_header_where_none_is_wanted(header: bytes) -> None:
    it = opening(behind_proxy(), PROXY)
    assert it.receive(header + request()) == b""
    assert (it.address, it.reason, status(it)) == ("10.0.0.1", CloseReason.REJECTED, 400)


def test_no_room_for_an_address_in_a_proxy_header() -> None:
    door = behind_proxy(proxy_protocol=True, limits={"pending_per_address": 1})
    header = b"PROXY TCP4 203.0.113.5 10.0.0.1 1 2\r\n"
    first, second = opening(door, PROXY), opening(door, PROXY)
    assert first.receive(header) is None
    assert second.receive(header) == b""
    assert (second.reason, status(second)) == (CloseReason.ADDRESS_PENDING_FULL, 503)
    assert door.capacity.sockets == 1


# What is kept of the request.


def test_headers_that_tell_who_it_is() -> None:
    it = opening(new_door(forward=("X-Device", "x-absent")))
    headers = {
        "Cookie": "a=1\r\nCookie: b=2",
        "Authorization": "Bearer x",
        "X-Device": "one\r\nx-device: two",
        "X-Other": "y",
    }
    assert it.upgrade == {}
    it.receive(request(headers=headers))
    assert it.upgrade == {"cookie": "a=1; b=2", "authorization": "Bearer x", "x-device": "one, two"}


def test_nothing_is_kept_of_a_refused_request() -> None:
    it = opening(new_door())
    it.receive(request("/other", headers={"Cookie": "a=1"}))
    assert it.upgrade == {}
