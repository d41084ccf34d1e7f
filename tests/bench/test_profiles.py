"""Samples of a stack, sorted into steps."""

from __future__ import annotations

import pytest

from tests.bench.profiles import STEPS, shares, step_of

ROOT = "run (asyncio/runners.py:190);Runner.run (asyncio/runners.py:118)"


@pytest.mark.parametrize(
    ("frames", "step"),
    [
        ("", "event loop, reading"),
        (";run (stompbridge/daemon.py:330);Runner.run (asyncio/runners.py:118)", "event loop, reading"),
        (";Connection.data_received (stompbridge/gateway/connection.py:270)", "WebSocket in"),
        (";Connection.write (stompbridge/gateway/connection.py:140)", "write to clients"),
        (";Client._run (stompbridge/gateway/client.py:211);FrameParser._body (stompbridge/stomp/parser.py:1)", "STOMP"),
        (";Client._on_send (/x/stompbridge/gateway/client.py);__init__ (<string>:2)", "session"),
        (";message_from_send (stompbridge/routing/headers.py:51)", "SEND to message"),
        (";shared_part (stompbridge/routing/headers.py:101)", "MESSAGE frame"),
        (";Hub._frame (stompbridge/routing/hub.py:354)", "MESSAGE frame"),
        (";Hub._fan_out (stompbridge/routing/hub.py:293)", "match"),
        (";encode_publish (stompbridge/brokers/amqp/codec.py:59)", "publish"),
        (";_encode_header (stompbridge/brokers/amqp/codec.py:92)", "publish"),
        (";decode_message (stompbridge/brokers/amqp/codec.py:168)", "RabbitMQ's frames in"),
        (";Wire._flush (stompbridge/brokers/amqp/wire.py:250)", "write to RabbitMQ"),
        (";Wire.received (stompbridge/brokers/amqp/wire.py:250)", "RabbitMQ's frames in"),
        (";Client.on_check (stompbridge/gateway/client.py:1)", "sweep"),
        (";show (stompbridge/log.py:1)", "other"),
    ],
)
def test_step(frames: str, step: str) -> None:
    assert step_of(ROOT + frames).startswith(step)


def test_shares() -> None:
    found = shares([f"{ROOT} 3", f"{ROOT};Connection.write (stompbridge/gateway/connection.py:140) 1"])
    assert found["event loop, reading"] == 0.75
    assert found["write to clients"] == 0.25
    assert sum(found.values()) == 1
    assert list(found) == list(STEPS)


def test_no_samples() -> None:
    assert shares([]) == {}
