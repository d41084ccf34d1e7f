"""RabbitMQ over AMQP 0-9-1."""

from .broker import AmqpBroker

__all__ = ["AmqpBroker"]
