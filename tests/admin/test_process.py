"""The admin listener of a running bridge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge

TOKEN = "correct-horse-battery-staple"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
WAIT = 10.0


@pytest.fixture(scope="module")
def guarded() -> Iterator[Bridge]:
    """A bridge with a token, shared by all tests here: use names of your own."""
    process = Bridge(configs.memory())
    secret = process.folder / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    process.reconfigure(configs.memory('[admin]\ntoken_file = "token"\nhosts = ["admin.example"]'))
    try:
        process.start()
        process.wait_ready()
        yield process
        assert process.stop() == 0
        process.assert_clean_log()
        assert TOKEN not in process.log
    finally:
        process.remove()


@asynccontextmanager
async def asking(bridge: Bridge, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=bridge.admin_url, headers=headers, timeout=WAIT, trust_env=False) as client:
        yield client


async def until(client: httpx.AsyncClient, path: str, condition: Any) -> Any:
    """Asks until what comes fulfils the condition."""
    async with asyncio.timeout(WAIT):
        while True:
            answer = (await client.get(path)).json()
            if condition(answer):
                return answer


async def lines(stream: httpx.Response, count: int) -> list[dict[str, Any]]:
    """The next lines of a trace."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(WAIT):
        async for line in stream.aiter_lines():
            found.append(json.loads(line))
            if len(found) == count:
                break
    return found


async def test_sessions_are_found(guarded: Bridge, connect: Connect, name: str) -> None:
    named = await connect(guarded, {"accept-version": "1.2", "heart-beat": "0,20000", "client-id": name})
    other = await connect(guarded)
    await named.subscribe(f"/topic/{name}.a", ack="client")
    await other.send_and_wait(f"/topic/{name}.a", "x")
    await named.message("x")
    async with asking(guarded) as client:
        for search in (name.upper(), named.session, f"{name}.a"):
            answer = (await client.get("/sessions", params={"search": search})).json()
            assert answer["matched"] == 1
            assert answer["total"] >= 2
            [session] = answer["sessions"]
            assert session["id"] == named.session
            assert session["client_id"] == name
            assert session["heartbeat"] == "20000,0"
            assert session["protocol"] == "v12.stomp"
            assert session["unacked"] == session["messages_out"] == 1
            assert 0 < session["age"] < 600
            assert session["bytes_in"] > 100
            assert session["bytes_out"] > 100
            assert session["unsent"] == 0
        whole = (await client.get(f"/sessions/{named.session}")).json()
        [subscription] = whole["subscriptions"]
        assert subscription["unacked"] == 1
        status = (await client.get("/status")).json()
        assert status["sessions"]["open"] >= 2
        assert status["ready"]
        assert status["latency"]["publish"]["count"] > 0
        busiest = (await client.get("/destinations", params={"limit": 1000})).json()["destinations"]
        [row] = [row for row in busiest if row["destination"] == f"/topic/{name}.a"]
        assert row == {"destination": f"/topic/{name}.a", "subscribers": 1, "messages_in": 1, "messages_out": 1}


async def test_a_session_is_closed(guarded: Bridge, connect: Connect) -> None:
    kicked, other = await connect(guarded), await connect(guarded)
    async with asking(guarded) as client:
        path = f"/sessions/{kicked.session}/close"
        for headers, status in (({}, 401), ({"Authorization": "Bearer wrong-horse-battery-staple"}, 401)):
            assert (await client.post(path, headers=headers)).status_code == status
        await kicked.alive()
        answer = await client.post(path, headers=AUTHORIZATION)
        assert (answer.status_code, answer.json()) == (200, {"closed": kicked.session})
        assert await kicked.wait_closed() == 1008
        assert kicked.ws.close_reason == "closed by an operator"
        assert not kicked.pending
        await other.alive()
        answer = await until(
            client, "/closed", lambda answer: any(one["id"] == kicked.session for one in answer["closed"])
        )
        [closed] = [one for one in answer["closed"] if one["id"] == kicked.session]
        assert (closed["reason"], closed["detail"]) == ("kicked", "closed by an operator")
        assert (await client.post(path, headers=AUTHORIZATION)).status_code == 404
        await until(client, "/status", lambda answer: answer["sessions"]["closed"]["kicked"] >= 1)
    guarded.wait_log("session_kicked", session=kicked.session, by="127.0.0.1")


