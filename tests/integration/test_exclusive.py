"""Exclusive queues belong to one session, although RabbitMQ sees one connection."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.kinds import Connect
from tests.support.stomp import Client, Frame

pytestmark = pytest.mark.usefixtures("bridge")


def locked(queue: str) -> str:
    return (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be "
        "originally declared on another connection or the exclusive property value does not match that of the "
        "original declaration."
    )


async def refused(client: Client, command: str, **headers: str) -> Frame:
    """The answer to a frame that ends the session."""
    await client.send_frame(command, receipt="fails", **headers)
    error = await client.error("resource_locked")
    assert error.headers["receipt-id"] == "fails"
    await client.wait_closed()
    return error


async def until_free(connect: Connect, queue: str) -> Client:
    """A session that has the queue to itself once it can be had."""
    async with asyncio.timeout(10):
        while True:
            client = await connect()
            await client.send_frame(
                "SUBSCRIBE", {"destination": f"/queue/{queue}", "id": "s0", "exclusive": "true", "receipt": "free"}
            )
            if (await client.receive()).command == "RECEIPT":
                return client
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "headers"),
    [
        ("SUBSCRIBE", {"destination": "/queue/", "id": "s0", "exclusive": "true"}),
        ("SUBSCRIBE", {"destination": "/queue/", "id": "s0"}),
        ("SUBSCRIBE", {"destination": "/amq/queue/", "id": "s0"}),
        ("SUBSCRIBE", {"destination": "/reply-queue/", "id": "s0"}),
        ("SEND", {"destination": "/queue/", "exclusive": "true"}),
        ("SEND", {"destination": "/queue/"}),
    ],
)
@pytest.mark.parametrize("made", ["SUBSCRIBE", "SEND"])
async def test_nobody_else(connect: Connect, name: str, made: str, command: str, headers: dict[str, str]) -> None:
    """Whoever declares or consumes it; what is sent without declaring it arrives."""
    owner, other, third = await connect(), await connect(), await connect()
    await owner.request(made, {"destination": f"/queue/{name}", "id": "s0", "exclusive": "true"})
    error = await refused(other, command, **(headers | {"destination": headers["destination"] + name}))
    assert error.text == locked(name)
    await third.send_and_wait(f"/amq/queue/{name}", "from another")
    if made == "SEND":
        await owner.subscribe(f"/queue/{name}")
        await owner.message("")
    await owner.message("from another")


async def test_the_owner_needs_no_further_words(connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/queue/{name}", durable="false")
    await client.send_and_wait(f"/queue/{name}", "1")
    await client.send_and_wait(f"/queue/{name}", "2", durable="true")
    assert [(await client.message()).text for _ in range(2)] == ["1", "2"]
    await client.subscribe(f"/queue/{name}", id="s1")
    await client.alive()


@pytest.mark.parametrize("auto_delete", ["true", "false"])
@pytest.mark.parametrize("made", ["SUBSCRIBE", "SEND"])
@pytest.mark.parametrize("end", ["disconnect", "abort"])
async def test_it_goes_with_its_session(connect: Connect, name: str, made: str, end: str, auto_delete: str) -> None:
    """What was in it, too."""
    owner = await connect()
    headers = {"destination": f"/queue/{name}", "id": "s0", "exclusive": "true", "auto-delete": auto_delete}
    await owner.request(made, headers, "first")
    await owner.send_and_wait(f"/queue/{name}", "left")
    if end == "disconnect":
        await owner.disconnect()
    else:
        owner.abort()
    heir = await until_free(connect, name)
    await heir.send_and_wait(f"/queue/{name}", "new")
    await heir.message("new")


async def test_an_auto_delete_queue_goes_with_its_last_subscription(connect: Connect, name: str) -> None:
    owner = await connect()
    for tag in ("s0", "s1"):
        await owner.subscribe(f"/queue/{name}", id=tag, durable="false")
    await owner.unsubscribe("s0")
    assert (await refused(await connect(), "SUBSCRIBE", destination=f"/queue/{name}", id="s")).text == locked(name)
    await owner.unsubscribe("s1")
    heir = await until_free(connect, name)
    await heir.send_and_wait(f"/queue/{name}", "x")
    await heir.message("x")
    await owner.alive()


async def test_a_queue_that_is_not_exclusive_stays_so(connect: Connect, name: str) -> None:
    """A session that wants a shared queue for itself alone ends, and nobody else."""
    one, other = await connect(), await connect()
    await one.subscribe(f"/queue/{name}", auto_delete="true")
    error = await refused(other, "SUBSCRIBE", destination=f"/queue/{name}", id="s0", exclusive="true")
    assert error.text == locked(name)
    two = await connect()
    await two.send_and_wait(f"/queue/{name}", "x", auto_delete="true")
    await one.message("x")


async def test_the_queue_of_a_subscription_to_an_exchange(connect: Connect, name: str) -> None:
    owner, other = await connect(), await connect()
    await owner.subscribe(f"/topic/{name}", exclusive="true", x_queue_name=name)
    headers = {"destination": f"/topic/{name}", "id": "s0", "x-queue-name": name}
    assert (await refused(other, "SUBSCRIBE", **headers)).text == locked(name)
    await owner.send_and_wait(f"/topic/{name}", "x")
    await owner.message("x")
