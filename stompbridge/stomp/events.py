"""What a session says happened, and the values that its events carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .errors import StompError
from .frames import Version
from .heartbeat import HeartBeat


class AckMode(Enum):
    """SUBSCRIBE's ``ack``."""

    AUTO = "auto"
    CLIENT = "client"
    CLIENT_INDIVIDUAL = "client-individual"


@dataclass(slots=True, eq=False)
class Subscription:
    """One SUBSCRIBE. ``tag`` identifies it within its session: ``T_<id>``, or ``Q_<destination>`` without an id."""

    id: str | None
    destination: str
    ack: AckMode
    tag: str
    headers: dict[str, str]


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that was sent and not acknowledged. ``token`` is its sender's own affair."""

    subscription: Subscription
    ack_id: str
    token: object


@dataclass(slots=True)
class Connect:
    """To be answered by :meth:`ServerSession.accept` or :meth:`ServerSession.refuse`; no event follows before."""

    headers: dict[str, str]
    version: Version
    heartbeat: HeartBeat


@dataclass(slots=True)
class Send:
    destination: str
    headers: dict[str, str]
    body: bytes
    receipt: str | None


@dataclass(slots=True)
class Subscribe:
    """The subscription stands in the session already: ``forget`` it where it cannot be had."""

    subscription: Subscription
    receipt: str | None


@dataclass(slots=True)
class Unsubscribe:
    """``released`` are the subscription's unacknowledged deliveries, which no ACK will reach any more."""

    subscription: Subscription
    headers: dict[str, str]
    released: list[Delivery]
    receipt: str | None


@dataclass(slots=True)
class Settle:
    """ACK or, with ``ack`` false, NACK of deliveries in the order in which they were sent."""

    deliveries: list[Delivery]
    ack: bool
    requeue: bool
    receipt: str | None


@dataclass(slots=True)
class Commit:
    """What a transaction gathered, in its order; SENDs have receipts of their own."""

    actions: list[Send | Settle]
    receipt: str | None


@dataclass(slots=True)
class Keep:
    """A SEND in a transaction, to be answered by :meth:`ServerSession.keep` or, where it could not be served, by
    :meth:`ServerSession.error`: not only COMMIT tells that a destination is wrong. No receipt follows."""

    send: Send
    transaction: str
    receipt: str | None


@dataclass(slots=True)
class Done:
    """There is nothing to do but the receipt: BEGIN, ABORT, and what a transaction keeps for its COMMIT."""

    receipt: str | None


@dataclass(slots=True)
class Disconnect:
    receipt: str | None


@dataclass(slots=True)
class Refused:
    """To be answered by :meth:`ServerSession.error`."""

    error: StompError
    receipt: str | None


Event = Connect | Send | Keep | Subscribe | Unsubscribe | Settle | Commit | Done | Disconnect | Refused
