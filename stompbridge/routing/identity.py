"""By what a message is recognised when it comes again."""

from __future__ import annotations

from stompbridge.brokers.base import Message

KEYED = "key:"
"""What the message id of a SEND with an ``idempotency-key`` begins with. Made of the key and the body, it is the same
when another process publishes the message once more."""

Identity = tuple[str, int] | str
"""Its sender and the sender's running number, or its message id."""


def identity_of(message: Message) -> Identity | None:
    """None for a message that can not be told from another: a program's without ``message_id``. Then only the broker's
    ``redelivered`` flag speaks for it. What the broker dead-lettered goes round again on purpose, and is new."""
    message_id = message.message_id
    if message.headers and "x-death" in message.headers:
        return None
    if message.sender is not None and not (message_id is not None and message_id.startswith(KEYED)):
        return message.sender, message.seq
    return message_id or None
