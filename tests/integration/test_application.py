"""Application destinations: JSON stamped and published, on both brokers."""

from __future__ import annotations

import json
import re

from tests.support.bridge import Bridge
from tests.support.kinds import Connect


async def test_stamps(bridge: Bridge, connect: Connect) -> None:
    sender, reader = await connect(), await connect()
    await reader.subscribe("/exchange/chat.exchange/roomId.31", ack="client")
    body = '{"senderName": "Zoë", "message": "hi \\u00e9", "nested": {"a": [1.0, 1e3, 12345678901234567890]}}'
    await sender.send_and_wait("/app/message/31", body)
    frame = await reader.message()
    assert frame.headers["destination"] == "/exchange/chat.exchange/roomId.31"
    assert frame.headers["persistent"] == "true"
    got = json.loads(frame.body)
    assert got["senderName"] == "Zoë"
    assert got["message"] == "hi é"
    assert '"nested":{"a": [1.0, 1e3, 12345678901234567890]}' in frame.text
    assert got["roomId"] == 31
    assert type(got["roomId"]) is int
    assert got["senderSessionId"] == sender.session
    assert type(got["seq"]) is int
    assert 2**53 < got["seq"] < 2**63
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got["createdAt"])
    await reader.acknowledge(frame)


async def test_stamps_win_over_the_client(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.subscribe("/exchange/chat.exchange/roomId.32")
    forged = {"roomId": 1, "senderSessionId": "somebody", "seq": -1, "createdAt": "never", "message": "x"}
    await client.send("/app/message/32", json.dumps(forged))
    got = json.loads((await client.message()).body)
    assert got["roomId"] == 32
    assert got["senderSessionId"] == client.session
    assert got["seq"] > 0
    assert got["createdAt"] != "never"
    assert got["message"] == "x"


async def test_numbers_rise_over_all_senders(bridge: Bridge, connect: Connect) -> None:
    reader, first, second = await connect(), await connect(), await connect()
    await reader.subscribe("/exchange/chat.exchange/roomId.33")
    for number in range(100):
        await (first, second)[number % 2].send_and_wait("/app/message/33", json.dumps({"n": number}))
    bodies = [json.loads(frame.body) for frame in await reader.messages(100)]
    assert [body["n"] for body in bodies] == list(range(100))
    numbers = [body["seq"] for body in bodies]
    assert numbers == sorted(set(numbers))


async def test_transaction_of_application_messages(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.subscribe("/exchange/chat.exchange/roomId.34")
    await client.request("BEGIN", {"transaction": "t"})
    for number in range(3):
        await client.send("/app/message/34", json.dumps({"n": number}), transaction="t")
    await client.request("COMMIT", {"transaction": "t"})
    assert [json.loads(frame.body)["n"] for frame in await client.messages(3)] == [0, 1, 2]
