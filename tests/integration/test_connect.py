"""From the WebSocket to CONNECTED, and heart-beats."""

from __future__ import annotations

import asyncio
import itertools
import re
import time

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.stomp import encode, open_client


async def test_connects_as_the_page_does(bridge: Bridge, connect: Connect) -> None:
    client = await connect(
        headers={"accept-version": "1.2,1.1,1.0", "heart-beat": "20000,20000"},
    )
    assert client.connected is not None
    headers = client.connected.headers
    assert headers["version"] == "1.2"
    assert headers["heart-beat"] == "20000,20000"
    assert re.fullmatch(r"\S+", headers["session"])
    assert headers["server"]
    await client.alive()
    await client.silent(0.2)  # no second CONNECTED


async def test_sessions_differ(bridge: Bridge, connect: Connect) -> None:
    first, second = await connect(), await connect()
    assert first.session != second.session


@pytest.mark.parametrize(
    ("accepted", "version"),
    [
        ("1.0", "1.0"),
        ("1.1", "1.1"),
        ("1.2", "1.2"),
        ("1.0,1.1", "1.1"),
        ("1.2,1.1,1.0", "1.2"),
        ("1.1,9.9", "1.1"),
        (None, "1.0"),
    ],
)
async def test_negotiates_the_version(bridge: Bridge, connect: Connect, accepted: str | None, version: str) -> None:
    client = await connect(connected=False)
    frame = await client.connect({"accept-version": accepted} if accepted else {})
    assert frame.headers["version"] == version
    await client.alive()


async def test_no_common_version(bridge: Bridge, connect: Connect) -> None:
    client = await connect(connected=False)
    await client.send_frame("CONNECT", {"accept-version": "2.0"})
    await client.error("Version mismatch", "Supported versions are 1.0,1.1,1.2")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v12.stomp", "v11.stomp", "v10.stomp"], "v12.stomp"),
        (["v10.stomp", "v11.stomp"], "v11.stomp"),
        (["v10.stomp"], "v10.stomp"),
        (["mqtt"], None),
        ([], None),
    ],
)
async def test_negotiates_the_sub_protocol(
    bridge: Bridge, connect: Connect, offered: list[str], chosen: str | None
) -> None:
    client = await connect(connected=False, subprotocols=offered)
    assert client.ws.subprotocol == chosen
    await client.connect()
    await client.alive()


async def test_login_and_host_do_not_matter_without_authentication(bridge: Bridge, connect: Connect) -> None:
    client = await connect(
        headers={
            "accept-version": "1.2",
            "host": "chat.example",
            "login": "somebody",
            "passcode": "else",
        }
    )
    await client.alive()


async def test_stomp_command(bridge: Bridge, connect: Connect) -> None:
    client = await connect(connected=False)
    await client.connect({"accept-version": "1.2"}, command="STOMP")
    await client.alive()


async def test_second_connect_ends_the_session(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.send_frame("CONNECT", {"accept-version": "1.2"})
    await client.expect("ERROR")
    await client.wait_closed()


async def test_frame_before_connect(bridge: Bridge, connect: Connect) -> None:
    client = await connect(connected=False)
    await client.send("/topic/x", "early")
    await client.error("Illegal command", "You must log in using CONNECT first")


async def test_path_with_query_and_slash(bridge: Bridge) -> None:
    for suffix in ("/", "?token=1", "/?a=b"):
        client = await open_client(bridge.url + suffix)
        await client.connect()
        await client.disconnect()


async def test_other_paths_are_not_found(bridge: Bridge) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await open_client(bridge.url + "x")
    assert refused.value.response.status_code == 404


async def test_disconnect_receipt_comes_last(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    sends = [encode("SEND", {"destination": f"/topic/{name}", "receipt": f"s{n}"}, str(n)) for n in range(20)]
    await client.send_raw(b"".join(sends) + encode("DISCONNECT", {"receipt": "bye"}))
    code = await client.wait_closed()
    assert code == 1000
    receipts = [frame.headers["receipt-id"] for frame in client.pending if frame.command == "RECEIPT"]
    assert receipts == [*(f"s{n}" for n in range(20)), "bye"]


async def test_disconnect_without_receipt(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.send_frame("DISCONNECT")
    assert await client.wait_closed() == 1000


async def test_frames_after_disconnect_do_nothing(bridge: Bridge, connect: Connect, name: str) -> None:
    watcher, client = await connect(), await connect()
    await watcher.subscribe(f"/topic/{name}")
    await client.send_raw(encode("DISCONNECT") + encode("SEND", {"destination": f"/topic/{name}"}, "late"))
    await client.wait_closed()
    await watcher.send(f"/topic/{name}", "after")
    await watcher.message("after")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("0,0", "0,0"),
        ("500,500", "1000,1000"),
        ("1500,2999", "2000,1000"),
        ("0,5000", "5000,0"),
        ("20000,20000", "20000,20000"),
    ],
)
async def test_negotiates_heart_beats(bridge: Bridge, connect: Connect, asked: str, answer: str) -> None:
    client = await connect(headers={"accept-version": "1.2", "heart-beat": asked})
    assert client.connected is not None
    assert client.connected.headers["heart-beat"] == answer


async def test_server_beats(bridge: Bridge, connect: Connect) -> None:
    client = await connect(headers={"accept-version": "1.2", "heart-beat": "0,1000"})
    start = time.monotonic()
    await client.silent(2.6)
    times = [start, *client.beats]
    assert len(times) >= 2
    assert max(after - before for before, after in itertools.pairwise(times)) < 1.5


async def test_client_without_beats_is_closed(bridge: Bridge, connect: Connect, name: str) -> None:
    quiet = await connect(headers={"accept-version": "1.2", "heart-beat": "1000,0"})
    other = await connect()
    await other.subscribe(f"/topic/{name}")
    start = time.monotonic()
    await quiet.wait_closed(6)
    assert 1.9 < time.monotonic() - start < 4.5
    await other.send(f"/topic/{name}", "still here")
    await other.message("still here")


async def test_client_with_beats_stays(bridge: Bridge, connect: Connect) -> None:
    client = await connect(headers={"accept-version": "1.2", "heart-beat": "1000,0"})
    for _ in range(7):
        await client.send_raw("\n")
        await asyncio.sleep(0.5)
    await client.alive()


async def test_client_without_heart_beats_stays(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.silent(2.5)
    await client.alive()


@pytest.mark.parametrize("value", ["garbage", "1000"])
async def test_bad_heart_beat_header(bridge: Bridge, connect: Connect, value: str) -> None:
    client = await connect(connected=False)
    await client.send_frame("CONNECT", {"accept-version": "1.2", "heart-beat": value})
    await client.error("Processing error")
