from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

from stompbridge.brokers.base import Message
from stompbridge.dedup.store import Claimed, Identity, Lock, Refusal, Settled
from stompbridge.gateway.gate import Gate, Idempotence


class ScriptedLock:
    """Says what became of it."""

    def __init__(self, in_doubt: bool = False) -> None:
        self.in_doubt = in_doubt
        self.asker: Claimed | None = None
        self.ends: list[str] = []

    def commit(self, done: Settled | None = None) -> None:
        self.ends.append("commit")

    def release(self, done: Settled | None = None) -> None:
        self.ends.append("release")


class ScriptedReceiver:
    """Keeps the claims; the test answers them in the order it likes."""

    name = "r"
    fence = 1
    held = True

    def __init__(self) -> None:
        self.claims: list[tuple[Identity, Claimed]] = []

    def claim(self, identity: Identity, done: Claimed) -> None:
        self.claims.append((identity, done))

    def close(self) -> None:
        raise AssertionError("a gate does not end the session")

    def answer(self, place: int, answer: ScriptedLock | Refusal) -> None:
        """Answers the claim at ``place`` of those that are open."""
        self.claims.pop(place)[1](answer)


class Bench:
    """One gate, and what came of the messages."""

    def __init__(self, drop: bool = False, hold: bool = False, limit: int = 5) -> None:
        self.receiver = ScriptedReceiver()
        self.shared = Idempotence(None, drop, hold)  # type: ignore[arg-type]  # a gate asks its receiver
        self.passed: list[tuple[str, bool, Lock | None]] = []
        self.dropped: list[str] = []
        self.overflows = 0
        self.gate = Gate(self.receiver, "0 /topic/a", self.shared, limit, self._overflow)

    def ask(self, *names: str, redelivered: bool = False, grant: Callable[[], None] | None = None) -> None:
        """Messages of one sender, whose numbers are their names' last digits."""
        for name in names:
            message = Message("e", "k", name.encode(), sender="s", seq=int(name[-1]), redelivered=redelivered)
            self.ask_for(message, grant)

    def ask_for(self, message: Message, grant: Callable[[], None] | None = None) -> None:
        name = message.body.decode()

        def granted(message: Message, lock: Lock | None) -> None:
            self.passed.append((name, message.redelivered, lock))
            if grant is not None:
                grant()

        self.gate.ask(message, granted, lambda: self.dropped.append(name))

    def names(self) -> list[str]:
        return [name for name, _, _ in self.passed]

    def _overflow(self) -> None:
        self.overflows += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_new_message_passes_with_its_lock(bench: Bench) -> None:
    bench.ask("m7")
    assert bench.receiver.claims[0][0] == ("0 /topic/a\ns", 7)
    assert bench.passed == []
    lock = ScriptedLock()
    bench.receiver.answer(0, lock)
    assert bench.passed == [("m7", False, lock)]
    assert lock.ends == []


def test_answers_in_any_order_pass_messages_in_theirs(bench: Bench) -> None:
    bench.ask("m0", "m1", "m2", "m3")
    bench.receiver.answer(3, ScriptedLock())
    bench.receiver.answer(1, Refusal.DUPLICATE)
    assert bench.names() == []
    assert bench.dropped == []
    bench.receiver.answer(0, ScriptedLock())
    assert bench.names() == ["m0"]
    assert bench.dropped == ["m1"]
    bench.receiver.answer(0, ScriptedLock())
    assert bench.names() == ["m0", "m2", "m3"]
    assert bench.shared.suppressed == 1


def test_another_programs_message_is_asked_for_by_its_id(bench: Bench) -> None:
    bench.ask_for(Message("e", "k", b"m", message_id="order-7"))
    assert bench.receiver.claims[0][0] == "0 /topic/a\norder-7"


def test_a_message_that_nothing_tells_from_another_passes_in_its_turn_as_the_broker_marked_it(bench: Bench) -> None:
    bench.ask("m0")
    bench.ask_for(Message("e", "k", b"anonymous", redelivered=True))
    assert bench.names() == []
    bench.receiver.answer(0, ScriptedLock())
    assert bench.passed[1] == ("anonymous", True, None)
    assert bench.shared.bypassed == 0


def test_in_doubt_it_passes_marked(bench: Bench) -> None:
    bench.ask("m0")
    lock = ScriptedLock(in_doubt=True)
    bench.receiver.answer(0, lock)
    assert bench.passed == [("m0", True, lock)]
    assert lock.ends == []
    assert bench.shared.in_doubt == 1


def test_in_doubt_it_is_dropped_for_good_where_the_settings_say_so() -> None:
    bench = Bench(drop=True)
    bench.ask("m0")
    lock = ScriptedLock(in_doubt=True)
    bench.receiver.answer(0, lock)
    assert bench.passed == []
    assert bench.dropped == ["m0"]
    assert lock.ends == ["commit"]
    assert bench.shared.in_doubt == 1


