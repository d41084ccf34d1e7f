from __future__ import annotations

import pytest

from stompbridge.config import Limits, Settings
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.rates import Rates, rates
from tests.gateway.world import World


def test_no_rate_costs_nothing() -> None:
    assert rates(Limits(), 0.0) is None


def test_a_burst_of_a_second_is_free_and_the_pause_as_long_as_what_is_beyond_it() -> None:
    pace = Rates(Limits(message_rate=10), 0.0)
    assert [pace.spend(1, 0.0) for _ in range(11)] == [False] * 10 + [True]
    assert not pace.level(0.09)
    assert pace.level(0.1)


def test_bytes_count_of_their_own() -> None:
    pace = Rates(Limits(byte_rate=1000), 0.0)
    assert not pace.spend(1000, 0.0)
    assert pace.spend(500, 0.0)
    assert not pace.level(0.4)
    assert pace.level(0.51)


def test_one_that_never_rests_is_told_apart() -> None:
    pace = Rates(Limits(message_rate=10, rate_patience=5.0), 0.0)
    now = 0.0
    while now < 5.0:
        assert not pace.exhausted(now)
        for _ in range(5):
            pace.spend(1, now)
        now += 0.25
    assert pace.exhausted(6.5)


def test_a_rest_of_a_second_begins_anew() -> None:
    pace = Rates(Limits(message_rate=10, rate_patience=5.0), 0.0)
    for _ in range(11):
        pace.spend(1, 0.0)
    pace.level(1.2)
    assert not pace.exhausted(6.0)


@pytest.fixture
def world() -> World:
    return World(Settings(limits=Limits(message_rate=2, rate_patience=3.0)))


def sends(count: int) -> bytes:
    return b"".join(b"SEND\ndestination:/topic/a\nreceipt:%d\n\nx\0" % number for number in range(count))


async def test_frames_beyond_the_rate_wait(world: World) -> None:
    client, connection = world.client()
    client.on_data(sends(5))
    assert len(connection.receipts()) == 3
    world.now = 0.4
    client.on_check(0.4)
    assert len(connection.receipts()) == 3
    world.now = 0.5
    client.on_check(0.5)
    assert len(connection.receipts()) == 4
    world.now = 1.0
    client.on_check(1.0)
    assert connection.receipts() == ["0", "1", "2", "3", "4"]


async def test_who_keeps_sending_too_fast_gets_an_error(world: World) -> None:
    client, connection = world.client()
    client.on_data(sends(100))
    while connection.closed is None and world.now < 10:
        world.now += 0.5
        client.on_check(world.now)
    assert world.now == 3.0
    assert connection.sent[-1].startswith("ERROR\nmessage:Rate limit exceeded\n")
    assert connection.closed == (CloseReason.RATE_LIMITED, "Rate limit exceeded")
