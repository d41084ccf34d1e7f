"""Configurations for the bridges that tests start."""

from __future__ import annotations

from collections.abc import Iterable

EXCHANGES = """
[[broker.exchange]]
name = "chat.exchange"
type = "topic"

[[broker.exchange]]
name = "all.exchange"
type = "topic"
bind = "all"

[[broker.exchange]]
name = "news.fanout"
type = "fanout"

[[broker.exchange]]
name = "orders.direct"
type = "direct"

[[broker.exchange]]
name = "tags.headers"
type = "headers"
"""

CHAT = """
[[app.route]]
destination = "/app/message/{roomId}"
exchange = "chat.exchange"
routing_key = "roomId.{roomId}"
persistent = true
stamp = { roomId = "{roomId:int}", senderSessionId = "{session}", seq = "{snowflake}", createdAt = "{now}" }
"""

HEALTH = """
[health.broker]
exchange = "healthcheck.exchange.1"
interval = "1s"
timeout = "1s"
"""


def memory(*more: str) -> str:
    """A bridge with the embedded broker."""
    return _join(['[broker]\nkind = "memory"', EXCHANGES, CHAT, HEALTH, *more])


def rabbitmq(url: str | Iterable[str], *more: str, broker: str = "") -> str:
    """A bridge on RabbitMQ; ``broker`` are further lines of its ``[broker]`` table."""
    urls = [url] if isinstance(url, str) else list(url)
    listed = ", ".join(f'"{one}"' for one in urls)
    head = f'[broker]\nkind = "rabbitmq"\nurls = [{listed}]\nreconnect_max = "1s"\n{broker}'
    return _join([head, EXCHANGES, CHAT, HEALTH, *more])


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip() for part in parts) + "\n"
