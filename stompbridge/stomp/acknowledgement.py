"""What a session has sent and its client has not acknowledged (STOMP 1.2, sections "ACK" and "NACK")."""

from __future__ import annotations

from collections.abc import Container
from functools import partial
from itertools import takewhile
from operator import is_not

from . import errors
from .errors import StompError
from .events import AckMode, Delivery, Subscription
from .frames import Frame, Version


class Unacknowledged:
    """A session's unacknowledged deliveries: ``waiting``, by the value that the client will acknowledge them with, in
    the order in which they were sent. The session adds to it directly.

    Of ended subscriptions, the last ``remembered`` that left something unacknowledged are remembered, so that a late
    ACK is told from a wrong one.
    """

    __slots__ = ("_released", "_remembered", "waiting")

    def __init__(self, remembered: int) -> None:
        self.waiting: dict[str, Delivery] = {}
        self._remembered = remembered
        # By tag of an ended subscription: the last message that went back with it.
        self._released: dict[str, str] = {}

    def find(self, frame: Frame, version: Version, tags: Container[str]) -> Delivery:
        """What an ACK or NACK names. ``tags`` are those of the subscriptions that stand.

        Raises a :class:`~stompbridge.stomp.errors.StompError` where nothing waits under that name.
        """
        header = "id" if version is Version.V12 else "message-id"
        ack_id = frame.headers.get(header)
        if ack_id is None:
            raise errors.missing_ack_header(frame.command, header)
        delivery = self.waiting.get(ack_id)
        if delivery is None:
            raise self._not_waiting(frame.command, header, ack_id, tags)
        return delivery

    def take(self, delivery: Delivery) -> list[Delivery]:
        """Takes out what the acknowledgement of ``delivery`` stands for. In mode ``client`` that is all that was sent
        before it as well, whatever subscription it was sent to: RabbitMQ's plugin has one channel for them all."""
        waiting = self.waiting
        taken: list[Delivery] = []
        if delivery.subscription.ack is AckMode.CLIENT:
            taken.extend(takewhile(partial(is_not, delivery), waiting.values()))
        taken.append(delivery)
        for each in taken:
            del waiting[each.ack_id]
        return taken

    def release(self, subscription: Subscription) -> list[Delivery]:
        """Takes out all of a subscription that ends."""
        released = [delivery for delivery in self.waiting.values() if delivery.subscription is subscription]
        for delivery in released:
            del self.waiting[delivery.ack_id]
        if released:
            self._released.pop(subscription.tag, None)
            self._released[subscription.tag] = released[-1].ack_id
            if len(self._released) > self._remembered:
                del self._released[next(iter(self._released))]
        return released

    def _not_waiting(self, command: str, header: str, ack_id: str, tags: Container[str]) -> StompError:
        # An identifier is a tag, which may contain the separator, a session and a number.
        parts = ack_id.rsplit("@@", 2)
        if len(parts) < 3:
            return errors.invalid_ack_header(command, header)
        tag, _, number = parts
        if not (number.isdigit() and number.isascii()):
            return errors.processing_error(f"'{header}' must end with a number.")
        if tag not in tags or self._was_released(tag, number):
            return errors.subscription_not_found(ack_id)
        return errors.unknown_delivery_tag(number)

    def _was_released(self, tag: str, number: str) -> bool:
        """Whether a message went back with an earlier subscription of the same id: its late ACK harms nobody."""
        last = self._released.get(tag)
        return last is not None and _number_before_or_at(number, last.rpartition("@")[2])


def _number_before_or_at(number: str, last: str) -> bool:
    # Compared as digits: int() refuses thousands of them with an error of its own.
    return (len(number), number) <= (len(last), last)