async def test_frames_are_traced(guarded: Bridge, connect: Connect, name: str) -> None:
    destination = f"/topic/{name}"
    reader = await connect(guarded)
    await reader.subscribe(destination)
    async with (
        asking(guarded, **AUTHORIZATION) as client,
        client.stream("GET", "/trace", params={"destination": destination, "bodies": "cut"}) as by_name,
        client.stream("GET", "/trace") as everything,
    ):
        assert by_name.headers["content-type"] == "application/x-ndjson"
        secret = "hunter2-and-more"
        login = {"accept-version": "1.2", "login": "bob", "passcode": secret, "Authorization": f"Bearer {secret}"}
        writer = await connect(guarded, login)
        await writer.send_and_wait(destination, "hello " * 100, x_api_token=secret)
        await reader.message()
        sent, got = await lines(by_name, 2)
        assert (sent["direction"], sent["command"], sent["session"]) == ("in", "SEND", writer.session)
        assert (got["direction"], got["command"], got["session"]) == ("out", "MESSAGE", reader.session)
        for frame in (sent, got):
            assert frame["headers"]["destination"] == destination
            assert frame["headers"]["x-api-token"] == "[hidden]"
            assert (frame["body_bytes"], frame["body"]) == (600, ("hello " * 100)[:256])
        shown = await lines(everything, 5)
        assert [(frame["direction"], frame["command"]) for frame in shown if frame["session"] == writer.session] == [
            ("in", "CONNECT"),
            ("out", "CONNECTED"),
            ("in", "SEND"),
            ("out", "RECEIPT"),
        ]
        assert shown[0]["headers"]["passcode"] == shown[0]["headers"]["Authorization"] == "[hidden]"
        assert all(frame["body"] is None for frame in shown)
        assert secret not in json.dumps([sent, got, *shown])
    # What was watched goes on.
    await writer.send_and_wait(destination, "again")
    await reader.message("again")


async def test_traces_end_with_those_who_look(guarded: Bridge) -> None:
    async with asking(guarded, **AUTHORIZATION) as client, asyncio.timeout(WAIT):
        served = 0
        while served < 6:
            # The end of those before is perhaps still under way.
            async with client.stream("GET", "/trace") as stream:
                assert stream.status_code in (200, 503)
                served += stream.status_code == 200


async def test_without_a_token_there_is_no_control(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = await asyncio.to_thread(start_bridge, configs.memory())
    session = (await connect(bridge)).session
    async with asking(bridge, **AUTHORIZATION) as client:
        for path in (f"/sessions/{session}/close", "/log-level", "/drain"):
            answer = await client.post(path)
            assert answer.status_code == 403
            assert "set admin.token_file" in answer.json()["error"]
        assert (await client.get("/trace")).status_code == 403
        assert (await client.get("/sessions")).json()["total"] == 1
        assert (await client.get("/whoami")).json()["token_configured"] is False


async def test_the_log_level_and_a_drain(start_bridge: StartBridge, connect: Connect) -> None:
    environ = {"STOMPBRIDGE_ADMIN__TOKEN": TOKEN}
    bridge = await asyncio.to_thread(start_bridge, configs.memory(), environ=environ)
    client_of_it = await connect(bridge)
    async with asking(bridge, **AUTHORIZATION) as client:
        answer = await client.post("/log-level", json={"level": "error"})
        assert answer.json() == {"level": "error", "was": "info"}
        answer = await client.post("/log-level", json={"level": "info"})
        assert answer.json() == {"level": "info", "was": "error"}
        answer = await client.post("/drain", json={"seconds": 0})
        assert answer.status_code == 202
        assert answer.json()["sessions"] == 1
        assert await client_of_it.wait_closed() == 1012
    assert await asyncio.to_thread(bridge.wait_ended) == 0
    # Nothing is told that was asked for while only errors were.
    assert [(one["now"], one["was"]) for one in bridge.events("log_level_set")] == [("info", "error")]


async def test_sites_of_others(guarded: Bridge) -> None:
    own = f"127.0.0.1:{guarded.admin_port}"
    async with asking(guarded) as client:
        for host, status in (("evil.example", 421), ("admin.example", 200), ("localhost:99", 200), (own, 200)):
            assert (await client.get("/sessions", headers={"Host": host})).status_code == status
        for origin, status in (("https://evil.example", 403), ("null", 403), (f"http://{own}", 200)):
            assert (await client.get("/sessions", headers={"Origin": origin})).status_code == status
        answer = await client.get("/livez", headers={"Host": "evil.example"})
        assert "admin.hosts" in answer.json()["error"]


async def test_the_page_is_served_whole(guarded: Bridge) -> None:
    async with asking(guarded) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert "<title>stompbridge" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await client.get("/page.js")).headers["content-type"].startswith("text/javascript")


async def test_the_65th_socket(guarded: Bridge) -> None:
    # Sockets of an earlier test may still be about to close, so that a few more than 64 find room.
    opened = [await asyncio.open_connection("127.0.0.1", guarded.admin_port) for _ in range(80)]
    reads = [asyncio.create_task(reader.read()) for reader, _ in opened]
    try:
        done, waiting = await asyncio.wait(reads, timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
        assert all(read.result().startswith(b"HTTP/1.1 503 ") for read in done)
        # One that was there before is still served.
        first = next(index for index, read in enumerate(reads) if read in waiting)
        opened[first][1].write(b"GET /livez HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(WAIT):
            assert (await reads[first]).endswith(b"\r\n\r\nok\n")
    finally:
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        for _, writer in opened:
            writer.transport.abort()
    async with asking(guarded) as client, asyncio.timeout(WAIT):
        while (await client.get("/livez")).status_code == 503:
            pass


async def test_bytes_that_are_no_request(guarded: Bridge) -> None:
    for data in (b"GET /status HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"\x00\xff\r\n\r\n", b"POST /drain\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", guarded.admin_port)
        for position in range(len(data)):
            writer.write(data[position : position + 1])
            await writer.drain()
        async with asyncio.timeout(WAIT):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
    async with asking(guarded, **AUTHORIZATION) as client:
        assert (await client.post("/log-level", content=b"x" * 65537)).status_code == 413
