"""``/metrics`` of a bridge under some traffic, on both brokers."""

from __future__ import annotations

import pytest

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.metrics import names, scrape, scrape_until
from tests.support.promtool import promtool
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis import Redis


def moved(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What has changed between two scrapes."""
    return {name: after[name] - before.get(name, 0.0) for name in after if after[name] != before.get(name, 0.0)}


def frames(direction: str, command: str) -> str:
    return f'stompbridge_frames_total{{command="{command}",direction="{direction}"}}'


async def test_what_clients_do_is_counted(bridge: Bridge, connect: Connect, name: str) -> None:
    before = scrape(bridge)
    clients = [await connect() for _ in range(3)]
    for client in clients:
        await client.subscribe(f"/topic/{name}", ack="client")
    for number in range(5):
        await clients[0].send_and_wait(f"/topic/{name}", str(number))
    held = [(await client.messages(5))[-1] for client in clients]
    holding = moved(before, scrape(bridge))
    assert holding["stompbridge_sessions_open"] == holding["stompbridge_sessions_opened_total"] == 3
    assert holding["stompbridge_unacked_messages"] == 15
    await clients[0].acknowledge(held[0])
    await clients[1].send_frame("NACK", {"id": held[1].headers["ack"], "requeue": "false"})
    await clients[1].alive()
    await clients[2].send_frame("BEGIN", {"transaction": "t"})
    await clients[2].send_frame("NONSENSE")
    await clients[2].error()
    await clients[0].disconnect()

    ended = 'stompbridge_sockets_closed_total{reason="client_disconnect"}'
    change = moved(before, scrape_until(bridge, lambda samples: samples[ended] > before[ended]))
    assert change[frames("in", "CONNECT")] == change[frames("out", "CONNECTED")] == 3
    assert change[frames("in", "SUBSCRIBE")] == 3
    assert change[frames("in", "SEND")] >= change["stompbridge_sends_total"] >= 5
    assert change[frames("out", "MESSAGE")] == change["stompbridge_deliveries_total"] == 15
    assert change[frames("in", "ACK")] == change[frames("in", "NACK")] == 1
    assert change[frames("in", "DISCONNECT")] == change[frames("in", "invalid")] == change[frames("out", "ERROR")] == 1
    # Of what is asked with a receipt all but the ERROR is answered with one.
    assert change[frames("out", "RECEIPT")] >= 3 + 5 + 1
    assert change['stompbridge_client_bytes_total{direction="in"}'] > 1000
    assert change['stompbridge_client_bytes_total{direction="out"}'] > 1500
    assert change["stompbridge_publish_seconds_count"] >= 5
    assert change["stompbridge_delivery_seconds_count"] >= 5
    assert change['stompbridge_publish_results_total{result="confirmed"}'] >= 5
    assert 0 < change["stompbridge_publish_seconds_sum"] < 60
    assert change[ended] == 1
    assert not [sample for sample, by in change.items() if sample.partition("{")[0].endswith("_total") and by < 0]


async def test_promtool_is_content(bridge: Bridge, connect: Connect, name: str) -> None:
    client = await connect()
    await client.subscribe(f"/topic/{name}")
    await client.send_and_wait(f"/topic/{name}", "x")
    await client.message("x")
    status, text = bridge.get("/metrics")
    assert status == 200
    assert promtool("check", "metrics", text=text.encode()) == ""
    assert {"stompbridge_sessions_open", "process_resident_memory_bytes"} <= names(text)


@pytest.mark.redis
async def test_named_clients_and_keys(
    redis_server: Redis, start_bridge: StartBridge, connect: Connect, name: str
) -> None:
    bridge = start_bridge(configs.memory(f'[dedup]\nstore = "redis"\nredis_url = "{redis_server.url}"'))
    before = scrape(bridge)
    client = await connect(bridge, headers={"client-id": name})
    await client.subscribe(f"/topic/{name}", ack="client")
    for _ in range(2):
        await client.send_and_wait(f"/topic/{name}", "x", **{"idempotency-key": name})
    await client.message("x")
    client.abort()
    again = await connect(bridge, headers={"client-id": name})
    await again.alive()
    change = moved(before, scrape(bridge))
    assert change['stompbridge_suppressed_total{at="sender"}'] == 1
    assert change["stompbridge_store_calls_total"] > 0
    assert scrape(bridge)["stompbridge_store_up"] == 1


@pytest.mark.rabbitmq
async def test_links_of_logins(rabbitmq: RabbitMQ, start_bridge: StartBridge, connect: Connect, name: str) -> None:
    rest = '[auth]\nbackend = "rabbitmq"'
    bridge = start_bridge(configs.rabbitmq(rabbitmq.url, rest))
    bridge.wait_ready()
    client = await connect(bridge, headers={"login": "guest", "passcode": "guest", "host": "/"})
    await client.subscribe(f"/topic/{name}")
    await client.send_and_wait(f"/topic/{name}", "x")
    await client.message("x")
    refused = await connect(bridge, connected=False)
    await refused.send_frame("CONNECT", {"accept-version": "1.2", "login": "guest", "passcode": "no", "host": "/"})
    await refused.error()
    samples = scrape(bridge)
    assert samples["stompbridge_login_links"] == samples["stompbridge_login_links_opened_total"] == 1
    assert samples["stompbridge_login_links_refused_total"] == 1
    assert samples['stompbridge_logins_total{result="accepted"}'] == 1
    assert samples['stompbridge_logins_total{result="refused"}'] == 1
    # Those of the bridge's own link, for its probes, are there, too.
    assert samples['stompbridge_consumed_total{source="mailbox"}'] >= 2
    assert samples["stompbridge_bindings"] >= 2
