"""Where a SEND goes and what a SUBSCRIBE hears, on both brokers."""

from __future__ import annotations

import pytest

from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.stomp import Frame, encode


async def test_topic(bridge: Bridge, connect: Connect, name: str) -> None:
    sender, first, second = await connect(), await connect(), await connect()
    for client in (first, second):
        await client.subscribe(f"/topic/{name}", id="room")
    await sender.send(f"/topic/{name}", "hello")
    for client in (first, second):
        frame = await client.message("hello")
        assert frame.headers["subscription"] == "room"
        assert frame.headers["destination"] == f"/topic/{name}"
        assert frame.headers["redelivered"] == "false"
        assert frame.headers["message-id"]
        assert "ack" not in frame.headers


async def test_nothing_is_kept_for_a_topic(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.send_and_wait(f"/topic/{name}", "before")
    await client.subscribe(f"/topic/{name}")
    await client.send(f"/topic/{name}", "after")
    await client.message("after")


@pytest.mark.parametrize(
    ("pattern", "hits", "misses"),
    [
        ("a.*.c", ["a.b.c", "a.x.c"], ["a.c", "a.b.b.c", "b.b.c"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["b", "b.a"]),
        ("#.c", ["c", "a.c", "a.b.c"], ["c.a"]),
        ("a.#.d", ["a.d", "a.b.d", "a.b.c.d"], ["a.b", "d"]),
        ("*", ["a", "b"], ["a.b"]),
    ],
)
@pytest.mark.parametrize("exchange", ["/topic/", "/exchange/chat.exchange/"])
async def test_wildcards(
    bridge: Bridge, connect: Connect, name: str, exchange: str, pattern: str, hits: list[str], misses: list[str]
) -> None:
    client = await connect()
    prefix = "" if pattern == "*" else f"{name}."
    if pattern == "*":
        hits, misses = [name, f"{name}x"], [f"{name}.b"]
    await client.subscribe(f"{exchange}{prefix}{pattern}")
    for key in [*misses, *hits]:
        await client.send(f"{exchange}{prefix}{key}", key)
    for key in hits:
        frame = await client.message(key)
        assert frame.headers["destination"] == f"{exchange}{prefix}{key}"
    await client.alive()


async def test_matches_once_however_many_bindings_match(bridge: Bridge, connect: Connect, name: str) -> None:
    clients = [await connect() for _ in range(4)]
    patterns = [f"{name}.a", f"{name}.*", f"{name}.#", f"#.{name}.a"]
    for client, pattern in zip(clients, patterns, strict=True):
        await client.subscribe(f"/topic/{pattern}")
    for number in range(5):
        await clients[0].send(f"/topic/{name}.a", str(number))
    for client in clients:
        for number in range(5):
            await client.message(str(number))


async def test_subscriptions_of_one_client_are_served_each(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}", id="one")
    await client.subscribe(f"/topic/{name}", id="two")
    await client.subscribe(f"/topic/{name}.other", id="three")
    await client.send(f"/topic/{name}", "twice")
    frames = await client.messages(2)
    assert {frame.headers["subscription"] for frame in frames} == {"one", "two"}
    assert [frame.text for frame in frames] == ["twice", "twice"]
    await client.unsubscribe("one")
    await client.send(f"/topic/{name}", "once")
    await client.message("once", subscription="two")
    await client.alive()


@pytest.mark.parametrize("exchange", ["amq.direct", "orders.direct"])
async def test_direct_exchange(bridge: Bridge, connect: Connect, name: str, exchange: str) -> None:
    client = await connect()
    await client.subscribe(f"/exchange/{exchange}/{name}")
    await client.send(f"/exchange/{exchange}/{name}.x", "not this")
    await client.send(f"/exchange/{exchange}/{name}", "this")
    await client.message("this", destination=f"/exchange/{exchange}/{name}")


@pytest.mark.parametrize("exchange", ["amq.fanout", "news.fanout"])
async def test_fanout_exchange(bridge: Bridge, connect: Connect, name: str, exchange: str) -> None:
    first, second = await connect(), await connect()
    await first.subscribe(f"/exchange/{exchange}")
    await second.subscribe(f"/exchange/{exchange}/{name}")
    await first.send(f"/exchange/{exchange}/whatever", name)
    await first.send(f"/exchange/{exchange}", f"{name} without a key")
    for client in (first, second):
        await client.message(name, destination=f"/exchange/{exchange}/whatever")
        await client.message(f"{name} without a key", destination=f"/exchange/{exchange}")
        await client.unsubscribe()


async def test_headers_exchange_takes_its_subscription(bridge: Bridge, connect: Connect) -> None:
    client = await connect()
    await client.subscribe("/exchange/tags.headers/x")
    await client.send("/exchange/tags.headers/x", "no arguments: everything matches")
    await client.message()


async def test_exchange_that_is_bound_as_a_whole(bridge: Bridge, connect: Connect, name: str) -> None:
    first, second = await connect(), await connect()
    await first.subscribe(f"/exchange/all.exchange/{name}.1")
    await second.subscribe(f"/exchange/all.exchange/{name}.*")
    await second.send(f"/exchange/all.exchange/{name}.2", "two")
    await second.send(f"/exchange/all.exchange/{name}.1", "one")
    await first.message("one")
    await second.message("two")
    await second.message("one")


async def test_amq_topic_is_the_topic(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/exchange/amq.topic/{name}")
    await client.send(f"/topic/{name}", "one")
    await client.message("one", destination=f"/topic/{name}")


async def test_same_key_of_another_exchange_is_another_message(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}", id="topic")
    await client.subscribe(f"/exchange/chat.exchange/{name}", id="chat")
    await client.send(f"/exchange/chat.exchange/{name}", "chat")
    await client.message("chat", subscription="chat")
    await client.send(f"/topic/{name}", "topic")
    await client.message("topic", subscription="topic")


async def test_queue_keeps_what_is_sent(bridge: Bridge, connect: Connect, name: str) -> None:
    sender = await connect()
    for number in range(3):
        await sender.send_and_wait(f"/queue/{name}", str(number))
    await sender.disconnect()
    client = await connect()
    await client.subscribe(f"/queue/{name}")
    for number in range(3):
        frame = await client.message(str(number))
        assert frame.headers["destination"] == f"/queue/{name}"


async def test_queue_shares_its_messages_out(bridge: Bridge, connect: Connect, name: str) -> None:
    first, second = await connect(), await connect()
    for client in (first, second):
        await client.subscribe(f"/queue/{name}")
    for number in range(10):
        await first.send(f"/queue/{name}", str(number))
    got: list[Frame] = []
    for client in (first, second):
        frames = await client.messages(5)
        assert [int(frame.text) for frame in frames] == sorted(int(frame.text) for frame in frames)
        got += frames
    assert sorted(int(frame.text) for frame in got) == list(range(10))


async def test_name_without_a_slash_is_a_queue(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.send(name, "bare")
    await client.subscribe(name)
    await client.message("bare", destination=f"/queue/{name}")


async def test_existing_queue(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.send_and_wait(f"/queue/{name}", "one")
    await client.subscribe(f"/amq/queue/{name}")
    await client.message("one", destination=f"/queue/{name}")
    await client.send(f"/amq/queue/{name}", "two")
    await client.message("two", destination=f"/queue/{name}")


@pytest.mark.parametrize("special", ["a%2Fb", "%2F", "ümläut", "with space", "per%25cent"])
@pytest.mark.parametrize("kind", ["/topic/", "/queue/"])
async def test_names_with_special_characters(
    bridge: Bridge, connect: Connect, name: str, kind: str, special: str
) -> None:
    client = await connect()
    await client.subscribe(f"{kind}{name}{special}")
    await client.send(f"{kind}{name}{special}", special)
    frame = await client.message(special)
    shown = special.replace("ü", "%C3%BC").replace("ä", "%C3%A4").replace("%25", "%2525")
    assert frame.headers["destination"] == f"{kind}{name}{shown}"


@pytest.mark.parametrize("kind", ["/topic/{}", "/exchange/chat.exchange/{}", "/queue/{}", "/exchange/all.exchange/{}"])
async def test_subscribe_then_send_in_one_breath(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    destination = kind.format(name)
    client = await connect()
    await client.send_raw(
        encode("SUBSCRIBE", {"destination": destination, "id": "s"})
        + encode("SEND", {"destination": destination}, "at once")
    )
    await client.message("at once")


@pytest.mark.parametrize("kind", ["/topic/{}", "/exchange/chat.exchange/{}", "/queue/{}"])
async def test_unsubscribe_then_send_in_one_breath(bridge: Bridge, connect: Connect, name: str, kind: str) -> None:
    destination = kind.format(name)
    client = await connect()
    await client.subscribe(destination, id="old")
    await client.send_raw(
        encode("UNSUBSCRIBE", {"id": "old"})
        + encode("SEND", {"destination": destination, "receipt": "sent"}, "for nobody, or for the next")
    )
    await client.expect("RECEIPT", receipt_id="sent")
    await client.subscribe(f"/topic/{name}.end", id="end")
    await client.send(f"/topic/{name}.end", "end")
    await client.message("end", subscription="end")
    if kind.startswith("/queue"):
        await client.subscribe(destination, id="new")
        await client.message("for nobody, or for the next", subscription="new")


async def test_unsubscribe_by_destination(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect(headers={"accept-version": "1.0"})
    await client.request("SUBSCRIBE", {"destination": f"/topic/{name}"})
    await client.send(f"/topic/{name}", "one")
    frame = await client.message("one")
    assert "subscription" not in frame.headers
    await client.request("UNSUBSCRIBE", {"destination": f"/topic/{name}"})
    await client.send_and_wait(f"/topic/{name}", "two")
    await client.silent(0.2)


async def test_many_subscriptions_at_once(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    frames = [encode("SUBSCRIBE", {"destination": f"/topic/{name}.{n}", "id": str(n)}) for n in range(300)]
    frames += [encode("SEND", {"destination": f"/topic/{name}.{n}"}, str(n)) for n in range(300)]
    await client.send_raw(b"".join(frames))
    got = await client.messages(300)
    assert [frame.text for frame in got] == [frame.headers["subscription"] for frame in got]
    assert sorted(int(frame.text) for frame in got) == list(range(300))


async def test_durable_subscription_keeps_messages(bridge: Bridge, connect: Connect, name: str) -> None:
    options = {"durable": "true", "auto_delete": "false"}
    client = await connect()
    await client.subscribe(f"/topic/{name}", id="mine", ack="client-individual", **options)
    await client.disconnect()
    sender = await connect()
    await sender.send_and_wait(f"/topic/{name}", "while away")
    again = await connect()
    await again.subscribe(f"/topic/{name}", id="mine", ack="client-individual", **options)
    await again.acknowledge(await again.message("while away"))
