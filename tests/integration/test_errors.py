"""What a mistake is answered with: the texts that frontends were written against, and what stays open."""

from __future__ import annotations

import pytest

from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.stomp import encode

# destination, command, message, a part of the body
DESTINATIONS = [
    ("/foo/bar", "SEND", "Unknown destination", "'/foo/bar' is not a valid destination"),
    ("/foo/bar", "SUBSCRIBE", "Unknown destination", "'/foo/bar' is not a valid destination"),
    ("", "SEND", "Invalid destination", "Destination cannot be blank"),
    ("/queue/a/b", "SEND", "Invalid destination", "'/a/b' is not a valid queue destination"),
    ("/queue/", "SUBSCRIBE", "Invalid destination", "'/' is not a valid queue destination"),
    ("/queue", "SUBSCRIBE", "Invalid destination", "'' is not a valid queue destination"),
    ("/topic/a/b", "SUBSCRIBE", "Invalid destination", "'/a/b' is not a valid topic destination"),
    ("/exchange/amq.direct/a/b", "SEND", "Invalid destination", "'/amq.direct/a/b' is not a valid exchange"),
    ("/exchange//k", "SUBSCRIBE", "Invalid destination", "'//k' is not a valid exchange destination"),
    ("/temp-queue/x", "SUBSCRIBE", "Invalid destination", "'/temp-queue/x' is not a valid destination for 'SUBSCRIBE'"),
]


@pytest.mark.parametrize(("destination", "command", "message", "body"), DESTINATIONS)
async def test_destinations(
    bridge: Bridge, connect: Connect, destination: str, command: str, message: str, body: str
) -> None:
    client = await connect()
    await client.send_frame(command, {"destination": destination, "id": "x", "receipt": "r"})
    await client.error(message, body)
    await client.alive()


FRAMES = [
    ("FOO", {}, "Bad command", 'Could not interpret command "FOO"'),
    ("BEGIN", {}, "Missing transaction", "\"BEGIN\" must include a 'transaction' header"),
    ("COMMIT", {"transaction": "t9"}, "Bad transaction", 'Invalid transaction identifier: "t9"'),
    ("ABORT", {"transaction": "t9"}, "Bad transaction", 'Invalid transaction identifier: "t9"'),
    ("SEND", {"destination": "/topic/x", "transaction": "t9"}, "Bad transaction", 'identifier: "t9"'),
    ("SEND", {"destination": "/topic/x", "message-id": "1"}, "Invalid header", "'message-id' is not allowed on 'SEND'"),
    ("SEND", {"destination": "/topic/x", "priority": "high"}, "Processing error", ""),
    ("SUBSCRIBE", {"destination": "/topic/x", "id": "1", "ack": "maybe"}, "Processing error", ""),
    ("SUBSCRIBE", {"destination": "/topic/x", "durable": "true"}, "Missing Header", "Header 'id' is required"),
    ("UNSUBSCRIBE", {}, "Missing destination or id", "must include a 'destination' or 'id' header"),
    ("UNSUBSCRIBE", {"id": "x"}, "No subscription found", "Subscription to \"id='x'\" not found"),
    ("ACK", {}, "Missing header", '"ACK" must include the "id" header'),
    ("NACK", {}, "Missing header", '"NACK" must include the "id" header'),
    ("ACK", {"id": "nonsense"}, "Invalid header", '"ACK" must include a valid "id" header'),
    ("ACK", {"id": "T_s@@session-x@@nan"}, "Processing error", ""),
    ("ACK", {"id": "T_s@@session-x@@1"}, "Subscription not found", "has no subscription"),
]


@pytest.mark.parametrize(("command", "headers", "message", "body"), FRAMES)
async def test_frames(
    bridge: Bridge, connect: Connect, command: str, headers: dict[str, str], message: str, body: str
) -> None:
    client = await connect()
    await client.send_frame(command, headers)
    frame = await client.error(message, body)
    assert frame.headers["content-type"] == "text/plain"
    assert frame.headers["version"] == "1.0,1.1,1.2"
    await client.alive()


async def test_error_names_the_receipt(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.send_frame("SEND", {"destination": "/foo/bar", "receipt": "r1"})
    frame = await client.error("Unknown destination")
    assert frame.headers["receipt-id"] == "r1"
    await client.alive()


async def test_subscribe_only_and_send_only(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.send("/internal/healthcheck", "x")
    await client.error("Invalid destination")
    await client.send_frame("SUBSCRIBE", {"destination": "/app/message/7", "id": "a"})
    await client.error("Invalid destination")
    await client.alive()


@pytest.mark.parametrize("body", ["", "text", "[1]", "null", "7", '{"open":', b"\xff"])
async def test_application_bodies_have_to_be_objects(bridge: Bridge, connect: Connect, body: str | bytes) -> None:
    client = await connect()
    await client.send_frame("SEND", {"destination": "/app/message/7", "receipt": "r"}, body)
    frame = await client.expect("ERROR")
    assert frame.headers["receipt-id"] == "r"
    await client.alive()


@pytest.mark.parametrize("destination", ["/app/message/notanumber", "/app/other/7", "/app/message", "/app", "/app/"])
async def test_application_destinations(bridge: Bridge, connect: Connect, destination: str) -> None:
    client = await connect()
    await client.send(destination, "{}")
    await client.expect("ERROR")
    await client.alive()


async def test_subscription_id_in_use_ends_the_session(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}", id="same")
    await client.send_frame("SUBSCRIBE", {"destination": "/topic/other", "id": "same"})
    await client.error("Duplicated subscription identifier", "'T_same' already exists")
    await client.wait_closed()


@pytest.mark.parametrize("command", ["SEND", "SUBSCRIBE"])
async def test_unknown_exchange_ends_the_session(bridge: Bridge, connect: Connect, name: str, command: str) -> None:
    client = await connect()
    await client.send_frame(command, {"destination": f"/exchange/{name}/k", "id": "x", "receipt": "r"}, "x")
    await client.error("not_found", f"NOT_FOUND - no exchange '{name}' in vhost '/'")
    await client.wait_closed()
    assert not [frame for frame in client.pending if frame.command == "RECEIPT"]


async def test_unknown_queue_ends_the_session(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.send_frame("SUBSCRIBE", {"destination": f"/amq/queue/{name}", "id": "x"})
    await client.error("not_found", f"NOT_FOUND - no queue '{name}' in vhost '/'")
    await client.wait_closed()


@pytest.mark.parametrize("kind", ["/queue/", "/topic/"])
async def test_second_ack_ends_the_session(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    client = await connect()
    await client.subscribe(kind + name, ack="client-individual")
    await client.send(kind + name, "x")
    frame = await client.message("x")
    await client.acknowledge(frame)
    await client.send_frame("ACK", {"id": frame.ack})
    await client.error("precondition_failed", "PRECONDITION_FAILED - unknown delivery tag")
    await client.wait_closed()


async def test_ack_after_unsubscribe(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/queue/{name}", ack="client-individual")
    await client.send(f"/queue/{name}", "x")
    frame = await client.message("x")
    await client.unsubscribe()
    await client.send_frame("ACK", {"id": frame.ack})
    await client.error("Subscription not found", "has no subscription")
    await client.alive()


async def test_one_error_does_not_stop_what_follows(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    good = encode("SEND", {"destination": f"/topic/{name}"}, "good")
    await client.send_raw(good + encode("SEND", {"destination": "/foo/bar"}, "bad") + good)
    frames = [await client.receive() for _ in range(3)]
    assert sorted(frame.command for frame in frames) == ["ERROR", "MESSAGE", "MESSAGE"]
