"""reply-to, and queues of a session's own."""

from __future__ import annotations

from typing import Any

from tests.support.parity import BETTER, Peer, Target, equal, row, rows_test


async def _asked(target: Target) -> tuple[Peer, str]:
    """Somebody who answers questions, and where."""
    service = await target.connect()
    destination = f"/queue/{target.name('service')}"
    await service.subscribe(destination, id="s")
    return service, destination


def _kind(target: Target, reply_to: str) -> str:
    """Where an answer goes, whatever the queue is called."""
    text = target.plain(reply_to)
    return text.replace("amq.gen-RANDOM", "QUEUE").replace("stomp-subscription-RANDOM", "QUEUE")


def _shown(target: Target, shown: Any) -> Any:
    command, headers, body = shown
    return command, {name: _kind(target, value) for name, value in headers.items()}, body


@row(9, "a question and its answer")
async def answer(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "question", reply_to="/temp-queue/foo")
    question = await service.message()
    await service.send(question.headers["reply-to"], "answer", correlation_id="1")
    return [_shown(target, target.show(question)), _shown(target, await client.show())]


@row(9, "the queue is made once for a name")
async def once(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    for name in ("a", "a", "b", "a"):
        await client.send(destination, "question", reply_to=f"/temp-queue/{name}")
    queues = [frame.headers["reply-to"] for frame in await service.messages(4)]
    for queue in queues:
        await service.send(queue, "answer")
    answers = [frame.headers["subscription"] for frame in await client.messages(4)]
    return [[queues.index(queue) for queue in queues], sorted(answers)]


@row(9, "each session has its own")
async def own(target: Target) -> Any:
    service, destination = await _asked(target)
    clients = [await target.connect() for _ in range(2)]
    for number, client in enumerate(clients):
        await client.send(destination, str(number), reply_to="/temp-queue/foo")
        question = await service.message()
        await service.send(question.headers["reply-to"], f"to {question.text}")
    return [await client.bodies(1) for client in clients]


@row(9, "what the queue is", equal({"durable": False, "auto_delete": True, "exclusive": True, "arguments": {}}))
async def queue(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "question", reply_to="/temp-queue/foo")
    name = (await service.message()).headers["reply-to"].removeprefix("/reply-queue/")
    found = await target.queue(name)
    return found and {key: found[key] for key in ("durable", "auto_delete", "exclusive", "arguments")}


@row(
    9,
    "whose name it has",
    BETTER(
        "the bridge's, so that the queue can be had back after the broker was away",
        ours="/reply-queue/stomp-subscription-RANDOM",
        theirs="/reply-queue/amq.gen-RANDOM",
    ),
)
async def name(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "question", reply_to="/temp-queue/foo")
    return target.plain((await service.message()).headers["reply-to"])


@row(9, "the queue goes with its session")
async def gone(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "question", reply_to="/temp-queue/foo")
    question = await service.message()
    await client.disconnect()
    queue = question.headers["reply-to"].removeprefix("/reply-queue/")

    async def is_gone() -> bool:
        return await target.queue(queue) is None

    await target.until(is_gone)
    return await service.tried("SEND", {"destination": question.headers["reply-to"]}, "too late") == []


@row(9, "nobody else can listen to it", equal([[("ERROR", "resource_locked"), "closed"]] * 2))
async def private(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "question", reply_to="/temp-queue/foo")
    reply_to = (await service.message()).headers["reply-to"]
    seen = []
    for text in (reply_to, reply_to.replace("/reply-queue/", "/amq/queue/")):
        spy = await target.connect()
        await spy.send_frame("SUBSCRIBE", {"destination": text, "id": "spy"})
        seen.append([end if end == "closed" else (end[0], end[1]["message"]) for end in await spy.ending()])
    return seen


@row(9, "it can not be unsubscribed from, and its messages need no ACK")
async def lasting(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "question", reply_to="/temp-queue/foo")
    reply_to = (await service.message()).headers["reply-to"]
    seen = [
        await client.tried("UNSUBSCRIBE", {"id": "/temp-queue/foo"}),
        await client.tried("UNSUBSCRIBE", {"destination": "/temp-queue/foo"}),
    ]
    await service.send(reply_to, "answer")
    return [*seen, _shown(target, await client.show()), await client.seen()]


@row(9, "ACK of an answer")
async def acknowledged(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "question", reply_to="/temp-queue/foo")
    await service.send((await service.message()).headers["reply-to"], "answer")
    frame = await client.message()
    await client.send_frame("ACK", {"id": frame.headers["message-id"]})
    return await client.ending()


@row(9, "a question in a transaction")
async def transaction(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.request("BEGIN", {"transaction": "t"})
    for text in ("one", "two"):
        await client.send(destination, text, reply_to="/temp-queue/foo", transaction="t")
    await client.request("COMMIT", {"transaction": "t"})
    questions = await service.messages(2)
    for question in questions:
        await service.send(question.headers["reply-to"], f"to {question.text}")
    return [await client.bodies(2), questions[0].headers["reply-to"] == questions[1].headers["reply-to"]]


@row(9, "frames keep their order around the first question")
async def ordered(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    await client.send(destination, "1")
    await client.send(destination, "2", reply_to="/temp-queue/foo")
    await client.send(destination, "3")
    await client.send(destination, "4", reply_to="/temp-queue/bar")
    receipt = await client.send_and_wait(destination, "5")
    return [await service.bodies(5), receipt.command]


@row(9, "the receipt of a question", equal("RECEIPT"))
async def receipt(target: Target) -> Any:
    _, destination = await _asked(target)
    client = await target.connect()
    return (await client.send_and_wait(destination, "question", reply_to="/temp-queue/foo")).command


@row(9, "a question to a topic and to an exchange")
async def topic(target: Target) -> Any:
    seen = []
    for destination in (f"/topic/{target.name('k')}", f"/exchange/parity.direct/{target.name('k')}"):
        service, client = await target.connect(), await target.connect()
        await service.subscribe(destination)
        await client.send(destination, "question", reply_to="/temp-queue/foo")
        question = await service.message()
        await service.send(question.headers["reply-to"], "answer")
        seen.append([_kind(target, question.headers["reply-to"]), _shown(target, await client.show())])
    return seen


@row(9, "other destinations are passed on")
async def passed_on(target: Target) -> Any:
    service, destination = await _asked(target)
    client = await target.connect()
    seen = []
    for reply_to in ("/queue/x", "/topic/a.b", "/exchange/e/k", "/amq/queue/x", "/reply-queue/x", "x", "amq.gen-x", ""):
        await client.send(destination, "question", reply_to=reply_to)
        seen.append((reply_to, (await service.message()).headers.get("reply-to")))
    return seen


@row(9, "what is no destination", equal([[("ERROR", "Processing error")]] * 5))
async def no_destination(target: Target) -> Any:
    client = await target.connect()
    seen = []
    for reply_to in ("/bogus/x/y", "/temp-queue/", "/temp-queue/a/b", "/temp-queue", "/queue/a/b"):
        headers = {"destination": f"/queue/{target.name('q')}", "reply-to": reply_to}
        seen.append([(answer[0], answer[1]["message"]) for answer in await client.tried("SEND", headers)])
    return seen


test_row = rows_test(__name__)
