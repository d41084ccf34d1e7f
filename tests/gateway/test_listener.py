from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from stompbridge.config import Listen, Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.listener import Gateway, ListenError, addresses, listen
from stompbridge.gateway.sweep import Sweep
from tests.gateway.harness import CLOSE, TEXT, Listener, Server, close_payload, frame, request


def new_gateway(**values: Any) -> Gateway:
    sweep = Sweep(asyncio.get_running_loop())
    return Gateway(Settings(listen=Listen(**values)), lambda connection: Listener(), sweep)


async def test_counts_connections(server: Server) -> None:
    await server.start()
    gateway = server.gateway
    assert (gateway.connections_open, gateway.connections_total, gateway.slow_consumers) == (0, 0, 0)
    assert set(gateway.closed) == set(CloseReason)
    first, listener = await server.open()
    await server.open()
    assert (gateway.connections_open, gateway.connections_total) == (2, 2)
    first.close()
    await listener.until_lost()
    await server.until_ended(CloseReason.CLIENT_LOST)
    assert (gateway.connections_open, gateway.connections_total) == (1, 2)
    assert gateway.closed[CloseReason.CLIENT_LOST] == 1
    assert sum(gateway.closed.values()) == 1


async def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = new_gateway(port=port)
        with pytest.raises(ListenError) as refused:
            await gateway.start()
    assert refused.value.errno == errno.EADDRINUSE
    text = str(refused.value)
    assert text.startswith(f"cannot listen on 127.0.0.1:{port} (listen.host, listen.port): Address already in use; ")
    assert "choose another port" in text
    assert "\n" not in text
    await gateway.stop_accepting()


async def test_a_port_is_shared_by_those_who_want_it() -> None:
    first = new_gateway(port=0, reuse_port=True)
    ((_, port),) = await first.start()
    second = new_gateway(port=port, reuse_port=True)
    assert await second.start() == [("127.0.0.1", port)]
    with pytest.raises(ListenError, match="Address already in use"):
        await new_gateway(port=port).start()
    for gateway in (first, second):
        await gateway.stop_accepting()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EACCES, "denied"), "Permission denied; ports below 1024"),
        (OSError(errno.EADDRNOTAVAIL, "no"), "Cannot assign requested address; this machine has no such address"),
        (OSError(errno.EMFILE, "no"), "Too many open files; choose another address"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known; choose another"),
        (OSError("could not bind on any address"), "could not bind on any address; choose another"),
    ],
)
async def test_addresses_that_can_not_be_had(error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def create_server(*args: object, **values: object) -> None:
        raise error

    class Loop:
        pass

    loop = Loop()
    loop.create_server = create_server  # type: ignore[attr-defined]
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    with pytest.raises(ListenError) as refused:
        await listen(asyncio.Protocol, "admin", "host.example", 80, 1)
    monkeypatch.undo()
    assert str(refused.value).startswith(f"cannot listen on host.example:80 (admin.host, admin.port): {expected}")
    assert refused.value.errno == error.errno


async def test_address_of_another_machine() -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737).
    with pytest.raises(ListenError, match="this machine has no such address"):
        await listen(asyncio.Protocol, "listen", "192.0.2.1", 0, 1)


async def test_addresses_it_listens_on() -> None:
    opened = await listen(asyncio.Protocol, "listen", "127.0.0.1", 0, 1)
    [(host, port)] = addresses(opened)
    assert host == "127.0.0.1"
    assert port > 0
    opened.close()


async def test_stops_accepting_and_keeps_connections(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    await server.gateway.stop_accepting()
    await listener.until(lambda it: it.checks > it.opened)
    with pytest.raises(ConnectionRefusedError):
        await server.raw()
    await client.send(frame(TEXT, b"here"))
    await listener.until(lambda it: it.data)


async def test_closes_all(server: Server) -> None:
    await server.start()
    gateway = server.gateway
    async with server.websocket() as good:
        silent, silent_listener = await server.open()
        shaking = await server.raw()
        await shaking.send(request()[:10])
        await server.until_accepted(3)
        closing = asyncio.create_task(gateway.close_all(CloseReason.SHUTDOWN, 0.3))
        with pytest.raises(ConnectionClosedError) as closed:
            await good.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert await silent.frame() == (CLOSE, close_payload(1012, CloseReason.SHUTDOWN.text))
        assert (await shaking.response())[0] == 503
        assert not closing.done()
        await closing
        assert gateway.connections_open == 0
        assert gateway.closed[CloseReason.SHUTDOWN] == 3
        assert silent_listener.lost == [CloseReason.SHUTDOWN]


async def test_closes_all_as_soon_as_the_last_is_gone(server: Server) -> None:
    await server.start()
    async with server.websocket():
        async with asyncio.timeout(10):
            await server.gateway.close_all(CloseReason.SHUTDOWN, 1000)
        assert server.listeners[0].lost == [CloseReason.SHUTDOWN]


async def test_closes_nothing(server: Server) -> None:
    await server.start()
    await server.gateway.close_all(CloseReason.SHUTDOWN, 1000)
