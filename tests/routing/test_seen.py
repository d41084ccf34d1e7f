from __future__ import annotations

import pytest

from stompbridge.dedup.window import Verdict
from stompbridge.routing.identity import Identity
from stompbridge.routing.seen import Seen


@pytest.fixture
def seen() -> Seen:
    return Seen(64, 10.0)


@pytest.mark.parametrize("identity", [("s", 5), "order-7"])
def test_what_has_come_is_recognised(seen: Seen, identity: Identity) -> None:
    assert seen.check(identity) is Verdict.NEW
    assert len(seen) == 0
    seen.record(identity, 0.0)
    assert seen.check(identity) is Verdict.DUPLICATE
    assert len(seen) == 1


@pytest.mark.parametrize("identity", [("s", 5), "order-7"])
def test_it_can_be_checked_and_recorded_in_one(seen: Seen, identity: Identity) -> None:
    assert seen.check_and_record(identity, 0.0) is Verdict.NEW
    assert seen.check_and_record(identity, 0.0) is Verdict.DUPLICATE


def test_a_late_first_delivery_is_new_within_the_window_and_unknown_below_it(seen: Seen) -> None:
    seen.record(("s", 100), 0.0)
    assert seen.check_and_record(("s", 50), 0.0) is Verdict.NEW
    assert seen.check(("s", 36)) is Verdict.TOO_OLD


def test_both_kinds_are_forgotten_after_their_time(seen: Seen) -> None:
    seen.record(("s", 5), 0.0)
    seen.record("order-7", 0.0)
    seen.sweep(10.0)
    assert len(seen) == 2
    # A copy, too, shows that more may come.
    seen.check_and_record(("s", 5), 5.0)
    seen.check_and_record("order-7", 5.0)
    seen.sweep(12.0)
    assert len(seen) == 2
    seen.sweep(15.1)
    assert len(seen) == 0
    assert seen.check("order-7") is Verdict.NEW