@pytest.mark.parametrize("drop", [False, True])
def test_below_the_window_the_brokers_first_delivery_passes(drop: bool) -> None:
    bench = Bench(drop)
    bench.ask("m0")
    bench.receiver.answer(0, Refusal.TOO_OLD)
    assert bench.passed == [("m0", False, None)]
    assert bench.shared.in_doubt == 0


def test_below_the_window_a_redelivery_is_in_doubt() -> None:
    bench, dropping = Bench(), Bench(drop=True)
    for each in (bench, dropping):
        each.ask("m0", redelivered=True)
        each.receiver.answer(0, Refusal.TOO_OLD)
        assert each.shared.in_doubt == 1
    assert bench.passed == [("m0", True, None)]
    assert dropping.passed == []
    assert dropping.dropped == ["m0"]


def test_what_is_busy_keeps_its_place_and_is_asked_for_again(bench: Bench) -> None:
    bench.ask("m0", "m1")
    bench.receiver.answer(0, Refusal.BUSY)
    bench.receiver.answer(0, ScriptedLock())
    assert bench.names() == []
    bench.gate.retry()
    bench.gate.retry()
    (claim,) = bench.receiver.claims
    assert claim[0] == ("0 /topic/a\ns", 0)
    bench.receiver.answer(0, ScriptedLock())
    assert bench.names() == ["m0", "m1"]
    bench.gate.retry()
    assert bench.receiver.claims == []


def test_a_stale_session_gets_nothing(bench: Bench) -> None:
    bench.ask("m0")
    bench.receiver.answer(0, Refusal.STALE)
    assert bench.passed == []
    assert bench.dropped == []


def test_without_the_store_messages_pass_and_are_counted(bench: Bench) -> None:
    bench.ask("m0", "m1")
    bench.receiver.answer(0, Refusal.UNAVAILABLE)
    bench.receiver.answer(0, Refusal.UNAVAILABLE)
    assert bench.passed == [("m0", False, None), ("m1", False, None)]
    assert bench.shared.bypassed == 2


def test_without_the_store_messages_wait_for_it_where_the_settings_say_so() -> None:
    bench = Bench(hold=True)
    bench.ask("m0", "m1")
    for _ in range(2):
        bench.receiver.answer(0, Refusal.UNAVAILABLE)
    assert bench.passed == []
    bench.gate.retry()
    bench.receiver.answer(0, Refusal.DUPLICATE)
    bench.receiver.answer(0, ScriptedLock())
    assert bench.names() == ["m1"]
    assert bench.dropped == ["m0"]
    assert bench.shared.bypassed == 0


def test_a_closed_gate_gives_back_what_it_was_granted(bench: Bench) -> None:
    bench.ask("m0", "m1", "m2")
    granted, late = ScriptedLock(), ScriptedLock()
    bench.receiver.answer(1, granted)
    bench.receiver.answer(1, Refusal.DUPLICATE)
    bench.gate.close()
    assert granted.ends == ["release"]
    bench.receiver.answer(0, late)
    assert late.ends == ["release"]
    assert bench.passed == []
    assert bench.dropped == []


def test_a_closed_gate_takes_nothing_and_is_deaf_to_late_refusals(bench: Bench) -> None:
    bench.ask("m0")
    bench.gate.close()
    bench.receiver.answer(0, Refusal.UNAVAILABLE)
    bench.ask("m1")
    bench.ask_for(Message("e", "k", b"anonymous"))
    bench.gate.retry()
    assert bench.receiver.claims == []
    assert bench.passed == []
    assert bench.shared.bypassed == 0


def test_a_gate_that_is_closed_by_what_it_passes_on_stops_there(bench: Bench) -> None:
    bench.ask("m0", grant=bench.gate.close)
    bench.ask("m1")
    lock = ScriptedLock()
    bench.receiver.answer(1, lock)
    bench.receiver.answer(0, ScriptedLock())
    assert bench.names() == ["m0"]
    assert lock.ends == ["release"]


def test_what_may_wait_is_bounded() -> None:
    bench = Bench(limit=2)
    bench.ask("m0", "m1", "m2")
    assert bench.overflows == 1
    assert len(bench.receiver.claims) == 2
    bench.receiver.answer(0, ScriptedLock())
    bench.ask("m3")
    assert bench.overflows == 1


def test_a_message_that_has_passed_leaves_nothing_to_the_garbage_collector() -> None:
    """A lock keeps whoever asked for it, as that of Redis does."""
    bench = Bench()
    bench.ask("m1")
    lock = ScriptedLock()
    _, lock.asker = bench.receiver.claims[0]
    gone = weakref.ref(lock)
    gc.disable()
    try:
        bench.receiver.answer(0, lock)
        assert [name for name, _, _ in bench.passed] == ["m1"]
        bench.passed.clear()
        del lock
        assert gone() is None
    finally:
        gc.enable()
