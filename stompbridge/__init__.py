"""A bridge from STOMP over WebSocket to RabbitMQ."""

__version__ = "0.1.0"
