"""Heart-beats (STOMP 1.2, section "Heart-beating"), with the arithmetic of RabbitMQ's STOMP plugin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf

from .errors import processing_error

_PAIR = re.compile(r"([+-]?[0-9]{1,15}),([+-]?[0-9]{1,15})")
_PATIENCE = 2.5
"""How many intervals without a byte show that the peer is gone."""


@dataclass(frozen=True, slots=True)
class HeartBeat:
    """What was agreed: intervals in seconds, 0 where there are no heart-beats that way.

    ``send`` is the server's longest silence, ``receive`` the client's; ``header`` is CONNECTED's ``heart-beat``.
    """

    send: float = 0.0
    receive: float = 0.0
    header: str = "0,0"

    def send_due(self, now: float, last_write: float, margin: float) -> bool:
        """Whether it is time to send one. ``margin``, in seconds, makes up for how rarely this is asked; at least
        half of the interval passes in silence all the same."""
        return self.send > 0 and now - last_write >= self._silence(margin)

    def expired(self, now: float, last_read: float) -> bool:
        """Whether the client has been silent for so long that it must be taken for gone."""
        return self.receive > 0 and now - last_read >= self.receive * _PATIENCE

    def look_at(self, now: float, last_write: float, last_read: float, margin: float, busy: bool) -> float:
        """When to ask again, so that nothing is missed; ``inf`` where there are no heart-beats. ``busy``: something
        else than a heart-beat was written lately. Of such a write it is known only that it came after the last time
        that was asked, so it takes two in the silence that :meth:`send_due` allows to tell that none is due."""
        at = last_read + self.receive * _PATIENCE if self.receive else inf
        if self.send:
            silence = self._silence(margin)
            # As in send_due, to the last bit: none left means that one was sent.
            left = silence - (now - last_write)
            at = min(at, now + (left if left > 0 else silence), now + silence / 2 if busy else inf)
        return at

    def _silence(self, margin: float) -> float:
        return max(self.send - margin, self.send / 2)


def parse(header: str | None) -> tuple[int, int]:
    """The two numbers of CONNECT's ``heart-beat``, in milliseconds: what the client can send, and what it wants.

    Raises a :class:`~stompbridge.stomp.errors.StompError` where the header is anything else than two integers.
    """
    if header is None:
        return 0, 0
    pair = _PAIR.fullmatch(header)
    if pair is None:
        raise processing_error("'heart-beat' must be two numbers of milliseconds.")
    return int(pair[1]), int(pair[2])


def negotiate(client: tuple[int, int], send_floor_ms: int, receive_floor_ms: int) -> HeartBeat:
    """Answers what the client asked for, never with less than the floors, in milliseconds."""
    can_send, wants = client
    send = _offer(wants, send_floor_ms)
    receive = _offer(can_send, receive_floor_ms)
    return HeartBeat(_agreed(send, wants), _agreed(receive, can_send), f"{send},{receive}")


def _offer(asked: int, floor: int) -> int:
    if asked <= 0:
        return 0
    return max(asked // 1000 * 1000, 1000, floor)


def _agreed(offer: int, asked: int) -> float:
    # The greater of the two counts, and offers are cut to whole seconds.
    return max(offer, asked) / 1000 if offer else 0.0
