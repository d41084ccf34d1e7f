"""stompman, which always names a host: over TCP and over its own WebSocket connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import stompman
from stompman.connection_ws import WebSocketConnection

from tests.support.bridge import Bridge
from tests.support.pump import Pump

WAIT = 10.0


@pytest.fixture(params=["tcp", "websocket"])
def client(request: pytest.FixtureRequest, bridge: Bridge, pump: Pump) -> stompman.Client:
    """A client that is not connected yet."""
    options: dict[str, Any] = {"on_error_frame": None}
    port, path = pump.port, None
    if request.param == "websocket":
        port, path = bridge.port, "ws"
        options["connection_class"] = WebSocketConnection
    server = stompman.ConnectionParameters("127.0.0.1", port, "guest", "guest", ws_uri_path=path)
    return stompman.Client([server], **options)


class Inbox:
    """A message handler that keeps what comes."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[stompman.AckableMessageFrame] = asyncio.Queue()

    async def __call__(self, frame: stompman.AckableMessageFrame) -> None:
        self._messages.put_nowait(frame)

    async def take(self) -> stompman.AckableMessageFrame:
        async with asyncio.timeout(WAIT):
            return await self._messages.get()

    @property
    def empty(self) -> bool:
        return self._messages.empty()


async def test_acknowledgements(client: stompman.Client, name: str) -> None:
    inbox, queue = Inbox(), f"/queue/{name}"
    async with client:
        subscription = await client.subscribe_with_manual_ack(queue, inbox, receipt_timeout=WAIT)
        for body in (b"one", b"two", "grüße".encode()):
            await client.send(body, queue, receipt_timeout=WAIT)
        first, second, third = [await inbox.take() for _ in range(3)]
        assert [frame.body.decode() for frame in (first, second, third)] == ["one", "two", "grüße"]
        await first.nack()
        again = await inbox.take()
        assert (again.body, again.headers["redelivered"]) == (b"one", "true")
        for frame in (again, second, third):
            await frame.ack()
        await subscription.unsubscribe()
    # All are acknowledged: the next client finds the queue empty.
    async with client_like(client) as other:
        subscription = await other.subscribe_with_manual_ack(queue, inbox, receipt_timeout=WAIT)
        await other.send(b"last", queue, receipt_timeout=WAIT)
        last = await inbox.take()
        assert last.body == b"last"
        await last.ack()
        await subscription.unsubscribe()


async def test_transactions(client: stompman.Client, name: str) -> None:
    inbox, queue = Inbox(), f"/queue/{name}"
    async with client:
        subscription = await client.subscribe_with_manual_ack(queue, inbox, receipt_timeout=WAIT)
        with pytest.raises(InterruptedError):
            await send_and_fail(client, queue)
        async with client.begin() as begun:
            await begun.send(b"inside", queue)
            await client.send(b"outside", queue, receipt_timeout=WAIT)
            outside = await inbox.take()
        inside = await inbox.take()
        assert (outside.body, inside.body) == (b"outside", b"inside")
        for frame in (outside, inside):
            await frame.ack()
        await subscription.unsubscribe()


async def test_topics_and_errors(client: stompman.Client, name: str) -> None:
    inbox = Inbox()
    async with client:
        subscription = await client.subscribe_with_manual_ack(
            f"/topic/{name}.*", inbox, ack="auto", receipt_timeout=WAIT
        )
        body = "Grüße 🎉".encode() * 10_000
        await client.send(body, f"/topic/{name}.a", headers={"own": "a:b\nc"}, receipt_timeout=WAIT)
        frame = await inbox.take()
        headers: dict[str, Any] = dict(frame.headers)
        assert (frame.body, headers["own"], headers["destination"]) == (body, "a:b\nc", f"/topic/{name}.a")
        await subscription.unsubscribe()
        await client.send(b"nobody listens", f"/topic/{name}.a", receipt_timeout=WAIT)
        assert inbox.empty
        with pytest.raises(stompman.SendReceiptError):
            await client.send(b"body", "/nonsense/x", receipt_timeout=WAIT)


async def send_and_fail(client: stompman.Client, queue: str) -> None:
    """A transaction that is aborted, since its block ends with an error."""
    async with client.begin() as aborted:
        await aborted.send(b"aborted", queue)
        raise InterruptedError


def client_like(client: stompman.Client) -> stompman.Client:
    """One more client with the same settings."""
    return stompman.Client(client.servers, connection_class=client.connection_class, on_error_frame=None)
