"""The RabbitMQ broker does what every broker must do."""

from __future__ import annotations

import pytest

from stompbridge.brokers.amqp import AmqpBroker
from stompbridge.config import BrokerSettings
from tests.brokers.conformance import BrokerConformance, Calls, Inbox, MakeBroker, Names
from tests.support.rabbitmq import RabbitMQ


@pytest.mark.rabbitmq
class TestAmqpBroker(BrokerConformance):
    @pytest.fixture
    def make_broker(self, rabbitmq: RabbitMQ) -> MakeBroker:
        settings = BrokerSettings(kind="rabbitmq", urls=(rabbitmq.url,), bind_linger=0)
        return lambda exchanges: AmqpBroker(settings, "test", exchanges)

    async def test_cancel_gives_back(self, calls: Calls, names: Names) -> None:
        """As everywhere, but RabbitMQ may mark what it had sent on its way before it read of the cancel."""
        spec = names.spec(auto_delete=False, arguments={"x-expires": 60_000})
        first, second = Inbox(), Inbox()
        consumer = await calls.consume(spec, first, prefetch=2)
        for number in range(4):
            assert await calls.publish("", names.queue, b"%d" % number) is None
        tags = [(await first.next())[1] for _ in range(2)]
        consumer.ack(tags[:1])
        await calls.cancel(consumer)
        consumer.ack(tags[1:])
        await calls.cancel(consumer)
        await calls.consume(spec, second)
        received = [(await second.next())[0] for _ in range(3)]
        assert [message.body for message in received] == [b"1", b"2", b"3"]
        assert received[0].redelivered
        assert first.messages.empty()
