from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stompbridge.brokers.base import Failure
from stompbridge.config import Limits, Settings
from stompbridge.gateway.client import Client
from tests.gateway.world import Connection, World, frame


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(Settings(limits=Limits(subscriptions=2)))
    await world.broker.start(world)  # type: ignore[arg-type]
    yield world
    await world.broker.stop()


async def settle() -> None:
    """Lets the embedded broker hand out what it has."""
    for _ in range(5):
        await asyncio.sleep(0)


def ask(client: Client, text: str = "question", name: str = "foo", **more: object) -> None:
    client.on_data(frame("SEND", text, destination="/exchange/chat/k", reply_to=f"/temp-queue/{name}", **more))


def service(world: World) -> tuple[Client, Connection]:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="s", destination="/exchange/chat/k"))
    return client, connection


def reply_to(sent: str) -> str:
    (found,) = [line for line in sent.split("\n") if line.startswith("reply-to:")]
    return found.removeprefix("reply-to:")


async def test_a_question_and_its_answer(world: World) -> None:
    answering, questions = service(world)
    client, answers = world.client()
    ask(client, receipt="r")
    assert answers.receipts() == ["r"]
    where = reply_to(questions.sent[0])
    assert where.startswith("/reply-queue/stomp-subscription-")
    answering.on_data(frame("SEND", "answer", destination=where))
    await settle()
    assert answers.sent[1].startswith(f"MESSAGE\nsubscription:/temp-queue/foo\ndestination:/queue{where[12:]}\n")
    assert answers.bodies() == ["answer"]


async def test_the_queue_is_made_once_for_a_name(world: World) -> None:
    _, questions = service(world)
    client, _ = world.client()
    for name in ("a", "b", "a"):
        ask(client, name=name)
    first, second, third = map(reply_to, questions.sent)
    assert first == third
    assert first != second


async def test_there_is_a_limit(world: World) -> None:
    _, questions = service(world)
    client, answers = world.client()
    for name in ("a", "b", "c", "a"):
        ask(client, name=name)
    assert answers.commands() == ["ERROR"]
    assert "No more than 2 subscriptions" in answers.sent[0]
    assert len(questions.sent) == 3


async def test_it_goes_with_the_session(world: World) -> None:
    answering, questions = service(world)
    client, _ = world.client()
    ask(client)
    where = reply_to(questions.sent[0])
    client.on_data(frame("DISCONNECT", receipt="bye"))
    await settle()
    assert where.removeprefix("/reply-queue/") not in world.broker._queues
    answering.on_data(frame("SEND", "too late", destination=where, receipt="r"))
    assert questions.receipts() == ["r"]


async def test_nobody_else_can_listen_to_it(world: World) -> None:
    _, questions = service(world)
    client, _ = world.client()
    ask(client)
    spy, seen = world.client()
    spy.on_data(frame("SUBSCRIBE", id="s", destination=reply_to(questions.sent[0])))
    assert seen.commands() == ["ERROR"]
    assert "resource_locked" in seen.sent[0]
    assert seen.closed is not None


async def test_one_that_was_deleted_is_made_anew(world: World) -> None:
    _, questions = service(world)
    client, answers = world.client()
    ask(client)
    queue = world.broker._queues[reply_to(questions.sent[0]).removeprefix("/reply-queue/")]
    world.broker.delete_queue(queue.spec, lambda failure: None)
    await settle()
    assert "Server cancelled subscription" in answers.sent[0]
    assert "subscription:/temp-queue/foo\n" in answers.sent[0]
    ask(client)
    assert reply_to(questions.sent[1]) != reply_to(questions.sent[0])


async def test_a_question_in_a_transaction(world: World) -> None:
    _, questions = service(world)
    client, answers = world.client()
    client.on_data(frame("BEGIN", transaction="t"))
    ask(client, "1", transaction="t")
    ask(client, "2", transaction="t")
    assert questions.sent == []
    client.on_data(frame("COMMIT", transaction="t", receipt="c"))
    assert questions.bodies() == ["1", "2"]
    assert answers.receipts() == ["c"]


