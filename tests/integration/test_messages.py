"""Headers and bodies from sender to receiver, on both brokers."""

from __future__ import annotations

import random

import pytest

from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.stomp import encode

BODIES = {
    "empty": b"",
    "text": b"hello",
    "utf8": "grüße, 你好, 🎉".encode(),
    "nuls": b"a\0b\0\0c",
    "only nul": b"\0",
    "binary": bytes(range(256)),
    "half a character": "é".encode()[:1],
    "newlines": b"\n\n\r\n",
    "looks like frames": b"MESSAGE\nid:1\n\nx\0SEND\n\n\0",
}


@pytest.mark.parametrize("kind", ["/topic/", "/queue/", "/exchange/chat.exchange/"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_bodies(bridge: Bridge, connect: Connect, name: str, kind: str, body: bytes) -> None:
    client = await connect()
    await client.subscribe(kind + name)
    await client.send(kind + name, body)
    frame = await client.message(body)
    try:
        body.decode()
    except UnicodeDecodeError:
        assert frame.binary
    else:
        assert not frame.binary
    assert frame.headers.get("content-length", "0") == str(len(body))


async def test_text_after_binary_is_text_again(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    for body in (b"\xff", b"text", b"\xfe\0", b"more"):
        await client.send(f"/topic/{name}", body)
    frames = await client.messages(4)
    assert [frame.binary for frame in frames] == [True, False, True, False]


async def test_body_without_content_length(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    await client.send_raw(encode("SEND", {"destination": f"/topic/{name}"}, "up to NUL", content_length=False))
    await client.message("up to NUL")


async def test_binary_websocket_messages(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    await client.ws.send(encode("SEND", {"destination": f"/topic/{name}"}, "text in binary"))
    frame = await client.message("text in binary")
    assert not frame.binary


@pytest.mark.parametrize("kind", ["/topic/", "/queue/"])
async def test_megabyte_bodies(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    sender, client = await connect(), await connect()
    await client.subscribe(kind + name)
    text = "x" * 1_048_576
    binary = random.Random(7).randbytes(1_048_576)
    for body in (text, binary, text, binary):
        await sender.send(kind + name, body)
    for body in (text, binary, text, binary):
        await client.message(body, within=20)


async def test_frame_in_pieces(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    frame = encode("SEND", {"destination": f"/topic/{name}"}, "é" * 20)
    for cut in range(len(frame)):
        await client.ws.send(frame[cut : cut + 1])
    await client.message("é" * 20)
    large = encode("SEND", {"destination": f"/topic/{name}"}, "y" * 50_000).decode()
    for start in range(0, len(large), 8192):
        await client.ws.send(large[start : start + 8192])
    await client.message("y" * 50_000)


async def test_fragmented_websocket_message(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    text = encode("SEND", {"destination": f"/topic/{name}"}, "fragments 🎉").decode()
    await client.ws.send([text[:10], text[10:30], text[30:]])
    await client.message("fragments 🎉")
    raw = text.encode()
    await client.ws.send([raw[:-3], raw[-3:-2], raw[-2:]])
    await client.message("fragments 🎉")


async def test_many_frames_in_a_message(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    frames = [encode("SEND", {"destination": f"/topic/{name}"}, str(number)) for number in range(500)]
    await client.send_raw(b"\n".join(frames) + b"\r\n\n")
    got = await client.messages(500)
    assert [int(frame.text) for frame in got] == list(range(500))


async def test_carriage_returns(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.send_raw(f"SUBSCRIBE\r\nid:a\r\ndestination:/topic/{name}\r\n\r\n\0\r\n")
    await client.send_raw(f"SEND\r\ndestination:/topic/{name}\r\nx:y\r\n\r\nbody\r\n\0")
    frame = await client.message("body\r\n", subscription="a")
    assert frame.headers["x"] == "y"


async def test_compression_is_not_needed(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect(compression="deflate")
    await client.subscribe(f"/topic/{name}")
    await client.send(f"/topic/{name}", "z" * 10_000)
    await client.message("z" * 10_000)


@pytest.mark.parametrize("kind", ["/topic/", "/queue/"])
async def test_headers_pass_through(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    client = await connect()
    await client.subscribe(kind + name)
    headers = {
        "own": "value",
        "colon:name": "a:b:c",
        "newline": "one\ntwo\r\nthree",
        "back\\slash": "\\n is no newline",
        "empty": "",
        "unicode": "ключ 🎉",
        "spaces": "  kept  ",
    }
    await client.send_frame("SEND", {"destination": kind + name} | headers, "x")
    frame = await client.message("x")
    assert {header: frame.headers.get(header) for header in headers} == headers
    assert len(frame.pairs) == len(frame.headers), "a header twice"


@pytest.mark.parametrize("kind", ["/topic/", "/queue/"])
async def test_properties_pass_through(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    client = await connect()
    await client.subscribe(kind + name)
    headers = {
        "content-type": "application/json",
        "content-encoding": "identity",
        "persistent": "true",
        "priority": "5",
        "correlation-id": "c1",
        "reply-to": "/queue/answers",
        "amqp-message-id": "m1",
        "timestamp": "1700000000",
        "type": "greeting",
        "app-id": "tests",
        "expiration": "60000",
    }
    await client.send_frame("SEND", {"destination": kind + name} | headers, "{}")
    frame = await client.message("{}")
    got = {header: frame.headers.get(header) for header in headers}
    assert got == headers


async def test_transport_headers_stay_here(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    await client.request("BEGIN", {"transaction": "t"})
    await client.send_frame("SEND", {"destination": f"/topic/{name}", "receipt": "r", "transaction": "t"}, "x")
    await client.send_frame("COMMIT", {"transaction": "t"})
    frames = [await client.receive(), await client.receive()]
    message = next(frame for frame in frames if frame.command == "MESSAGE")
    assert not {"receipt", "transaction"} & set(message.headers)
    assert not [header for header in message.headers if header.startswith("x-stompbridge")]


async def test_first_of_repeated_headers_counts(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    pairs = [("destination", f"/topic/{name}"), ("destination", "/topic/elsewhere"), ("own", "1"), ("own", "2")]
    await client.send_raw(encode("SEND", pairs, "x"))
    assert (await client.message("x")).headers["own"] == "1"


async def test_headers_that_the_server_sets_cannot_be_forged(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}", id="mine")
    forged = {"subscription": "other", "redelivered": "true", "ack": "1", "x-stompbridge-sender": "me"}
    await client.send_frame("SEND", {"destination": f"/topic/{name}"} | forged, "x")
    frame = await client.message("x", subscription="mine", redelivered="false")
    assert "ack" not in frame.headers
    assert "x-stompbridge-sender" not in frame.headers


async def test_versions_talk_to_each_other(bridge: Bridge, connect: Connect, name: str) -> None:
    clients = [await connect(headers={"accept-version": version}) for version in ("1.0", "1.1", "1.2")]
    for client in clients:
        await client.subscribe(f"/topic/{name}", id="s", ack="client")
    for number, sender in enumerate(clients):
        await sender.send_frame("SEND", {"destination": f"/topic/{name}", "own": "a:b\nc"}, str(number))
        for client in clients:
            frame = await client.message(str(number))
            assert frame.headers["own"] == "a:b\nc"
            assert ("ack" in frame.headers) == (client is clients[2])
