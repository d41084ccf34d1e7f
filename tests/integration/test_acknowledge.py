"""Acknowledgements, receipts and transactions, on both brokers."""

from __future__ import annotations

import pytest

from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.stomp import encode

EVERYWHERE = ["/queue/", "/topic/", "/exchange/chat.exchange/"]


async def test_auto_needs_no_ack(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/queue/{name}")
    await client.send(f"/queue/{name}", "x")
    await client.message("x")
    await client.alive()
    client.abort()
    other = await connect()
    await other.subscribe(f"/queue/{name}")
    await other.send(f"/queue/{name}", "y")
    await other.message("y")


@pytest.mark.parametrize("kind", EVERYWHERE)
@pytest.mark.parametrize("mode", ["client", "client-individual"])
async def test_ack(bridge: Bridge, connect: Connect, name: str, kind: str, mode: str) -> None:
    client = await connect()
    await client.subscribe(kind + name, ack=mode)
    for number in range(3):
        await client.send(kind + name, str(number))
    for number in range(3):
        frame = await client.message(str(number))
        assert frame.headers["ack"]
        await client.acknowledge(frame)
    await client.alive()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_ack_by_message_id(bridge: Bridge, connect: Connect, name: str, version: str) -> None:
    client = await connect(headers={"accept-version": version})
    await client.subscribe(f"/queue/{name}", ack="client-individual")
    await client.send(f"/queue/{name}", "x")
    frame = await client.message("x")
    headers = {"message-id": frame.headers["message-id"], "subscription": "s0"}
    await client.request("ACK", headers)
    client.abort()
    other = await connect()
    await other.subscribe(f"/queue/{name}")
    await other.send(f"/queue/{name}", "next")
    await other.message("next")


async def test_client_mode_is_cumulative(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/queue/{name}", ack="client")
    for number in range(5):
        await client.send(f"/queue/{name}", str(number))
    frames = await client.messages(5)
    await client.acknowledge(frames[2])
    client.abort()
    other = await connect()
    await other.subscribe(f"/queue/{name}")
    await other.message("3", redelivered="true")
    await other.message("4", redelivered="true")
    await other.send(f"/queue/{name}", "end")
    await other.message("end")


async def test_client_individual_is_not(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/queue/{name}", ack="client-individual")
    for number in range(4):
        await client.send(f"/queue/{name}", str(number))
    frames = await client.messages(4)
    await client.acknowledge(frames[1])
    await client.acknowledge(frames[3])
    client.abort()
    other = await connect()
    await other.subscribe(f"/queue/{name}")
    await other.message("0", redelivered="true")
    await other.message("2", redelivered="true")
    await other.send(f"/queue/{name}", "end")
    await other.message("end")


async def test_unacknowledged_goes_to_another_client(bridge: Bridge, connect: Connect, name: str) -> None:
    first, second = await connect(), await connect()
    await first.subscribe(f"/queue/{name}", ack="client")
    await first.send(f"/queue/{name}", "precious")
    await first.message("precious", redelivered="false")
    await second.subscribe(f"/queue/{name}", ack="client")
    first.abort()
    await second.acknowledge(await second.message("precious", redelivered="true"))


@pytest.mark.parametrize("farewell", ["DISCONNECT", "UNSUBSCRIBE", "close"])
async def test_unacknowledged_goes_back(bridge: Bridge, connect: Connect, name: str, farewell: str) -> None:
    first, second = await connect(), await connect()
    await first.subscribe(f"/queue/{name}", ack="client-individual")
    await first.send(f"/queue/{name}", "precious")
    await first.message("precious")
    if farewell == "close":
        await first.close()
    else:
        await first.send_frame(farewell, {"id": "s0"})
    await second.subscribe(f"/queue/{name}", ack="client-individual")
    await second.acknowledge(await second.message("precious", redelivered="true"))


@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_nack_delivers_again(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    client = await connect()
    await client.subscribe(kind + name, ack="client-individual")
    await client.send(kind + name, "again")
    frame = await client.message("again", redelivered="false")
    for _ in range(3):
        await client.acknowledge(frame, "NACK")
        frame = await client.message("again", redelivered="true")
    await client.acknowledge(frame)
    await client.send(kind + name, "next")
    await client.message("next")


@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_nack_can_drop(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    client = await connect()
    await client.subscribe(kind + name, ack="client-individual")
    await client.send(kind + name, "drop")
    await client.acknowledge(await client.message("drop"), "NACK", requeue="false")
    await client.send(kind + name, "next")
    await client.message("next")


async def test_nack_reaches_whoever_is_free(bridge: Bridge, connect: Connect, name: str) -> None:
    first, second = await connect(), await connect()
    await first.subscribe(f"/queue/{name}", ack="client-individual")
    await first.send(f"/queue/{name}", "hot potato")
    frame = await first.message("hot potato")
    await second.subscribe(f"/queue/{name}", ack="client-individual")
    await first.send_frame("NACK", {"id": frame.ack})
    await first.unsubscribe()
    frame = await second.message("hot potato", redelivered="true", within=5)
    await second.acknowledge(frame)


@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_prefetch(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    client = await connect()
    await client.subscribe(kind + name, ack="client-individual", prefetch_count="2")
    for number in range(5):
        await client.send_and_wait(kind + name, str(number))
    first, second = await client.messages(2)
    await client.silent(0.3)
    await client.acknowledge(second)
    third = await client.message("2")
    await client.acknowledge(first)
    fourth = await client.message("3")
    for frame in (third, fourth):
        await client.acknowledge(frame)
    await client.message("4")


async def test_receipt_of_a_send_follows_the_broker(bridge: Bridge, connect: Connect, name: str) -> None:
    sender, client = await connect(), await connect()
    await sender.send_and_wait(f"/queue/{name}", "stored")
    await client.subscribe(f"/queue/{name}")
    await client.message("stored")


async def test_receipts_come_for_every_command(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.request("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "s", "ack": "client"})
    await client.request("SEND", {"destination": f"/queue/{name}"}, "a")
    await client.request("SEND", {"destination": f"/queue/{name}"}, "b")
    first, second = await client.messages(2)
    await client.request("ACK", {"id": first.ack})
    await client.request("NACK", {"id": second.ack, "requeue": "false"})
    await client.request("BEGIN", {"transaction": "t"})
    await client.request("COMMIT", {"transaction": "t"})
    await client.request("BEGIN", {"transaction": "t"})
    await client.request("ABORT", {"transaction": "t"})
    await client.request("UNSUBSCRIBE", {"id": "s"})


async def test_receipt_id_is_escaped(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.send_frame("SEND", {"destination": f"/topic/{name}", "receipt": "a:b\n\\c"})
    await client.expect("RECEIPT", receipt_id="a:b\n\\c")


async def test_receipts_keep_their_order(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    frames = [encode("SEND", {"destination": f"/topic/{name}", "receipt": str(n)}, "x") for n in range(100)]
    await client.send_raw(b"".join(frames))
    receipts = [(await client.expect("RECEIPT")).headers["receipt-id"] for _ in range(100)]
    assert receipts == [str(n) for n in range(100)]


async def test_transaction_commits(bridge: Bridge, connect: Connect, name: str) -> None:
    sender, client = await connect(), await connect()
    await client.subscribe(f"/topic/{name}")
    await sender.request("BEGIN", {"transaction": "t 1"})
    for number in range(200):
        await sender.send(f"/topic/{name}", str(number), transaction="t 1")
    await sender.send_and_wait(f"/topic/{name}", "outside")
    await client.message("outside")
    await sender.request("COMMIT", {"transaction": "t 1"})
    got = await client.messages(200)
    assert [int(frame.text) for frame in got] == list(range(200))


async def test_transaction_aborts(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    await client.request("BEGIN", {"transaction": "t"})
    await client.send(f"/topic/{name}", "never", transaction="t")
    await client.request("ABORT", {"transaction": "t"})
    await client.send(f"/topic/{name}", "after")
    await client.message("after")
    await client.send_frame("COMMIT", {"transaction": "t"})
    await client.error("Bad transaction", 'Invalid transaction identifier: "t"')


async def test_transaction_dies_with_its_client(bridge: Bridge, connect: Connect, name: str) -> None:
    sender, client = await connect(), await connect()
    await client.subscribe(f"/topic/{name}")
    await sender.request("BEGIN", {"transaction": "t"})
    await sender.send(f"/topic/{name}", "never", transaction="t")
    await sender.disconnect()
    await client.send(f"/topic/{name}", "after")
    await client.message("after")


@pytest.mark.parametrize("end", ["COMMIT", "ABORT"])
async def test_ack_in_a_transaction(bridge: Bridge, connect: Connect, name: str, end: str) -> None:
    client = await connect()
    await client.subscribe(f"/queue/{name}", ack="client-individual")
    await client.send(f"/queue/{name}", "x")
    frame = await client.message("x")
    await client.request("BEGIN", {"transaction": "t"})
    await client.acknowledge(frame, transaction="t")
    await client.request(end, {"transaction": "t"})
    client.abort()
    other = await connect()
    await other.subscribe(f"/queue/{name}")
    if end == "ABORT":
        await other.message("x", redelivered="true")
    await other.send(f"/queue/{name}", "end")
    await other.message("end")
