"""The limits on sockets, and who they belong to, as they are seen through sockets."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from stompbridge.gateway import listener as listener_module
from stompbridge.gateway.closing import CloseReason
from tests.gateway.harness import TEXT, Client, Server, frame, request


async def refused(client: Client) -> str:
    status, headers, body = await client.response()
    assert status == 503
    assert headers["connection"] == "close"
    assert int(headers["retry-after"]) > 0
    client.close()
    return body.decode().strip()


async def test_too_many_sockets(server: Server) -> None:
    server.limits["connections"] = 2
    await server.start()
    first, listener = await server.open()
    listener.connection.accepted()
    second = await server.raw()
    with capture_logs() as logs:
        for n in range(3):
            client = await server.raw()
            if n:
                await client.send(request())
            assert await refused(client) == CloseReason.FULL.text
        await server.until_ended(CloseReason.FULL, 3)
    assert [(entry["event"], entry["limit"], entry["log_level"]) for entry in logs] == [
        ("limit_reached", "full", "warning")
    ]
    assert server.gateway.connections_open == 2
    second.kill()
    await server.until_ended(CloseReason.CLIENT_LOST)
    await server.open()
    await first.send(frame(TEXT, b"still here"))
    await listener.until(lambda it: it.data)


async def test_too_many_that_are_not_let_in(server: Server) -> None:
    server.limits["pending"] = 2
    await server.start()
    _, first = await server.open()
    await server.open()
    assert await refused(await server.raw()) == CloseReason.PENDING_FULL.text
    first.connection.accepted()
    assert server.gateway.door.capacity.pending == 1
    await server.open()
    await server.until_ended(CloseReason.PENDING_FULL)


async def test_too_many_of_an_address(server: Server) -> None:
    server.limits["connections_per_address"] = 1
    await server.start()
    client, listener = await server.open()
    assert await refused(await server.raw()) == CloseReason.ADDRESS_FULL.text
    await server.until_ended(CloseReason.ADDRESS_FULL)
    client.kill()
    await listener.until_lost()
    await server.until_ended(CloseReason.CLIENT_LOST)
    await server.open()
    assert len(server.gateway.door.capacity.addresses) == 1


async def test_nobody_waits_for_those_who_are_too_many(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few may take their time to read that they are; there must be an end to that, too."""
    monkeypatch.setattr(listener_module, "_MAX_REFUSED", 2)
    server.limits["connections"] = 1
    await server.start()
    await server.open()
    told = [await server.raw() for _ in range(2)]
    for client in told:
        await client.send(request())
        assert (await client.response())[0] == 503
    cut = await server.raw()
    await cut.gone()
    await server.until_ended(CloseReason.FULL)
    assert server.gateway.connections_open == 3


async def test_the_table_is_empty_at_the_end(server: Server) -> None:
    await server.start()
    clients = [(await server.open())[0] for _ in range(3)]
    clients.append(await server.raw())
    await clients[-1].send(request("/other"))
    capacity = server.gateway.door.capacity
    assert capacity.sockets == 4
    for client in clients:
        client.kill()
    await server.until_ended(CloseReason.CLIENT_LOST, 3)
    await server.until_ended(CloseReason.REJECTED)
    assert (capacity.sockets, capacity.pending, capacity.addresses) == (0, 0, {})


async def test_behind_a_proxy_that_speaks_http(server: Server) -> None:
    server.listen["trusted_proxies"] = ("127.0.0.0/8",)
    server.limits["connections_per_address"] = 1
    await server.start()
    client = await server.raw()
    await client.send(request(headers={"X-Forwarded-For": "192.0.2.99, 203.0.113.5"}))
    assert (await client.response())[0] == 101
    connection = server.listeners[0].connection
    assert (connection.address, connection.remote) == ("203.0.113.5", "203.0.113.5")
    second = await server.raw()
    await second.send(request(headers={"X-Forwarded-For": "203.0.113.5"}) + frame(TEXT, b"dropped"))
    assert await refused(second) == CloseReason.ADDRESS_FULL.text
    await server.until_ended(CloseReason.ADDRESS_FULL)
    other = await server.raw()
    await other.send(request(headers={"X-Forwarded-For": "203.0.113.6"}))
    assert (await other.response())[0] == 101


async def test_behind_a_proxy_that_speaks_tcp(server: Server) -> None:
    server.listen |= {"trusted_proxies": ("127.0.0.1",), "proxy_protocol": True}
    await server.start()
    client = await server.raw()
    await client.send(b"PROXY TCP6 2001:db8::1 ::1 50000 443\r\n")
    await client.send(request())
    assert (await client.response())[0] == 101
    connection = server.listeners[0].connection
    assert (connection.address, connection.remote) == ("2001:db8::1", "[2001:db8::1]:50000")
    await client.send(frame(TEXT, b"x"))
    await server.listeners[0].until(lambda it: it.data == [b"x"])


@pytest.mark.parametrize("trusted", ["127.0.0.1", "192.0.2.1"])
async def test_no_proxy_header(server: Server, trusted: str) -> None:
    server.listen |= {"trusted_proxies": (trusted,), "proxy_protocol": True}
    await server.start()
    with capture_logs() as logs:
        client = await server.raw()
        await client.send(request())
        status, _, _ = await client.response()
        assert status == 400
        client.close()
        await server.until_ended(CloseReason.BAD_PROXY)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("handshake_refused", "info")]
    assert server.listeners == []


@pytest.mark.parametrize(
    "part", [b"", b"PROXY TCP4 203.0", b"PROXY TCP4 203.0.113.5 10.0.0.1 1 2\r\n", b"\r\n\r\n\x00"]
)
async def test_a_slow_proxy_header(server: Server, part: bytes) -> None:
    server.listen |= {"trusted_proxies": ("127.0.0.1",), "proxy_protocol": True}
    server.limits["open_timeout"] = 0.1
    await server.start()
    client = await server.raw()
    await client.send(part)
    await server.until_ended(CloseReason.OPEN_TIMEOUT)
    await client.gone()


async def test_headers_of_the_request_until_the_client_is_let_in(server: Server) -> None:
    await server.start()
    client = await server.raw()
    await client.send(request(headers={"Cookie": "sid=1", "Authorization": "Bearer x"}))
    assert (await client.response())[0] == 101
    connection = server.listeners[0].connection
    assert connection.upgrade == {"cookie": "sid=1", "authorization": "Bearer x"}
    connection.accepted()
    assert connection.upgrade == {}
    connection.accepted()
    assert server.gateway.door.capacity.pending == 0
