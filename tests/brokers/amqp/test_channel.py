"""A channel without a connection."""

from __future__ import annotations

import asyncio

import pamqp.frame
import pytest
from pamqp import commands
from pamqp.base import Frame

from stompbridge.brokers.amqp import methods
from stompbridge.brokers.amqp.channel import Channel, ChannelClosed, LinkLost, Reply
from stompbridge.brokers.amqp.splitter import StreamError
from stompbridge.brokers.base import Failure

NOT_FOUND = "NOT_FOUND - no exchange 'x' in vhost '/'"


class Wire:
    """Keeps what is sent."""

    frame_max = 4096
    answers_cancel = False

    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.released: list[int] = []

    def send(self, data: bytes) -> None:
        while data:
            size, _, frame = pamqp.frame.unmarshal(data)
            assert isinstance(frame, Frame)
            self.sent.append(frame)
            data = data[size:]

    def release(self, channel: Channel) -> None:
        self.released.append(channel.number)

    @property
    def names(self) -> list[str]:
        return [frame.name for frame in self.sent]


def payload(frame: Frame) -> bytes:
    return pamqp.frame.marshal(frame, 3)[7:-1]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def channel(wire: Wire) -> Channel:
    return Channel(wire, 3)


def test_replies_come_in_order(channel: Channel, wire: Wire) -> None:
    answers: list[tuple[int, Reply]] = []
    for number in range(3):
        channel.request(methods.queue_bind("q", "e", str(number)), lambda reply, n=number: answers.append((n, reply)))
    assert channel.busy
    for _ in range(3):
        channel.method(payload(commands.Queue.BindOk()))
    assert answers == [(number, methods.QUEUE_BIND_OK) for number in range(3)]
    assert not channel.busy
    assert wire.names == ["Queue.Bind"] * 3


def test_an_unexpected_reply(channel: Channel) -> None:
    with pytest.raises(StreamError):
        channel.method(payload(commands.Queue.BindOk()))
    channel.request(methods.basic_qos(1), lambda reply: None)
    with pytest.raises(StreamError):
        channel.method(payload(commands.Queue.BindOk()))


def test_the_broker_closes_it_for_one_request(channel: Channel, wire: Wire) -> None:
    answers: list[Reply] = []
    closed: list[Failure] = []
    channel.on_closed = closed.append
    for key in ("a", "b"):
        channel.request(methods.queue_bind("q", "x", key), answers.append)
    channel.method(payload(commands.Channel.Close(404, NOT_FOUND, 50, 20)))
    first, second = answers
    assert isinstance(first, ChannelClosed)
    assert isinstance(second, ChannelClosed)
    assert (first.failure, first.culprit) == (Failure("not_found", NOT_FOUND), True)
    assert (second.failure, second.culprit) == (Failure("not_found", NOT_FOUND), False)
    assert closed == [Failure("not_found", NOT_FOUND)]
    assert wire.names[-1] == "Channel.CloseOk"
    assert wire.released == [3]
    channel.ack(1)
    assert wire.names[-1] == "Channel.CloseOk"
    with pytest.raises(ChannelClosed):
        channel.request(methods.basic_qos(1), answers.append)


def test_the_broker_closes_it_for_something_else(channel: Channel) -> None:
    answers: list[Reply] = []
    channel.request(methods.queue_bind("q", "x", "k"), answers.append)
    channel.method(payload(commands.Channel.Close(406, "PRECONDITION_FAILED - unknown delivery tag 5", 60, 80)))
    assert isinstance(answers[0], ChannelClosed)
    assert not answers[0].culprit


