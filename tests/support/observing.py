"""What scenarios look at besides frames: what is left in a queue, how a connection ends."""

from __future__ import annotations

from typing import Any

from aiormq.exceptions import ChannelNotFoundEntity

from tests.support.parity import TIMEOUT, Peer, Shown, Target


async def left(target: Target, queue: str) -> list[tuple[str, str]]:
    """What is in a queue once nobody consumes from it, which it is emptied of: ``new`` or ``again``, and the body."""
    channel = await target.channel()

    async def idle() -> bool:
        declared = await channel.queue_declare(queue, passive=True)
        return not declared.consumer_count

    await target.until(idle)
    found = []
    while (got := await channel.basic_get(queue, no_ack=True)).body or got.delivery_tag:
        found.append(("again" if got.redelivered else "new", got.body.decode()))
    await channel.close()
    return found


async def exists(target: Target, queue: str) -> bool:
    """Whether there is such a queue."""
    channel = await target.channel()
    try:
        await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


async def make_queue(target: Target, name: str = "q", **arguments: Any) -> str:
    """A queue of an ordinary AMQP client, with ``arguments`` whose ``_`` stand for ``-``; returns its name."""
    channel = await target.channel()
    queue = target.name(name)
    await channel.queue_declare(
        queue, durable=True, arguments={name.replace("_", "-"): value for name, value in arguments.items()}
    )
    await channel.close()
    return queue


def summary(shown: Shown | str) -> str:
    """A frame without its details, which are each side's own words: command, and receipt, message or body."""
    if isinstance(shown, str):
        return shown
    command, headers, body = shown
    return f"{command} {headers.get('message') or headers.get('receipt-id') or body}".strip()


def summaries(shown: list[Shown | str]) -> list[str]:
    return [summary(one) for one in shown]


def without_cause(shown: list[Shown | str]) -> list[Shown | str]:
    """Frames, with nothing but the ``message`` of a ``Processing error``: its body is RabbitMQ's ``Processing error``,
    and says the cause in stompbridge (one row asserts that)."""
    return [
        (one[0], one[1], "") if not isinstance(one, str) and one[1].get("message") == "Processing error" else one
        for one in shown
    ]


async def closing(peer: Peer, within: float = TIMEOUT) -> tuple[list[str], int, str]:
    """What comes until the connection ends, and how it ends: WebSocket close code and reason (1006 over TCP)."""
    shown = summaries(await peer.ending(within))
    return shown, peer.close_code, getattr(peer.ws, "close_reason", None) or ""
