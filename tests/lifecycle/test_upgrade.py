"""A new process takes over from the old one while clients send and receive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.faults.checker import Figures
from tests.faults.load import Load
from tests.lifecycle.manager import Activated, listening
from tests.lifecycle.roaming import Crowd, histogram, summary
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis

Figure = Callable[[str], None]
MakeBridge = Callable[[], Bridge]

pytestmark = [pytest.mark.rabbitmq]


@contextmanager
def processes(by: str, url: str, more: str) -> Iterator[MakeBridge]:
    """Makes processes that serve one address after the other, each with a name and an admin port of its own."""
    bridges: list[Bridge] = []
    with listening() as sock:
        port = sock.getsockname()[1]
        if by == "reuse_port":
            sock.close()
            port = free_port()

        def make() -> Bridge:
            node = f"node-{len(bridges)}"
            if by == "socket":
                bridge: Bridge = Activated(configs.rabbitmq(url, more), [sock], node=node)
            else:
                environ = {"STOMPBRIDGE_LISTEN__PORT": str(port), "STOMPBRIDGE_LISTEN__REUSE_PORT": "true"}
                bridge = Bridge(configs.rabbitmq(url, more), node=node, environ=environ)
                bridge.port = port
            bridges.append(bridge)
            return bridge

        try:
            yield make
            for bridge in bridges:
                assert not bridge.running or bridge.stop() == 0
                bridge.assert_clean_log()
        finally:
            for bridge in bridges:
                bridge.remove()


class Knocker:
    """Connects again and again, and counts what does not come off."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.failed: list[str] = []
        self._port = port
        self._task = asyncio.get_running_loop().create_task(self._knock())

    async def _knock(self) -> None:
        while True:
            try:
                async with asyncio.timeout(10):
                    await self._ask()
            except (OSError, TimeoutError) as error:
                self.failed.append(repr(error))
            self.count += 1
            await asyncio.sleep(0.002)

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.readline()
        finally:
            writer.transport.abort()
        if not answer.startswith(b"HTTP/1.1 "):
            self.failed.append(f"answered {answer!r}")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def begin_load(load: Load, url: str, name: str, pairs: int) -> None:
    """Senders with keys; for each, a queue with named receivers, and a durable subscription to a topic."""
    for number in range(pairs):
        stream, queue, topic = f"s{number}", f"/queue/{name}.{number}", f"/topic/{name}.{number}"
        for copy in range(2):
            await load.receiver(
                f"{stream}.queue.{copy}",
                queue,
                url,
                stream=stream,
                group=f"{stream}.queue",
                ack="client-individual",
                client_id=f"{name}.{number}.{copy}",
            )
        await load.receiver(
            f"{stream}.topic",
            topic,
            url,
            stream=f"{stream}.topic",
            ack="client",
            client_id=f"{name}.{number}.topic",
            headers={"durable": "true", "auto-delete": "false"},
        )
        load.sender(stream, queue, url, stream=stream, keyed=True, window=8)
        load.sender(f"{stream}.t", topic, url, stream=f"{stream}.topic", keyed=True, window=8)


async def take_over(old: Bridge, new: Bridge) -> float:
    """Starts the new process and drains the old one; the seconds that the drain took."""
    await asyncio.to_thread(new.start)
    await asyncio.to_thread(new.wait_ready)
    begun = time.monotonic()
    assert await asyncio.to_thread(old.stop) == 0
    return time.monotonic() - begun


async def upgrade(make: MakeBridge, load: Load, name: str, rounds: int, pairs: int) -> tuple[Figures, Knocker]:
    """The load goes on over as many upgrades."""
    old = make()
    await asyncio.to_thread(old.start)
    await asyncio.to_thread(old.wait_ready)
    await begin_load(load, old.url, name, pairs)
    knocker = Knocker(old.port)
    stopped = asyncio.Event()

    async def send() -> None:
        while not stopped.is_set():
            await load.send(20 * len(load.senders))

    sending = asyncio.create_task(send())
    for _ in range(rounds):
        confirmed = len(load.ledger.confirmed)
        await load.confirmed(confirmed + 200)
        new = make()
        await take_over(old, new)
        await load.confirmed(len(load.ledger.confirmed) + 200)
        old = new
    stopped.set()
    await sending
    await knocker.stop()
    await load.settle()
    return load.ledger.figures(), knocker