def test_we_close_it(channel: Channel, wire: Wire) -> None:
    answers: list[Reply] = []
    done: list[str] = []
    channel.request(methods.basic_qos(1), answers.append)
    channel.close(lambda: done.append("closed"))
    channel.close()
    assert isinstance(answers[0], ChannelClosed)
    channel.method(payload(commands.Basic.QosOk()))
    channel.method(payload(commands.Basic.Cancel("c", True)))
    assert done == []
    channel.method(payload(commands.Channel.CloseOk()))
    assert done == ["closed"]
    assert wire.released == [3]
    assert wire.names == ["Basic.Qos", "Channel.Close"]


def test_without_anybody_who_waits(channel: Channel, wire: Wire) -> None:
    channel.close()
    channel.method(payload(commands.Channel.CloseOk()))
    assert wire.released == [3]


@pytest.mark.parametrize("wait", [True, False])
def test_both_close_it(channel: Channel, wire: Wire, wait: bool) -> None:
    done: list[str] = []
    closed: list[Failure] = []
    channel.on_closed = closed.append
    channel.close((lambda: done.append("closed")) if wait else None)
    channel.method(payload(commands.Channel.Close(404, NOT_FOUND, 60, 40)))
    assert done == (["closed"] if wait else [])
    assert closed == []
    assert wire.names == ["Channel.Close", "Channel.CloseOk"]


def test_the_link_is_lost(channel: Channel) -> None:
    answers: list[Reply] = []
    channel.request(methods.basic_qos(1), answers.append)
    channel.connection_lost("gone")
    assert isinstance(answers[0], LinkLost)
    with pytest.raises(LinkLost, match="gone"):
        channel.request(methods.basic_qos(1), answers.append)
    channel.close()


@pytest.mark.parametrize("answers", [True, False])
def test_the_broker_cancels_a_consumer(channel: Channel, wire: Wire, answers: bool) -> None:
    wire.answers_cancel = answers
    cancelled: list[str] = []
    channel.on_cancelled = cancelled.append
    channel.method(payload(commands.Basic.Cancel("tag", True)))
    assert cancelled == ["tag"]
    assert wire.names == (["Basic.CancelOk"] if answers else [])
    if answers:
        assert dict(wire.sent[0]) == {"consumer_tag": "tag"}


def test_acknowledgements(channel: Channel, wire: Wire) -> None:
    channel.ack(1)
    channel.ack(2, multiple=True)
    channel.nack(3, False, True)
    assert wire.names == ["Basic.Ack", "Basic.Ack", "Basic.Nack"]


def test_a_request_that_is_too_large(channel: Channel, wire: Wire) -> None:
    request = methods.queue_declare("q", arguments={"x": "y" * 5000})
    with pytest.raises(ValueError, match="exceeds the broker's frame size"):
        channel.request(request, lambda reply: None)
    assert wire.sent == []
    assert channel.frame_max == 4096
    wire.frame_max = 0
    channel.request(request, lambda reply: None)


async def test_waiting_for_an_answer(channel: Channel) -> None:
    call = asyncio.ensure_future(channel.call(methods.queue_declare("")))
    await asyncio.sleep(0)
    channel.method(payload(commands.Queue.DeclareOk("amq.gen-1", 0, 0)))
    assert methods.read_queue_name(await call) == "amq.gen-1"
    call = asyncio.ensure_future(channel.call(methods.queue_declare("")))
    await asyncio.sleep(0)
    channel.method(payload(commands.Channel.Close(405, "RESOURCE_LOCKED - x", 50, 10)))
    with pytest.raises(ChannelClosed, match="RESOURCE_LOCKED"):
        await call


async def test_an_answer_to_somebody_who_left(channel: Channel) -> None:
    call = asyncio.ensure_future(channel.call(methods.basic_qos(1)))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    channel.method(payload(commands.Basic.QosOk()))
    assert not channel.busy


async def test_no_answer(channel: Channel, wire: Wire) -> None:
    with pytest.raises(ChannelClosed) as refusal:
        await channel.call(methods.basic_qos(1), within=0.01)
    assert refusal.value.failure.code == "broker_unavailable"
    assert wire.names == ["Basic.Qos", "Channel.Close"]
