"""Questions and answers over queues of a session's own, and queues that are somebody's alone."""

from __future__ import annotations

import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ


async def test_a_question_and_its_answer(bridge: Bridge, connect: Connect, name: str) -> None:
    service, client, other = await connect(), await connect(), await connect()
    await service.subscribe(f"/queue/{name}")
    for asking in (client, other):
        await asking.send_and_wait(f"/queue/{name}", "question", reply_to="/temp-queue/foo", correlation_id="7")
    questions = await service.messages(2)
    for number, question in enumerate(questions):
        await service.send(question.headers["reply-to"], str(number), correlation_id="7")
    for number, asking in enumerate((client, other)):
        answer = await asking.message(str(number), subscription="/temp-queue/foo", correlation_id="7")
        assert answer.headers["destination"].startswith("/queue/stomp-subscription-")
        assert "ack" not in answer.headers


async def test_nobody_else_gets_the_answers(bridge: Bridge, connect: Connect, name: str) -> None:
    service, client, spy = await connect(), await connect(), await connect()
    await service.subscribe(f"/queue/{name}")
    await client.send(f"/queue/{name}", "question", reply_to="/temp-queue/foo")
    where = (await service.message()).headers["reply-to"]
    await spy.send_frame("SUBSCRIBE", {"destination": where, "id": "s"})
    await spy.error("resource_locked", "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue")
    await spy.wait_closed()
    await service.send(where, "answer")
    await client.message("answer")


async def test_an_exclusive_queue_goes_with_its_session(bridge: Bridge, connect: Connect, name: str) -> None:
    owner, other = await connect(), await connect()
    await owner.subscribe(f"/queue/{name}", exclusive="true")
    await other.send_frame("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "s"})
    await other.error("resource_locked")
    await owner.disconnect()
    # The name is free once the queue has gone, which nobody is told.
    for _ in range(100):
        again = await connect()
        await again.send_frame("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "s", "receipt": "r"})
        frame = await again.receive()
        if frame.command == "RECEIPT":
            return
        assert frame.message in ("resource_locked", "not_found")
    pytest.fail("still locked")


@pytest.mark.slow
@pytest.mark.rabbitmq
async def test_a_session_keeps_its_queue_over_a_restart_of_the_broker(
    own_rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    bridge = start_bridge(configs.rabbitmq(own_rabbitmq.url))
    service, client = await connect(bridge), await connect(bridge)
    await service.subscribe(f"/queue/{name}")
    await client.send(f"/queue/{name}", "before", reply_to="/temp-queue/foo")
    before = await service.message("before")
    own_rabbitmq.restart()
    bridge.wait_ready()
    await service.send_and_wait(before.headers["reply-to"], "late answer")
    await client.message("late answer", subscription="/temp-queue/foo")
    await client.send(f"/queue/{name}", "after", reply_to="/temp-queue/foo")
    after = await service.message("after")
    assert after.headers["reply-to"] == before.headers["reply-to"]
