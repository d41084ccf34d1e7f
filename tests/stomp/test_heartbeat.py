"""Heart-beat negotiation and deadlines."""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stompbridge.stomp.errors import StompError
from stompbridge.stomp.heartbeat import HeartBeat, negotiate, parse


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (0, 0)),
        ("0,0", (0, 0)),
        ("10000,20000", (10000, 20000)),
        ("-5,+7", (-5, 7)),
        ("0001,999999999999999", (1, 999999999999999)),
    ],
)
def test_parse(header: str | None, expected: tuple[int, int]) -> None:
    assert parse(header) == expected


@pytest.mark.parametrize(
    "header",
    ["", "1", "1,", ",1", "1,2,3", "a,b", "1.5,2", " 1,2", "1, 2", "1,2\n", "٣,٣", "1,--2", "9" * 5000 + ",0", "0x1,2"],
)
def test_parse_garbage(header: str) -> None:
    with pytest.raises(StompError) as caught:
        parse(header)
    assert caught.value.message == "Processing error"
    assert not caught.value.fatal


@pytest.mark.parametrize(
    ("client", "floors", "header", "send", "receive"),
    [
        ((0, 0), (1000, 1000), "0,0", 0, 0),
        ((-1, -1), (1000, 1000), "0,0", 0, 0),
        ((500, 500), (1000, 1000), "1000,1000", 1, 1),
        ((1500, 2999), (1000, 1000), "2000,1000", 2.999, 1.5),
        ((0, 5000), (1000, 1000), "5000,0", 5, 0),
        ((5000, 0), (1000, 1000), "0,5000", 0, 5),
        ((20000, 20000), (1000, 1000), "20000,20000", 20, 20),
        ((1000, 1000), (0, 0), "1000,1000", 1, 1),
        ((1000, 2000), (10000, 5000), "10000,5000", 10, 5),
        ((1, 1), (1500, 2500), "1500,2500", 1.5, 2.5),
    ],
)
def test_negotiate(client: tuple[int, int], floors: tuple[int, int], header: str, send: float, receive: float) -> None:
    assert negotiate(client, *floors) == HeartBeat(send, receive, header)


def test_nothing_agreed() -> None:
    none = HeartBeat()
    assert none.header == "0,0"
    assert not none.send_due(1e9, 0, 0)
    assert not none.expired(1e9, 0)


@pytest.mark.parametrize(
    ("send", "margin", "idle", "due"),
    [
        (10, 1, 8.9, False),
        (10, 1, 9, True),
        (10, 0, 9.9, False),
        (10, 0, 10, True),
        (1, 0.9, 0.4, False),
        (1, 0.9, 0.5, True),
    ],
)
def test_send_due(send: float, margin: float, idle: float, due: bool) -> None:
    assert HeartBeat(send, 0).send_due(100 + idle, 100, margin) is due


@pytest.mark.parametrize(("idle", "expired"), [(0, False), (24.9, False), (25, True), (1000, True)])
def test_expired(idle: float, expired: bool) -> None:
    assert HeartBeat(0, 10).expired(100 + idle, 100) is expired


SWEEP = 0.5


@given(
    send=st.floats(1, 30),
    gaps=st.lists(st.floats(0.01, 40), max_size=30),
    phase=st.floats(0, SWEEP),
)
def test_looking_only_when_told_to(send: float, gaps: list[float], phase: float) -> None:
    """Who sweeps twice a second, looks only from ``look_at`` on, and knows of a write only that it was since the last
    look, is never silent for longer than agreed, nor sends more often than once in the half of it."""
    heartbeat = HeartBeat(send, 0)
    writes = list(accumulate(gaps, initial=0.0))
    end, now, looked, look_at, known = writes[-1] + 3 * send, phase, 0.0, 0.0, 0.0
    seen, beats = 0, [0.0]
    while now < end:
        if now >= look_at:
            written = sum(at <= now for at in writes)
            busy = written > seen
            if busy:
                seen, known = written, looked
            looked = now
            if heartbeat.send_due(now, known, 2 * SWEEP):
                beats.append(now)
            look_at = heartbeat.look_at(now, known, 0, 2 * SWEEP, busy)
            if beats[-1] == now:
                known = now
        now += SWEEP
    times = sorted(writes + beats)
    assert all(later - earlier <= send + 1e-6 for earlier, later in pairwise(times))
    assert all(later - earlier >= send / 2 for earlier, later in pairwise(beats[1:]))


def test_a_busy_connection_needs_no_heart_beats() -> None:
    """One goes out when it becomes busy, since it was not looked at meanwhile, and none from then on."""
    heartbeat, beats = HeartBeat(10, 0), 0
    now, last_write = 100.0, 100.0
    for _ in range(20):
        looked, now = now, heartbeat.look_at(now, last_write, 0, 1, busy=now > 100)
        beats += heartbeat.send_due(now, looked, 1)
        last_write = looked
    assert beats == 1


def test_looking_for_a_client_that_is_silent() -> None:
    assert HeartBeat(0, 10).look_at(100, 0, 90, 1, busy=False) == 115
    assert HeartBeat(10, 10).look_at(100, 99, 90, 1, busy=False) == 108
    assert HeartBeat(10, 10).look_at(100, 99, 90, 1, busy=True) == 104.5
    assert HeartBeat(10, 10).look_at(100, 93, 90, 1, busy=True) == 102
    assert HeartBeat(10, 10).look_at(100, 91, 90, 1, busy=False) == 109
    assert HeartBeat().look_at(100, 0, 90, 1, busy=False) == inf
