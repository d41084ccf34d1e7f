"""How many sockets there may be: in all and of one address, accepted clients and those that are not yet."""

from __future__ import annotations

from stompbridge.config import Limits
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.proxy import Address


class Seat:
    """What one socket takes up, until :meth:`leave`."""

    __slots__ = ("_capacity", "_key", "_pending", "_taken")

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._key: bytes | None = None
        self._taken = True
        self._pending = True

    def locate(self, address: Address) -> CloseReason | None:
        """Counts the socket among those of ``address``, or says which limit is reached. Once only."""
        capacity = self._capacity
        # A home or an office has a whole /64 of IPv6 (RFC 6177).
        key = address.packed[:8]
        counts = capacity.addresses.get(key)
        if counts is None:
            counts = capacity.addresses[key] = [0, 0]
        elif capacity.per_address and counts[0] >= capacity.per_address:
            return CloseReason.ADDRESS_FULL
        elif counts[1] >= capacity.pending_per_address:
            return CloseReason.ADDRESS_PENDING_FULL
        counts[0] += 1
        counts[1] += 1
        self._key = key
        return None

    def accepted(self) -> None:
        """The client has been let in."""
        if self._pending:
            self._pending = False
            self._capacity.pending -= 1
            if self._key is not None:
                self._capacity.addresses[self._key][1] -= 1

    def leave(self) -> None:
        """The socket is gone, or refused. Does nothing the second time."""
        if not self._taken:
            return
        self.accepted()
        self._taken = False
        capacity = self._capacity
        capacity.sockets -= 1
        if self._key is not None:
            counts = capacity.addresses[self._key]
            counts[0] -= 1
            if not counts[0]:
                del capacity.addresses[self._key]


class Capacity:
    """The counts of a gateway. Its table has an entry for each address with a socket, and no other."""

    __slots__ = (
        "_max_pending",
        "_max_sockets",
        "addresses",
        "pending",
        "pending_per_address",
        "per_address",
        "sockets",
    )

    def __init__(self, limits: Limits) -> None:
        self.use(limits)
        self.sockets = 0
        """Sockets that have a seat."""
        self.pending = 0
        """Those of them whose client has not been let in yet."""
        self.addresses: dict[bytes, list[int]] = {}
        """Both numbers for each address, which stands for its /64 if it is IPv6."""

    def use(self, limits: Limits) -> None:
        """For the sockets to come; those that are there stay."""
        self._max_sockets = limits.connections
        self._max_pending = limits.pending
        self.per_address = limits.connections_per_address
        self.pending_per_address = limits.pending_per_address

    def enter(self) -> Seat | CloseReason:
        """A seat for one more socket, or the limit that is reached."""
        if self.sockets >= self._max_sockets:
            return CloseReason.FULL
        if self.pending >= self._max_pending:
            return CloseReason.PENDING_FULL
        self.sockets += 1
        self.pending += 1
        return Seat(self)
