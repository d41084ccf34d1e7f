"""``reply-to:/temp-queue/NAME`` on a SEND: a queue of the session's own for the answers.

It is made for the first SEND that names it. Its messages come as those of a subscription with the id
``/temp-queue/NAME``, which lives as long as the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stompbridge.brokers.base import Failure
from stompbridge.gateway.subscriptions import QueueReceiver, SubscriptionReceiver
from stompbridge.routing.destinations import TEMPORARY
from stompbridge.stomp import errors
from stompbridge.stomp.session import AckMode, Send, Subscription

if TYPE_CHECKING:
    from stompbridge.gateway.client import Client


def prepare(client: Client, event: Send, made: Callable[[SubscriptionReceiver, Failure | None], None]) -> bool:
    """Puts the queue's name in the place of ``/temp-queue/NAME`` in a SEND's ``reply-to``.

    Returns True where the queue has to be made first: the SEND is to be tried again when ``made`` is called, which
    may be inside. Raises :class:`~stompbridge.stomp.errors.StompError` for a SEND that would be refused anyway, and
    for one subscription too many.
    """
    text = event.headers["reply-to"]
    if not text.startswith(TEMPORARY):
        return False
    tag = f"T_{text}"
    receiver = client.receivers.get(tag)
    if receiver is None:
        client.router.check(client, event)
        subscriptions, limit = client.session.subscriptions, client.shared.limits.subscriptions
        if len(subscriptions) >= limit:
            raise errors.limit("subscriptions", limit, fatal=False)
        subscription = subscriptions[tag] = Subscription(text, text, AckMode.AUTO, tag, {})
        receiver = QueueReceiver(client, subscription, client.router.plan_reply(), client.router, None)
        client.start_receiver(receiver, made)
        return True
    assert isinstance(receiver, QueueReceiver)
    event.headers["reply-to"] = receiver.spec.name
    return False
