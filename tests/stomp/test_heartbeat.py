"""Heart-beat negotiation and deadlines."""

from __future__ import annotations

import pytest

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
