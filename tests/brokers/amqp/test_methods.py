"""Requests, against pamqp."""

from __future__ import annotations

from typing import Any

import pamqp.frame
import pytest
from pamqp import commands

from stompbridge.brokers.amqp import methods
from stompbridge.brokers.amqp.codec import frame
from stompbridge.brokers.amqp.methods import Request

ARGUMENTS = {"x-max-length": 5, "x-queue-type": "quorum"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (methods.channel_open(), commands.Channel.Open()),
        (methods.channel_close(), commands.Channel.Close(200, "", 0, 0)),
        (methods.confirm_select(), commands.Confirm.Select()),
        (
            methods.exchange_declare("e", "topic", durable=True),
            commands.Exchange.Declare(0, "e", "topic", durable=True),
        ),
        (methods.exchange_declare("e", passive=True), commands.Exchange.Declare(0, "e", "", passive=True)),
        (
            methods.queue_declare("q", durable=True, auto_delete=True, arguments=ARGUMENTS),
            commands.Queue.Declare(0, "q", durable=True, auto_delete=True, arguments=ARGUMENTS),
        ),
        (methods.queue_declare("q", passive=True), commands.Queue.Declare(0, "q", passive=True)),
        (methods.queue_declare("", exclusive=True), commands.Queue.Declare(0, "", exclusive=True)),
        (methods.queue_bind("q", "e", "k", {"x": "y"}), commands.Queue.Bind(0, "q", "e", "k", arguments={"x": "y"})),
        (methods.queue_unbind("q", "e", "k"), commands.Queue.Unbind(0, "q", "e", "k")),
        (methods.queue_delete("q"), commands.Queue.Delete(0, "q")),
        (methods.basic_qos(10), commands.Basic.Qos(0, 10)),
        (methods.basic_qos(1_000_000), commands.Basic.Qos(0, 65535)),
        (
            methods.basic_consume("q", "t", {"x-priority": 1}),
            commands.Basic.Consume(0, "q", "t", arguments={"x-priority": 1}),
        ),
    ],
)
def test_requests(request_: Request, expected: Any) -> None:
    _, channel, decoded = pamqp.frame.unmarshal(frame(1, 3, request_.payload))
    assert channel == 3
    assert type(decoded) is type(expected)
    ignored = {"out_of_band": None}  # reserved; pamqp fills it in
    assert dict(decoded) | ignored == dict(expected) | ignored
    replies = {name.replace("-", "").lower() for name in expected.valid_responses}
    _, _, reply = pamqp.frame.unmarshal(frame(1, 3, request_.reply + bytes(20)))
    assert reply is not None
    assert reply.name.lower() in replies


def test_close() -> None:
    payload = pamqp.frame.marshal(commands.Channel.Close(404, "NOT_FOUND - x", 50, 20), 1)[7:-1]
    close = methods.read_close(payload)
    assert close.cause == methods.QUEUE_BIND
    assert (close.failure.code, close.failure.text, close.failure.fatal) == ("not_found", "NOT_FOUND - x", True)
    assert methods.failure(999, "x").code == "error_999"


def test_what_a_declaration_answers() -> None:
    payload = pamqp.frame.marshal(commands.Queue.DeclareOk("name", 7, 3), 1)[7:-1]
    assert methods.read_queue_name(payload) == "name"
    assert methods.read_queue_counts(payload) == (7, 3)


def test_a_cancel_without_an_answer() -> None:
    _, _, decoded = pamqp.frame.unmarshal(frame(1, 3, methods.basic_cancel("t")))
    assert dict(decoded) == dict(commands.Basic.Cancel("t", nowait=True))