@pytest.mark.parametrize("by", ["socket", "reuse_port"])
async def test_nothing_is_lost_and_nothing_comes_twice(
    by: str, rabbitmq: RabbitMQ, load: Load, figure: Figure, name: str
) -> None:
    """The processes share nothing but RabbitMQ: what one knows of senders and receivers is gone with it."""
    with processes(by, rabbitmq.url, "") as make:
        figures, knocker = await upgrade(make, load, name, rounds=1, pairs=2)
    figure(figures.line(f"upgrade by {by}"))
    figure(f"upgrade by {by}: {knocker.count} connections, {len(knocker.failed)} failed {knocker.failed[:3]}")
    assert (figures.lost, figures.duplicated, figures.unexpected) == (0, 0, 0)
    if by == "socket":
        assert knocker.failed == []


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["memory", "redis"])
@pytest.mark.parametrize("by", ["socket", "reuse_port"])
async def test_ten_upgrades(
    by: str, store: str, rabbitmq: RabbitMQ, redis_server: Redis, load: Load, figure: Figure, name: str
) -> None:
    more = f'[dedup]\nstore = "{store}"\nredis_url = "{redis_server.url}"'
    with processes(by, rabbitmq.url, more) as make:
        figures, knocker = await upgrade(make, load, name, rounds=10, pairs=4)
    title = f"10 upgrades by {by}, {store} store"
    figure(figures.line(title))
    figure(f"{title}: {knocker.count} connections, {len(knocker.failed)} failed {knocker.failed[:3]}")
    assert (figures.lost, figures.duplicated, figures.marked, figures.unexpected) == (0, 0, 0, 0)
    if by == "socket":
        assert knocker.failed == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", ["socket", "reuse_port"])
async def test_two_thousand_sessions_move(by: str, rabbitmq: RabbitMQ, load: Load, figure: Figure, name: str) -> None:
    """They are told one after the other over ``drain_time``, and come back at once, while others send and receive."""
    with processes(by, rabbitmq.url, "[listen]\nbacklog = 4096") as make:
        old, new = make(), make()
        await asyncio.to_thread(old.start)
        await asyncio.to_thread(old.wait_ready)
        crowd = Crowd(2000, old.port)
        await crowd.open()
        await begin_load(load, old.url, name, pairs=2)
        stopped = asyncio.Event()

        async def send() -> None:
            while not stopped.is_set():
                await load.send(4 * len(load.senders))

        sending = asyncio.create_task(send())
        await load.confirmed(100)
        # The start of the new process is not part of it.
        seconds = await take_over(old, new)
        begun = min(crowd.told)
        await crowd.settled()
        stopped.set()
        await sending
        await load.settle()
        figures = load.ledger.figures()
        title = f"2,000 sessions move by {by}"
        figure(f"{title}: drained in {seconds:.1f} s; told {dict(crowd.codes)}, broken {crowd.broken}")
        figure(f"{title}: told a second, by half seconds: {histogram(crowd.told, begun)}")
        figure(f"{title}: back a second, by half seconds: {histogram(crowd.back, begun)}")
        figure(f"{title}: away, in ms: {summary(crowd.away)}; refused {len(crowd.refused)} {crowd.refused[:2]}")
        figure(figures.line(title))
        assert crowd.connected == 2000
        assert set(crowd.codes) == {1012}
        assert (figures.lost, figures.duplicated, figures.unexpected) == (0, 0, 0)
        if by == "socket":
            assert (crowd.broken, crowd.refused) == (0, [])
        crowd.close()
