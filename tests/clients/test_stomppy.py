"""stomp.py: its three protocol versions over TCP, and its own WebSocket transport."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
import stomp
from stomp.utils import Frame

from tests.support.bridge import Bridge
from tests.support.pump import Pump

WAIT = 10.0
Open = Callable[[], Any]
Got = tuple[str, str, str]
"""What of a message is compared: subscription, body, ``redelivered``."""


class Inbox(stomp.ConnectionListener):  # type: ignore[misc]
    """Collects what comes in, and waits for it."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Frame] = queue.Queue()
        self.errors: queue.Queue[Frame] = queue.Queue()
        self.disconnected = threading.Event()
        self._receipts: dict[str, threading.Event] = {}
        self._numbers = itertools.count(1)

    def receipt(self) -> str:
        """A new value of the ``receipt`` header."""
        identifier = f"receipt-{next(self._numbers)}"
        self._receipts[identifier] = threading.Event()
        return identifier

    def confirmed(self, identifier: str) -> None:
        assert self._receipts[identifier].wait(WAIT), f"no RECEIPT {identifier}, errors: {list(self.errors.queue)}"

    def message(self) -> Frame:
        return self.messages.get(timeout=WAIT)

    def on_message(self, frame: Frame) -> None:
        self.messages.put(frame)

    def on_error(self, frame: Frame) -> None:
        self.errors.put(frame)

    def on_receipt(self, frame: Frame) -> None:
        self._receipts[frame.headers["receipt-id"]].set()

    def on_disconnected(self) -> None:
        self.disconnected.set()


class Session:
    """One connection; each request is confirmed by a receipt."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.inbox = Inbox()
        connection.set_listener("inbox", self.inbox)
        connection.connect("guest", "guest", wait=True)

    def confirm(self, call: Callable[..., None], *arguments: str, **headers: str) -> None:
        receipt = self.inbox.receipt()
        call(*arguments, receipt=receipt, **headers)
        self.inbox.confirmed(receipt)

    def settle(self, frame: Frame, positive: bool = True, **headers: str) -> None:
        """ACK or NACK, as the connection's version has it; stomp.py has no NACK of 1.0, which RabbitMQ takes."""
        connection, names = self.connection, frame.headers
        if connection.version == "1.2":
            arguments = [names["ack"]]
        elif connection.version == "1.1":
            arguments = [names["message-id"], names["subscription"]]
        else:
            arguments = [names["message-id"]]
        if positive or connection.version != "1.0":
            self.confirm(connection.ack if positive else connection.nack, *arguments, **headers)
        else:
            receipt = self.inbox.receipt()
            connection.send_frame("NACK", {"message-id": arguments[0], "receipt": receipt})
            self.inbox.confirmed(receipt)


def summary(frame: Frame) -> Got:
    return frame.headers["subscription"], frame.body, frame.headers["redelivered"]


def go_round(connection: Any, name: str) -> None:
    """Everything that the client offers, in its own thread's way."""
    session = Session(connection)
    inbox, confirm = session.inbox, session.confirm
    work, topic = f"/queue/{name}", f"/topic/{name}.news"

    confirm(connection.subscribe, work, id="work", ack="client-individual")
    for body in ("one", "two", "grüße"):
        confirm(connection.send, work, body)
    first, second, third = (inbox.message() for _ in range(3))
    assert [summary(frame) for frame in (first, second, third)] == [
        ("work", "one", "false"),
        ("work", "two", "false"),
        ("work", "grüße", "false"),
    ]
    session.settle(first, positive=False)
    again = inbox.message()
    assert summary(again) == ("work", "one", "true")
    for frame in (again, second, third):
        session.settle(frame)

    aborted = connection.begin()
    connection.send(work, "aborted", transaction=aborted)
    confirm(connection.abort, aborted)
    begun = connection.begin()
    connection.send(work, "inside", transaction=begun)
    confirm(connection.send, work, "outside")
    outside = inbox.message()
    session.settle(outside, transaction=begun)
    confirm(connection.commit, begun)
    inside = inbox.message()
    assert [outside.body, inside.body] == ["outside", "inside"]
    session.settle(inside)

    confirm(connection.subscribe, f"/topic/{name}.*", id="news", ack="auto")
    confirm(connection.send, topic, "x" * 100_000, headers={"own": "a b"})
    news = inbox.message()
    assert (news.headers["destination"], news.headers["own"], len(news.body)) == (topic, "a b", 100_000)
    confirm(connection.unsubscribe, id="news")
    confirm(connection.send, topic, "nobody listens")
    connection.send("/nonsense/x", "body")
    assert inbox.errors.get(timeout=WAIT).headers["message"] == "Unknown destination"
    assert inbox.messages.empty()

    farewell = inbox.receipt()
    connection.disconnect(receipt=farewell)
    inbox.confirmed(farewell)
    assert inbox.disconnected.wait(WAIT)


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_over_tcp(version: str, pump: Pump, name: str) -> None:
    """1.1 and 1.2 name the host that they connect to, which is nobody's virtual host."""
    connection = getattr(stomp, f"StompConnection{version}")([("127.0.0.1", pump.port)])
    await asyncio.to_thread(go_round, connection, name)


@pytest.mark.parametrize("binary_mode", [False, True])
async def test_over_its_websocket(bridge: Bridge, binary_mode: bool, name: str) -> None:
    connection = stomp.WSStompConnection([("127.0.0.1", bridge.port)], ws_path="/ws", binary_mode=binary_mode)
    await asyncio.to_thread(go_round, connection, name)


async def test_heart_beats(pump: Pump, name: str) -> None:
    """It ends the connection itself when the server's do not come."""
    connection = stomp.StompConnection12([("127.0.0.1", pump.port)], heartbeats=(1000, 1000))
    beats = threading.Semaphore(0)
    timed_out = threading.Event()

    class Pulse(stomp.ConnectionListener):  # type: ignore[misc]
        def on_heartbeat(self) -> None:
            beats.release()

        def on_heartbeat_timeout(self) -> None:
            timed_out.set()

    def listen() -> None:
        connection.set_listener("pulse", Pulse())
        session = Session(connection)
        for _ in range(2):
            assert beats.acquire(timeout=WAIT)
        assert not timed_out.is_set()
        session.confirm(connection.send, f"/topic/{name}", "still here")
        connection.disconnect()

    await asyncio.to_thread(listen)
