"""Start, stop and state of the process."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import configs
from tests.support.bridge import ROOT, Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.stomp import connect as open_connected


def test_says_where_it_listens(start_bridge: StartBridge) -> None:
    bridge = start_bridge()
    record = bridge.wait_log("listening")
    assert record["url"] == bridge.url
    assert record["admin"] == bridge.admin_url
    assert len(bridge.events("listening")) == 1


async def test_defaults_serve_the_embedded_broker(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge()
    client = await connect(bridge)
    await client.subscribe("/topic/a", id="t")
    await client.subscribe("/queue/a", id="q")
    for kind in ("/topic/a", "/queue/a"):
        await client.send(kind, kind)
        await client.message(kind)


async def test_session_in_the_log(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge()
    client = await connect(bridge)
    session = client.session
    await client.subscribe("/topic/a")
    for _ in range(3):
        await client.send("/topic/a", "x")
        await client.message("x")
    await client.disconnect()
    opened = await asyncio.to_thread(bridge.wait_log, "session_opened", session=session)
    closed = await asyncio.to_thread(bridge.wait_log, "session_closed", session=session)
    assert opened["remote"].startswith("127.0.0.1:")
    assert closed["reason"] == "client_disconnect"
    assert closed["messages_in"] == 3
    assert closed["messages_out"] == 3
    assert closed["seconds"] >= 0
    vanishing = await connect(bridge)
    vanishing.abort()
    await asyncio.to_thread(bridge.wait_log, "session_closed", session=vanishing.session, reason="client_lost")


def test_health(start_bridge: StartBridge) -> None:
    bridge = start_bridge()
    assert bridge.get("/livez")[0] == 200
    body = bridge.wait_ready()
    assert "[+]broker ok" in body
    assert bridge.get("/nothing")[0] == 404


async def test_healthcheck_succeeds(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.subscribe("/internal/healthcheck", id="health")
    frame = await client.message(subscription="health", destination="/internal/healthcheck")
    assert json.loads(frame.body) == {"status": "SUCCESS", "message": "HEALTH CHECK TO healthcheck.exchange.1"}


async def test_stops_in_order(start_bridge: StartBridge) -> None:
    bridge = start_bridge(configs.memory())
    clients = [await open_connected(bridge.url) for _ in range(5)]
    for number, client in enumerate(clients):
        await client.subscribe("/topic/a")
        await client.send_frame("SEND", {"destination": "/queue/a", "receipt": f"last{number}"}, "x")
        await client.receipt(f"last{number}")
    stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
    for client in clients:
        assert await client.wait_closed() == 1012
    assert await stopping == 0
    assert len(bridge.events("session_closed")) == 5
    assert {record["reason"] for record in bridge.events("session_closed")} == {"shutdown"}


def test_ports_in_use(start_bridge: StartBridge) -> None:
    running = start_bridge()
    for variable in ("STOMPBRIDGE_LISTEN__PORT", "STOMPBRIDGE_ADMIN__PORT"):
        port = running.port if "LISTEN" in variable else running.admin_port
        second = Bridge(environ={variable: str(port)})
        try:
            second.spawn()
            assert second.wait_ended() == 1
            assert f"127.0.0.1:{port}" in second.log
            assert "Traceback" not in second.log
        finally:
            second.remove()
    assert running.get("/livez")[0] == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[listen\nport = 1", "stompbridge.toml"),
        ("[listen]\nprot = 9000", "port"),
        ('[listen]\nport = "many"', "listen.port"),
        ('[limits]\nsend_timeout = "5 parsecs"', "limits.send_timeout"),
        ('[broker]\nkind = "kafka"', "broker.kind"),
        ('[[app.route]]\ndestination = "/app/x/{a"\nexchange = "e"\nrouting_key = "k"', "route"),
    ],
)
def test_bad_configuration(text: str, said: str) -> None:
    bridge = Bridge(text)
    try:
        code, output = run_serve(bridge.config)
        assert code == 2, output
        assert said in output
        assert "Traceback" not in output
    finally:
        bridge.remove()


def run_serve(config: Path) -> tuple[int, str]:
    """Run ``stompbridge serve`` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "stompbridge", "serve", "--config", str(config)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", ["missing", "folder", "bytes"])
def test_unreadable_configuration(tmp_path: Path, kind: str) -> None:
    config = tmp_path / "bridge.toml"
    if kind == "folder":
        config.mkdir()
    elif kind == "bytes":
        config.write_bytes(b"\xff\xfe\x00")
    code, output = run_serve(config)
    assert code == 2
    assert "bridge.toml" in output
    assert "Traceback" not in output


def test_open_to_the_world_only_when_told() -> None:
    bridge = Bridge('[listen]\nhost = "0.0.0.0"')
    try:
        code, output = run_serve(bridge.config)
        assert code == 2
        assert "insecure" in output
        assert "Traceback" not in output
    finally:
        bridge.remove()


async def test_admin_port_survives_nonsense(start_bridge: StartBridge) -> None:
    bridge = start_bridge()
    for data in (b"\0\xff\0\n\n", b"GET\r\n\r\n", b"POST /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 100_000):
        with socket.create_connection(("127.0.0.1", bridge.admin_port), timeout=5) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    assert bridge.get("/livez")[0] == 200
