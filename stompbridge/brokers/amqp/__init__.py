"""RabbitMQ over AMQP 0-9-1."""

from .broker import AmqpBroker
from .login import Login
from .login_broker import AmqpLoginBroker

__all__ = ["AmqpBroker", "AmqpLoginBroker", "Login"]
