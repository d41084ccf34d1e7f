"""The bridge with a known fault, so that the checker can be seen to find it: ``broken_bridge.py FAULT serve ...``.

``forgets``: nothing is recognised when it comes again. ``hurries``: a queue's messages are acknowledged to the broker
before they are delivered.
"""

from __future__ import annotations

import sys

from stompbridge.brokers.base import Message
from stompbridge.cli import main
from stompbridge.dedup.window import Verdict
from stompbridge.gateway.subscriptions import QueueReceiver
from stompbridge.routing.history import Copy, QueueHistory
from stompbridge.routing.identity import Identity
from stompbridge.routing.seen import Seen


def forget() -> None:
    """Turns the recognition of copies off."""

    def check_and_record(self: Seen, identity: Identity, now: float) -> Verdict:
        return Verdict.NEW

    def admit(self: QueueHistory, copy: Copy) -> bool:
        return True

    Seen.check_and_record = check_and_record  # type: ignore[method-assign]
    QueueHistory.admit = admit  # type: ignore[method-assign]


def hurry() -> None:
    """Acknowledges first."""
    deliver = QueueReceiver.on_queue_message

    def on_queue_message(self: QueueReceiver, message: Message, tag: int) -> None:
        assert self._consumer is not None
        self._consumer.ack((tag,))
        deliver(self, message, tag)

    QueueReceiver.on_queue_message = on_queue_message  # type: ignore[method-assign]


if __name__ == "__main__":
    {"forgets": forget, "hurries": hurry}[sys.argv.pop(1)]()
    main()
