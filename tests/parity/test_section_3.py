"""SUBSCRIBE and UNSUBSCRIBE."""

from __future__ import annotations

from typing import Any

from tests.support.parity import BETTER, Target, equal, error, row, rows_test

DESTINATIONS = ("/queue/{}", "/topic/{}", "/exchange/parity.direct/{}")


@row(3, "the consumer tag with an id, and without")
async def tags(target: Target) -> Any:
    peer = await target.connect()
    for number, form in enumerate(DESTINATIONS):
        destination = form.format(target.name(f"k{number}"))
        await peer.request("SUBSCRIBE", {"destination": destination})
        await peer.send(destination, "x")
    for number, form in enumerate(DESTINATIONS):
        destination = form.format(target.name(f"i{number}"))
        await peer.subscribe(destination, id=f"i:{number}@@x")
        await peer.send(destination, "x")
    return sorted(await peer.shows(6), key=str)


@row(3, "an empty id")
async def empty_id(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for version in ("1.0", "1.2"):
        peer = await target.connect(version=version)
        await peer.subscribe(f"/topic/{target.name('k')}", id="", ack="client")
        await peer.send(f"/topic/{target.name('k')}", "x")
        seen += [await peer.show(), await peer.tried("UNSUBSCRIBE", {"id": ""})]
    return seen


@row(3, "the id of a subscription to a queue of one's own", equal([[("ERROR", "Processing error")]] * 2))
async def temporary_id(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for destination in (f"/queue/{target.name('q')}", f"/topic/{target.name('q')}"):
        ((command, headers, _),) = await peer.tried("SUBSCRIBE", {"destination": destination, "id": "/temp-queue/x"})
        seen.append([(command, headers["message"])])
    return seen


@row(
    3,
    "an id that is taken",
    equal(
        [[error("Duplicated subscription identifier", "A subscription identified by 'T_a' already exists."), "closed"]]
        * 2
        + [
            [
                error(
                    "Duplicated subscription identifier", "A subscription identified by 'Q_/topic/~k' already exists."
                ),
                "closed",
            ]
        ]
    ),
)
async def taken(target: Target) -> Any:
    seen = []
    for first, second in (
        ({"destination": "/topic/{}", "id": "a"}, {"destination": "/queue/{}", "id": "a"}),
        ({"destination": "/queue/{}", "id": "a"}, {"destination": "/queue/{}", "id": "a"}),
        ({"destination": "/topic/{}"}, {"destination": "/topic/{}"}),
    ):
        peer = await target.connect()
        for headers in (first, second):
            headers = headers | {"destination": headers["destination"].format(target.name("k"))}
            await peer.send_frame("SUBSCRIBE", headers)
        seen.append(await peer.ending())
    return seen


@row(3, "one destination, several ids")
async def several(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    for id in ("a", "b", "c"):
        await peer.subscribe(f"/topic/{key}", id=id)
    await peer.subscribe(f"/exchange/amq.topic/{key}", id="d")
    await peer.unsubscribe("b")
    await peer.send_and_wait(f"/topic/{key}", "x")
    return sorted(await peer.shows(3), key=str)


@row(3, "ack modes", equal([[], [], [], [], *[[("ERROR", "Processing error")]] * 4]))
async def ack_modes(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for number, mode in enumerate(
        (None, "auto", "client", "client-individual", "Auto", "", "none", "client_individual")
    ):
        headers = {"destination": f"/queue/{target.name('q')}", "id": str(number)}
        answers = await peer.tried("SUBSCRIBE", headers if mode is None else headers | {"ack": mode})
        seen.append([(answer[0], answer[1]["message"]) for answer in answers])
    return seen


@row(3, "ack:auto settles by itself")
async def auto(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{name}")
    for number in range(3):
        await peer.send(f"/queue/{name}", str(number))
    bodies = await peer.bodies(3)

    async def empty() -> bool:
        queue = await target.queue(name)
        return queue is not None and not queue["messages"]

    return [bodies, await target.until(empty)]


async def _unacked(target: Target, queue: str, count: int) -> bool:
    found = await target.queue(queue)
    return found is not None and found["messages_unacknowledged"] == count


@row(3, "prefetch-count limits what is unacknowledged", equal([["0", "1"], [], ["2"], [], 0]))
async def prefetch(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    for number in range(4):
        await peer.send_and_wait(f"/queue/{name}", str(number))
    await peer.subscribe(f"/queue/{name}", ack="client-individual", prefetch_count="2")
    frames = await peer.messages(2)
    seen: list[Any] = [[frame.text for frame in frames], await peer.seen()]
    await peer.send_frame("ACK", {"id": frames[1].ack})
    third = await peer.message()
    seen += [[third.text], await peer.seen()]
    await peer.send_frame("ACK", {"id": frames[0].ack})
    fourth = await peer.message()
    for frame in (third, fourth):
        await peer.acknowledge(frame)
    await target.until(lambda: _unacked(target, name, 0))
    queue = await target.queue(name)
    return [*seen, queue and queue["messages"]]


@row(3, "prefetch-count on a topic", equal([["0", "1"], [], ["2", "3"], ["4"]]))
async def prefetch_topic(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"/topic/{key}", ack="client", prefetch_count="2")
    for number in range(5):
        await peer.send_and_wait(f"/topic/{key}", str(number))
    first = await peer.messages(2)
    seen: list[Any] = [[frame.text for frame in first], await peer.seen()]
    await peer.send_frame("ACK", {"id": first[1].ack})
    second = await peer.messages(2)
    await peer.send_frame("ACK", {"id": second[1].ack})
    return [*seen, [frame.text for frame in second], await peer.bodies(1)]


@row(3, "prefetch-count has no effect with ack:auto")
async def prefetch_auto(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{name}", prefetch_count="1")
    for number in range(5):
        await peer.send(f"/queue/{name}", str(number))
    return await peer.bodies(5)


@row(3, "prefetch-count of 0 is none")
async def prefetch_none(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{name}", ack="client", prefetch_count="0")
    for number in range(5):
        await peer.send(f"/queue/{name}", str(number))
    return await peer.bodies(5)


@row(3, "prefetch-count that is no number", equal([[("ERROR", "Processing error")]] * 3))
async def prefetch_wrong(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for value in ("many", "", "1.5"):
        headers = {"destination": f"/queue/{target.name('q')}", "id": value, "ack": "client", "prefetch-count": value}
        seen.append([(answer[0], answer[1]["message"]) for answer in await peer.tried("SUBSCRIBE", headers)])
    return seen


@row(
    3,
    "prefetch-count and later subscriptions",
    BETTER("belongs to its subscription", ours=["0", "1", "2", "3", "4"], theirs=["0", "1"]),
)
async def prefetch_leak(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{target.name('other')}", id="a", ack="client", prefetch_count="2")
    for number in range(5):
        await peer.send_and_wait(f"/queue/{name}", str(number))
    await peer.subscribe(f"/queue/{name}", id="b", ack="client")
    await target.until(lambda: _unacked(target, name, 5 if target.ours else 2))
    return await peer.bodies(5 if target.ours else 2)


@row(3, "selector and no-local say nothing")
async def ignored(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"/topic/{key}", selector="colour = 'red'", no_local="true")
    await peer.send(f"/topic/{key}", "x", colour="blue")
    return await peer.show()


@row(
    3,
    "durable without an id",
    equal([[error("Missing Header", "Header 'id' is required for durable subscriptions")]] * 12),
)
async def durable(target: Target) -> Any:
    peer = await target.connect()
    return [
        await peer.tried(command, {"destination": form.format(target.name("k")), header: "true"})
        for command in ("SUBSCRIBE", "UNSUBSCRIBE")
        for form in DESTINATIONS
        for header in ("durable", "persistent")
    ]


@row(3, "UNSUBSCRIBE by destination")
async def by_destination(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    await peer.request("SUBSCRIBE", {"destination": destination})
    seen = [await peer.tried("UNSUBSCRIBE", {"destination": destination})]
    await peer.send_and_wait(destination, "x")
    return [*seen, await peer.tried("UNSUBSCRIBE", {"destination": destination})]


@row(3, "UNSUBSCRIBE by destination of what has an id")
async def by_wrong_destination(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    await peer.subscribe(destination, id="a")
    return await peer.tried("UNSUBSCRIBE", {"destination": destination})


@row(3, "UNSUBSCRIBE goes by the id where there are both")
async def by_both(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    await peer.subscribe(destination, id="a")
    seen = [await peer.tried("UNSUBSCRIBE", {"destination": destination, "id": "b"})]
    return [
        *seen,
        await peer.tried("UNSUBSCRIBE", {"destination": "/topic/other", "id": "a"}),
        await peer.seen(),
        "end",
    ]


@row(
    3,
    "UNSUBSCRIBE of nothing",
    equal(
        [
            [
                error(
                    "No subscription found",
                    "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \"id='x'\" not found.\n",
                )
            ],
            [
                error(
                    "No subscription found",
                    "UNSUBSCRIBE must refer to an existing subscription.\n"
                    "Subscription to \"destination='/topic/x'\" not found.\n",
                )
            ],
            [error("Missing destination or id", "UNSUBSCRIBE must include a 'destination' or 'id' header")],
            [error("Invalid id", "UNSUBSCRIBE 'id' may not start with /temp-queue/\n")],
        ]
    ),
)
async def of_nothing(target: Target) -> Any:
    peer = await target.connect()
    cases: list[dict[str, str]] = [{"id": "x"}, {"destination": "/topic/x"}, {}, {"id": "/temp-queue/x"}]
    return [await peer.tried("UNSUBSCRIBE", headers) for headers in cases]


@row(3, "nothing comes after UNSUBSCRIBE, and the id is free")
async def unsubscribed(target: Target) -> Any:
    peer, other = await target.connect(), await target.connect()
    destination = f"/topic/{target.name('k')}"
    await other.subscribe(destination)
    await peer.subscribe(destination, id="a")
    await peer.send_frame("UNSUBSCRIBE", {"id": "a"})
    await peer.send(destination, "not for this one")
    seen = [await other.show()]
    await peer.subscribe(destination, id="a")
    await peer.send(destination, "found")
    return [*seen, await peer.show(), await other.show()]


@row(
    3,
    "what was unacknowledged at UNSUBSCRIBE",
    BETTER("goes back at once, and not at the end of the session", ours=(2, 0), theirs=(2, 2)),
)
async def in_flight(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{name}", ack="client")
    for number in range(2):
        await peer.send(f"/queue/{name}", str(number))
    await peer.messages(2)
    await peer.unsubscribe()
    await target.until(lambda: _unacked(target, name, 0 if target.ours else 2))
    queue = await target.queue(name)
    return queue and (queue["messages"], queue["messages_unacknowledged"])


@row(3, "what was unacknowledged at UNSUBSCRIBE comes again in the next session")
async def in_flight_again(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{name}", ack="client")
    for number in range(2):
        await peer.send(f"/queue/{name}", str(number))
    await peer.messages(2)
    await peer.unsubscribe()
    await peer.disconnect()
    await target.until(lambda: _unacked(target, name, 0))
    again = await target.connect()
    await again.subscribe(f"/queue/{name}")
    return await again.shows(2)


@row(3, "ACK after UNSUBSCRIBE")
async def late_ack(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for destination in (f"/queue/{target.name('q')}", f"/topic/{target.name('k')}"):
        for command in ("ACK", "NACK"):
            await peer.subscribe(destination, id="a", ack="client")
            await peer.send(destination, "x")
            frame = await peer.message()
            await peer.unsubscribe("a")
            seen.append(await peer.tried(command, {"id": frame.ack}))
            destination += "2"
    return seen


async def _bound_anywhere(target: Target, key: str) -> list[str]:
    queues = await target.bound("amq.topic", key) + await target.bound("parity.direct", key)
    return [target.plain(queue) for queue in queues]


@row(3, "UNSUBSCRIBE that says durable deletes the queue of a topic", equal([[], []]))
async def unsubscribe_durable(target: Target) -> Any:
    peer = await target.connect()
    seen = []
    for header in ("durable", "persistent"):
        key = target.name(header)
        await peer.subscribe(f"/topic/{key}", id="a", **{header: "true"}, auto_delete="false")
        before = await _bound_anywhere(target, key)
        assert before == ["stomp-subscription-RANDOM"]
        await peer.request("UNSUBSCRIBE", {"id": "a", header: "true"})
        seen.append(await _bound_anywhere(target, key))
    return seen


@row(3, "UNSUBSCRIBE that says durable deletes a queue of another name")
async def unsubscribe_named(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    headers = {"durable": "true", "auto-delete": "false", "x-queue-name": name}
    await peer.subscribe(f"/topic/{name}", id="a", **headers)
    before = await target.queue(name)
    await peer.request("UNSUBSCRIBE", {"id": "a"} | headers)
    return [before is not None, await target.queue(name)]


@row(
    3,
    "UNSUBSCRIBE that says durable and not the name",
    BETTER("the subscription knows its queue", ours=[True, False], theirs=[True, True]),
)
async def unsubscribe_unnamed(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    headers = {"durable": "true", "auto-delete": "false"}
    await peer.subscribe(f"/topic/{name}", id="a", **headers, x_queue_name=name)
    before = await target.queue(name)
    await peer.request("UNSUBSCRIBE", {"id": "a"} | headers)
    return [before is not None, await target.queue(name) is not None]


@row(3, "UNSUBSCRIBE that does not say durable keeps the queue")
async def unsubscribe_plain(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"/topic/{key}", id="a", durable="true", auto_delete="false")
    await peer.unsubscribe("a")
    await peer.send_and_wait(f"/topic/{key}", "kept")
    await peer.subscribe(f"/topic/{key}", id="a", durable="true", auto_delete="false")
    return [await peer.show(), await _bound_anywhere(target, key)]


@row(3, "UNSUBSCRIBE that says durable keeps the queue of an exchange")
async def unsubscribe_exchange(target: Target) -> Any:
    peer = await target.connect()
    key = target.name("k")
    await peer.subscribe(f"/exchange/parity.direct/{key}", id="a", durable="true", auto_delete="false")
    await peer.request("UNSUBSCRIBE", {"id": "a", "durable": "true"})
    return await _bound_anywhere(target, key)


@row(3, "UNSUBSCRIBE that says durable of a queue, or of what is not durable")
async def unsubscribe_other(target: Target) -> Any:
    peer = await target.connect()
    name = target.name("q")
    await peer.subscribe(f"/queue/{name}", id="a")
    await peer.subscribe(f"/topic/{name}", id="b")
    seen = [await peer.tried("UNSUBSCRIBE", {"id": id, "durable": "true"}) for id in ("a", "b")]
    return [*seen, await target.queue(name)]


@row(3, "a durable subscription again, right after its queue was deleted")
async def durable_again(target: Target) -> Any:
    peer = await target.connect()
    destination = f"/topic/{target.name('k')}"
    for _ in range(10):
        await peer.send_frame("SUBSCRIBE", {"destination": destination, "id": "a", "durable": "true"})
        await peer.send_frame("UNSUBSCRIBE", {"id": "a", "durable": "true"})
    await peer.subscribe(destination, id="a", durable="true")
    await peer.send(destination, "x")
    return [await peer.show(), await peer.seen()]


test_row = rows_test(__name__)
