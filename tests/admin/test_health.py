from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from stompbridge.admin.health import BrokerProbe, Check, Health
from stompbridge.admin.lag import LoopLag
from stompbridge.brokers.base import Done, Failure, Message
from stompbridge.brokers.memory import MemoryBroker
from stompbridge.config import BrokerHealth, BrokerSettings, Exchange
from stompbridge.routing.hub import INTERNAL, FrameKey, Hub

EXCHANGE = "healthcheck.exchange.1"
STORE = Check("store", True, "memory")


class Broker(MemoryBroker):
    """The embedded broker, with a way to lose or refuse what is published."""

    def __init__(self) -> None:
        super().__init__(BrokerSettings(exchange=(Exchange(name=EXCHANGE),)))
        self.swallow = False
        self.refusal: Failure | None = None

    def publish(self, message: Message, done: Done) -> None:
        if self.refusal is not None:
            done(self.refusal)
        elif not self.swallow:
            super().publish(message, done)


class Subscriber:
    """Collects the notices on /internal/healthcheck."""

    def __init__(self) -> None:
        self.frame_key = FrameKey("T_h", "h", False, True)
        self.results: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    def write(self, frame: bytes) -> None:
        self.results.put_nowait(json.loads(frame.split(b"\n\n", 1)[1].rstrip(b"\0\n")))

    def deliver(self, frame: bytes, ack_id: str, message: Message) -> None:
        raise AssertionError("ack mode auto")

    async def next(self) -> dict[str, str]:
        return await asyncio.wait_for(self.results.get(), 5)


class Bench:
    def __init__(self, **settings: float) -> None:
        self.broker = Broker()
        self.hub = Hub(self.broker, lambda frame, binary: frame, "boot", 1024, 60.0)
        health = BrokerHealth(exchange=EXCHANGE, **settings)
        self.lag = LoopLag(0.5)
        self.probe = BrokerProbe(health, self.broker, self.hub, "probe.node.boot")
        self.health = Health(self.broker, self.probe, lambda: STORE, self.lag)
        self.subscriber = Subscriber()
        self.hub.subscribe(INTERNAL, "healthcheck", self.subscriber, lambda failure: None)

    def on_mailbox_messages(self, exchange: str, messages: list[Message]) -> None:
        self.hub.on_mailbox_messages(exchange, messages)

    def on_broker_up(self) -> None:
        self.probe.on_broker_up()

    def on_broker_down(self, reason: str) -> None:
        self.probe.on_broker_down(reason)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(interval=0.01, timeout=0.05)
    yield bench
    bench.probe.stop()
    await bench.broker.stop()


async def test_a_probe_that_comes_back_is_a_success_each_interval(bench: Bench) -> None:
    await bench.broker.start(bench)
    for _ in range(3):
        assert await bench.subscriber.next() == {"status": "SUCCESS", "message": f"HEALTH CHECK TO {EXCHANGE}"}
    assert bench.probe.check().ok
    assert bench.probe.round_trip > 0


async def test_a_probe_that_does_not_come_back_fails_and_the_next_may_succeed(bench: Bench) -> None:
    await bench.broker.start(bench)
    await bench.subscriber.next()
    bench.broker.swallow = True
    result = await bench.subscriber.next()
    while result["status"] == "SUCCESS":
        result = await bench.subscriber.next()
    assert result["status"] == "FAIL"
    assert "did not come back within 0.05 s" in result["message"]
    assert not bench.probe.check().ok
    bench.broker.swallow = False
    while (await bench.subscriber.next())["status"] != "SUCCESS":
        pass


async def test_the_loss_of_the_broker_is_told_at_once(bench: Bench) -> None:
    await bench.broker.start(bench)
    await bench.subscriber.next()
    bench.probe.on_broker_down("connection refused")
    while (result := await bench.subscriber.next())["status"] == "SUCCESS":
        pass
    assert result["message"].endswith("FAILED: connection refused")
    bench.probe.on_broker_up()
    assert (await bench.subscriber.next())["status"] == "SUCCESS"


async def test_a_refused_probe_says_why(bench: Bench) -> None:
    bench.broker.refusal = Failure("rejected", "no room", fatal=False)
    await bench.broker.start(bench)
    assert (await bench.subscriber.next())["message"].endswith("FAILED: no room")


async def test_an_exchange_that_can_not_be_listened_to_is_a_failure() -> None:
    bench = Bench(interval=0.01, timeout=0.05)
    probe = BrokerProbe(BrokerHealth(exchange="missing"), bench.broker, bench.hub, "key")
    await bench.broker.start(bench)
    probe.on_broker_up()
    while probe.ok is None:
        await asyncio.wait_for(bench.subscriber.next(), 5)
    assert not probe.ok
    assert "missing" in probe.detail
    bench.probe.stop()
    await bench.broker.stop()


async def test_without_an_exchange_nothing_is_probed() -> None:
    bench = Bench()
    probe = BrokerProbe(BrokerHealth(exchange=""), bench.broker, bench.hub, "key")
    await bench.broker.start(bench)
    probe.on_broker_up()
    probe.on_broker_down("gone")
    assert probe.ok is None
    checks = Health(bench.broker, probe, lambda: STORE, bench.lag).checks()
    assert [check.name for check in checks] == ["broker", "store", "drain", "loop"]
    bench.probe.stop()
    await bench.broker.stop()


async def test_no_probe_is_sent_while_the_broker_is_away(bench: Bench) -> None:
    await bench.broker.start(bench)
    await bench.subscriber.next()
    await bench.broker.stop()
    assert not bench.broker.up
    bench.probe.on_broker_up()


async def test_readiness_names_its_checks(bench: Bench) -> None:
    assert bench.health.livez("")[0] == 200
    status, _, body = bench.health.readyz("")
    assert status == 503
    assert b"[-]broker failed: " in body
    await bench.broker.start(bench)
    await bench.subscriber.next()
    assert bench.health.readyz("") == (200, "text/plain; charset=utf-8", b"ok\n")
    status, _, body = bench.health.readyz("verbose")
    assert status == 200
    assert body.startswith(b"[+]broker ok: connected\n[+]probe ok: probe came back in ")
    assert body.endswith(
        b"[+]store ok: memory\n[+]drain ok: accepting\n"
        b"[+]loop ok: at most 0 ms late in the last 10 s\nreadyz check passed\n"
    )
    bench.lag.tick(100.0)
    bench.lag.tick(102.0)
    status, _, body = bench.health.readyz("")
    assert status == 503
    assert b"[-]loop failed: at most 1500 ms late in the last 10 s\n" in body
    bench.health.draining = True
    status, _, body = bench.health.readyz("")
    assert status == 503
    assert b"[-]drain failed: stopping\n" in body