@pytest.mark.parametrize("where", ["/bogus/x/y", "/temp-queue/", "/temp-queue/a/b", "/queue/a/b"])
async def test_what_is_no_destination(world: World, where: str) -> None:
    client, answers = world.client()
    client.on_data(frame("SEND", "x", destination="/exchange/chat/k", reply_to=where, receipt="r"))
    assert answers.commands() == ["ERROR"]
    assert "Processing error" in answers.sent[0]
    assert "receipt-id:r\n" in answers.sent[0]


async def test_a_send_that_is_refused_makes_no_queue(world: World) -> None:
    client, answers = world.client()
    queues = set(world.broker._queues)
    client.on_data(frame("SEND", "x", destination="/bogus", reply_to="/temp-queue/foo"))
    assert answers.commands() == ["ERROR"]
    assert set(world.broker._queues) == queues


class NoQueues:
    """Refuses consumers, at once or later."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[object] = []
        monkeypatch.setattr(world.broker, "consume", self.consume)

    def consume(self, spec: object, prefetch: int, listener: object, done: object) -> NoQueues:
        self.waiting.append(done)
        return self

    def answer(self, failure: Failure) -> None:
        self.waiting.pop()(failure)  # type: ignore[operator]

    def cancel(self, done: object = None) -> None: ...


async def test_a_queue_that_can_not_be_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, answers = world.client()
    broker = NoQueues(world, monkeypatch)
    ask(client, receipt="r")
    client.on_data(frame("SEND", "behind", destination="/exchange/chat/k", receipt="behind"))
    assert answers.sent == []
    broker.answer(Failure("broker_unavailable", "away", fatal=False))
    assert answers.commands() == ["ERROR", "RECEIPT"]
    assert "Broker unavailable" in answers.sent[0]
    assert "receipt-id:r\n" in answers.sent[0]
    assert client.session.subscriptions == {}


async def test_unsubscribe_that_says_durable_deletes_the_queue_of_a_topic(world: World) -> None:
    client, connection = world.client()
    headers = {"destination": "/topic/k", "durable": "true", "auto_delete": "false"}
    client.on_data(frame("SUBSCRIBE", id="s", **headers))
    assert len(world.broker._queues) == 1
    client.on_data(frame("UNSUBSCRIBE", id="s", durable="true", receipt="u"))
    assert connection.receipts() == []
    client.on_data(frame("SUBSCRIBE", id="s", receipt="again", **headers))
    await settle()
    assert connection.receipts() == ["u", "again"]
    assert len(world.broker._queues) == 1


async def test_a_client_that_leaves_while_its_consumer_ends(world: World) -> None:
    client, connection = world.client()
    client.on_data(frame("SUBSCRIBE", id="a", destination="/queue/q"))
    client.on_data(frame("UNSUBSCRIBE", id="a", receipt="u"))
    assert connection.receipts() == []
    client._leave()
    await settle()
    assert connection.receipts() == []


async def test_a_queue_that_can_not_be_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[object] = []
    monkeypatch.setattr(world.broker, "delete_queue", lambda spec, done: waiting.append(done))
    client, connection = world.client()
    for id in ("a", "b"):
        client.on_data(frame("SUBSCRIBE", id=id, destination="/topic/k", durable="true"))
        client.on_data(frame("UNSUBSCRIBE", id=id, persistent="true", receipt="u"))
        await settle()
        assert connection.sent == []
        if id == "a":
            waiting.pop()(Failure("broker_unavailable", "away", fatal=False))  # type: ignore[operator]
            assert connection.commands() == ["ERROR"]
            connection.sent.clear()
    client._leave()
    waiting.pop()(None)  # type: ignore[operator]
    assert connection.sent == []
