"""Sockets that another process passes, and sockets that are closed while clients knock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from stompbridge.config import ConfigError, Settings
from stompbridge.lifecycle import process, sockets
from stompbridge.lifecycle.sockets import Passed, PassedSocketError, close_empty, passed, serve_passed
from tests.lifecycle.manager import Activated, listening
from tests.support.kinds import Connect


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, str]]]:
    """``descriptors(*sockets, names=...)`` is the environment in which they are passed to this process."""

    def environ(*opened: socket.socket, names: str = "") -> dict[str, str]:
        # One after the other, from a number on that is free.
        first = 100
        for index, sock in enumerate(opened):
            os.dup2(sock.detach(), first + index)
            made.append(first + index)
        monkeypatch.setattr(sockets, "_FIRST", first)
        kept = {"LISTEN_FDS": str(len(opened)), "LISTEN_PID": str(os.getpid()), "OTHER": "x"}
        return kept | ({"LISTEN_FDNAMES": names} if names else {})

    made: list[int] = []
    yield environ
    for number in made:
        with contextlib.suppress(OSError):
            os.close(number)


def close(found: Passed) -> None:
    for sock in (*found.listen, *found.admin):
        sock.close()


@pytest.mark.parametrize(
    ("names", "where"), [("", "listen"), ("listen", "listen"), ("stompbridge.socket", "listen"), ("admin", "admin")]
)
def test_a_socket_goes_where_its_name_says(descriptors: Callable[..., dict[str, str]], names: str, where: str) -> None:
    sock = listening()
    port = sock.getsockname()[1]
    environ = descriptors(sock, names=names)
    found = passed(environ)
    [opened] = getattr(found, where)
    assert opened.getsockname()[1] == port
    assert not opened.get_inheritable()
    assert not opened.getblocking()
    assert len(found.listen) + len(found.admin) == 1
    # No child of this process shall take them for its own.
    assert environ == {"OTHER": "x"}
    close(found)


def test_several_sockets(descriptors: Callable[..., dict[str, str]]) -> None:
    found = passed(descriptors(listening(), listening(), listening(), names="listen:admin:listen"))
    assert (len(found.listen), len(found.admin)) == (2, 1)
    close(found)


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "x", "LISTEN_PID": "1"}]
)
def test_sockets_of_others_are_left_alone(environ: dict[str, str]) -> None:
    assert passed(dict(environ)) == Passed()


def test_what_cannot_be_served_is_refused(descriptors: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "local"))
    local.listen()
    for sock, names, text in (
        (bound, "", "does not listen"),
        (local, "", "is not TCP"),
        (listening(), "metrics", "FileDescriptorName= must be listen or admin"),
    ):
        with pytest.raises(PassedSocketError, match=text):
            passed(descriptors(sock, names=names))
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    reader, writer = os.pipe()
    try:
        os.dup2(reader, 100)
        with pytest.raises(PassedSocketError, match="descriptor 100, passed as listen, is no socket"):
            passed(environ)
    finally:
        os.close(reader)
        os.close(writer)


def test_an_open_address_needs_what_a_configured_one_needs() -> None:
    with listening(host="0.0.0.0") as sock, pytest.raises(ConfigError) as error:
        process.adopt(Settings(), Passed(listen=(sock,)))
    assert "the socket passed as listen listens on 0.0.0.0:" in str(error.value)
    assert "nothing authenticates clients" in str(error.value)
    with listening() as sock, listening() as admin:
        settings = process.adopt(Settings(), Passed(listen=(sock,), admin=(admin,)))
        assert (settings.listen.port, settings.admin.port) == (sock.getsockname()[1], admin.getsockname()[1])
    assert process.adopt(Settings(), Passed()) == Settings()


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


def knock(port: int, count: int) -> list[socket.socket]:
    """Connections that the kernel has made, and nobody has accepted."""
    return [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]


async def greeted(clients: list[socket.socket]) -> int:
    count = 0
    for client in clients:
        with client, contextlib.suppress(ConnectionResetError):
            count += await asyncio.to_thread(client.recv, 5) == b"hello"
    return count


async def test_who_waits_to_be_accepted_is_served() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Greeter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clients = knock(port, 20)
    assert await close_empty([server], Greeter) == 20
    with pytest.raises(ConnectionRefusedError):
        knock(port, 1)
    assert await greeted(clients) == 20


async def test_who_waits_at_a_passed_socket_waits_for_the_next_process() -> None:
    loop = asyncio.get_running_loop()
    with listening() as kept:
        [server] = await serve_passed(Greeter, [kept.dup()], 100)
        first = knock(kept.getsockname()[1], 1)
        assert await greeted(first) == 1
        server.close()
        await asyncio.sleep(0)
        clients = knock(kept.getsockname()[1], 20)
        server = await loop.create_server(Greeter, sock=kept.dup())
        assert await greeted(clients) == 20
        server.close()


async def test_a_bridge_serves_what_it_is_passed(connect: Connect) -> None:
    with listening() as sock, listening() as admin:
        bridge = Activated("", [sock, admin], "listen:admin")
        bridge.admin_port = admin.getsockname()[1]
        try:
            await asyncio.to_thread(bridge.start)
            assert bridge.get("/livez")[0] == 200
            client = await connect(bridge)
            await client.subscribe("/topic/a")
            await client.send("/topic/a", "x")
            await client.message("x")
            assert await asyncio.to_thread(bridge.stop) == 0
            bridge.assert_clean_log()
        finally:
            bridge.remove()
        # It has gone, and connections wait for the next one.
        [waiting] = knock(bridge.port, 1)
        waiting.close()


def test_a_bridge_does_not_serve_what_it_must_not() -> None:
    with listening(host="0.0.0.0") as sock:
        bridge = Activated("", [sock])
        try:
            bridge.spawn()
            assert bridge.wait_ended() == 2
            assert "nothing authenticates clients" in bridge.log
            bridge.assert_clean_log()
        finally:
            bridge.remove()
