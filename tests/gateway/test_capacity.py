from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.config import Limits
from stompbridge.gateway.capacity import Capacity, Seat
from stompbridge.gateway.closing import CloseReason

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def enter(capacity: Capacity) -> Seat:
    seat = capacity.enter()
    assert isinstance(seat, Seat)
    return seat


def test_sockets_in_all() -> None:
    capacity = Capacity(Limits(connections=2))
    first, second = enter(capacity), enter(capacity)
    first.accepted()
    assert capacity.enter() is CloseReason.FULL
    second.leave()
    assert (capacity.sockets, capacity.pending) == (1, 0)
    enter(capacity)


def test_pending_in_all() -> None:
    capacity = Capacity(Limits(pending=2))
    first = enter(capacity)
    enter(capacity)
    assert capacity.enter() is CloseReason.PENDING_FULL
    first.accepted()
    first.accepted()
    assert (capacity.sockets, capacity.pending) == (2, 1)
    enter(capacity)
    assert capacity.enter() is CloseReason.PENDING_FULL


def test_sockets_of_an_address() -> None:
    capacity = Capacity(Limits(connections_per_address=2))
    seats = [enter(capacity) for _ in range(4)]
    assert [seat.locate(ONE) for seat in seats[:3]] == [None, None, CloseReason.ADDRESS_FULL]
    assert seats[3].locate(OTHER) is None
    seats[0].accepted()
    assert enter(capacity).locate(ONE) is CloseReason.ADDRESS_FULL
    seats[0].leave()
    assert enter(capacity).locate(ONE) is None


def test_pending_of_an_address() -> None:
    capacity = Capacity(Limits(pending_per_address=1))
    first, second = enter(capacity), enter(capacity)
    assert first.locate(ONE) is None
    assert second.locate(ONE) is CloseReason.ADDRESS_PENDING_FULL
    second.leave()
    first.accepted()
    assert enter(capacity).locate(ONE) is None


@pytest.mark.parametrize(
    ("other", "expected"),
    [("2001:db8:0:1:ffff::9", CloseReason.ADDRESS_FULL), ("2001:db8:0:2::1", None), ("32.1.13.184", None)],
)
def test_a_network_of_64_bits_is_one_address(other: str, expected: CloseReason | None) -> None:
    capacity = Capacity(Limits(connections_per_address=1))
    assert enter(capacity).locate(ip_address("2001:db8:0:1::1")) is None
    assert enter(capacity).locate(ip_address(other)) is expected


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 4)), max_size=60))
def test_counts_are_those_of_the_seats(steps: list[tuple[int, int, int]]) -> None:
    """Whatever happens in whatever order, the table is as long as there are addresses, and empty at the end."""
    capacity = Capacity(Limits(connections=6, pending=5, connections_per_address=3, pending_per_address=2))
    seats: dict[int, Seat] = {}
    at: dict[int, int] = {}
    pending: set[int] = set()
    for number, host, step in steps:
        seat = seats.get(number)
        if seat is None:
            entered = capacity.enter()
            if isinstance(entered, Seat):
                seats[number] = entered
                pending.add(number)
            else:
                assert len(seats) == 6 or len(pending) == 5
        elif step == 0 and number not in at and number in pending:
            if seat.locate(ip_address(f"192.0.2.{host}")) is None:
                at[number] = host
            else:
                seat.leave()
                del seats[number]
                pending.discard(number)
        elif step < 3:
            seat.accepted()
            pending.discard(number)
        else:
            seat.leave()
            seat.leave()
            del seats[number]
            at.pop(number, None)
            pending.discard(number)
        assert (capacity.sockets, capacity.pending) == (len(seats), len(pending))
        hosts = list(at.values())
        expected = {
            ip_address(f"192.0.2.{host}").packed: [hosts.count(host), sum(at.get(n) == host for n in pending)]
            for host in hosts
        }
        assert capacity.addresses == expected
    for seat in seats.values():
        seat.leave()
    assert (capacity.sockets, capacity.pending, capacity.addresses) == (0, 0, {})
