from __future__ import annotations

from collections.abc import Callable

import pytest

from stompbridge.brokers.base import Done, Failure, Message
from stompbridge.dedup.store import Begun, Outcome, Settled
from stompbridge.routing.identity import KEYED
from stompbridge.routing.once import IN_FLIGHT, KEY_MAX, MISMATCH, STORE, Once, Waiting
from stompbridge.stomp.errors import StompError
from stompbridge.stomp.events import Send

REJECTED = Failure("rejected", "the queue is full", fatal=False)


class ScriptedAttempt:
    """Says what became of it."""

    in_doubt = False

    def __init__(self) -> None:
        self.ends: list[str] = []

    def finish(self, done: Settled | None = None) -> None:
        self.ends.append("finish")

    def abandon(self, done: Settled | None = None) -> None:
        self.ends.append("abandon")


class ScriptedStore:
    """Answers inside the call with ``inside``, or when the test says so."""

    def __init__(self) -> None:
        self.inside: ScriptedAttempt | Outcome | None = None
        self.asked: list[tuple[str, str, Begun]] = []

    def begin(self, key: str, digest: str, done: Begun) -> None:
        self.asked.append((key, digest, done))
        if self.inside is not None:
            done(self.inside)

    def answer(self, answer: ScriptedAttempt | Outcome) -> None:
        self.asked[-1][2](answer)


class Bench:
    """A sender with a broker that confirms, and lets it go on, when the test says so."""

    def __init__(self, hold: bool = False) -> None:
        self.store = ScriptedStore()
        self.once = Once(self.store, hold)  # type: ignore[arg-type]  # the part of a store that it asks
        self.waits = False
        self.published: list[tuple[Done, Callable[[], None]]] = []
        self.answers: list[Failure | None] = []
        self.resumed = 0
        self.message = Message("", "q", b"stamped")

    def send(self, key: str = "k", body: bytes = b"body", destination: str = "/queue/q", scope: str = "") -> bool:
        event = Send(destination, {}, body, None)
        return self.once.publish(self.message, scope, event, key, self._publish, self.answers.append, self._resume)

    def _publish(self, done: Done, resume: Callable[[], None]) -> bool:
        self.published.append((done, resume))
        return self.waits

    def _resume(self) -> None:
        self.resumed += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_is_published_and_the_key_stands_for_it_once_confirmed(bench: Bench) -> None:
    attempt = bench.store.inside = ScriptedAttempt()
    assert not bench.send()
    assert attempt.ends == []
    assert bench.answers == []
    bench.published[0][0](None)
    assert attempt.ends == ["finish"]
    assert bench.answers == [None]
    assert bench.resumed == 0


def test_a_failed_publish_leaves_the_key_to_the_next_try(bench: Bench) -> None:
    attempt = bench.store.inside = ScriptedAttempt()
    bench.send()
    bench.published[0][0](REJECTED)
    assert attempt.ends == ["abandon"]
    assert bench.answers == [REJECTED]


def test_a_repetition_is_answered_without_a_publish(bench: Bench) -> None:
    bench.store.inside = Outcome.DONE
    assert not bench.send()
    assert bench.answers == [None]
    assert bench.published == []
    assert bench.once.repeated == 1


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize(("outcome", "failure"), [(Outcome.MISMATCH, MISMATCH), (Outcome.IN_FLIGHT, IN_FLIGHT)])
def test_what_can_not_be_published_is_refused(hold: bool, outcome: Outcome, failure: Failure) -> None:
    bench = Bench(hold)
    bench.store.inside = outcome
    assert not bench.send()
    assert bench.answers == [failure]
    assert not failure.fatal
    assert bench.published == []


def test_without_the_store_it_is_published_unasked_and_counted(bench: Bench) -> None:
    bench.store.inside = Outcome.UNAVAILABLE
    assert not bench.send()
    bench.published[0][0](REJECTED)
    assert bench.answers == [REJECTED]
    assert bench.once.bypassed == 1


def test_without_the_store_it_is_refused_where_the_settings_say_so() -> None:
    bench = Bench(hold=True)
    bench.store.inside = Outcome.UNAVAILABLE
    assert not bench.send()
    assert bench.answers == [STORE]
    assert bench.published == []
    assert bench.once.bypassed == 0


def test_later_frames_wait_for_a_late_answer_but_not_for_the_confirm(bench: Bench) -> None:
    assert bench.send()
    assert bench.published == []
    attempt = ScriptedAttempt()
    bench.store.answer(attempt)
    assert bench.resumed == 1
    assert bench.answers == []
    bench.published[0][0](None)
    assert bench.answers == [None]
    assert attempt.ends == ["finish"]
    assert bench.resumed == 1


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.MISMATCH, Outcome.UNAVAILABLE])
def test_later_frames_go_on_after_any_late_answer(bench: Bench, outcome: Outcome) -> None:
    assert bench.send()
    bench.store.answer(outcome)
    assert bench.resumed == 1


@pytest.mark.parametrize("answer", [ScriptedAttempt(), Outcome.UNAVAILABLE])
@pytest.mark.parametrize("late", [False, True])
def test_later_frames_wait_as_long_as_the_publish_wants_it(
    bench: Bench, answer: ScriptedAttempt | Outcome, late: bool
) -> None:
    bench.waits = True
    bench.store.inside = None if late else answer
    assert bench.send()
    if late:
        bench.store.answer(answer)
    assert bench.resumed == 0
    bench.published[0][1]()
    assert bench.resumed == 1


def test_a_key_belongs_to_its_user(bench: Bench) -> None:
    for scope in ("", "alice", "bob", "/\0alice"):
        bench.send("k", b"a", scope=scope)
    assert len({key for key, _, _ in bench.store.asked}) == 4


def test_a_key_belongs_to_its_destination_and_a_body_to_its_key(bench: Bench) -> None:
    bench.send("k", b"a", "/queue/a")
    bench.send("k", b"a", "/queue/b")
    bench.send("k", b"b", "/queue/a")
    bench.send("k2", b"a", "/queue/a")
    (first, first_digest, _), (other_destination, _, _), (same, other_digest, _), (other_key, _, _) = bench.store.asked
    assert same == first
    assert other_digest != first_digest
    assert len({first, other_destination, other_key}) == 3


def test_the_message_is_known_by_its_key_and_body_wherever_it_is_published(bench: Bench) -> None:
    def id_of(body: bytes) -> str | None:
        bench.message = Message("", "q", b"stamped in another way each time")
        bench.send("k", body)
        return bench.message.message_id

    first = id_of(b"body")
    assert first is not None
    assert first.startswith(KEYED)
    assert id_of(b"body") == first
    assert id_of(b"other body") != first
    bench.message = Message("", "q", b"", message_id="the client's own")
    bench.send()
    assert bench.message.message_id == "the client's own"


@pytest.mark.parametrize("key", ["", "k" * (KEY_MAX + 1), "ü" * (KEY_MAX // 2 + 1)])
def test_a_key_that_is_empty_or_too_long_is_refused(bench: Bench, key: str) -> None:
    with pytest.raises(StompError) as refused:
        bench.send(key)
    assert refused.value.message == "Invalid header"
    assert not refused.value.fatal
    assert bench.store.asked == []


@pytest.mark.parametrize("key", ["k", "k" * KEY_MAX, "ü" * (KEY_MAX // 2)])
def test_a_key_of_any_length_between_is_taken(bench: Bench, key: str) -> None:
    assert bench.send(key)
    assert len(bench.store.asked) == 1


def test_a_step_that_ends_inside_the_call_that_began_it_is_not_resumed() -> None:
    resumed: list[bool] = []
    inside, outside = Waiting(lambda: resumed.append(True)), Waiting(lambda: resumed.append(True))
    inside.end()
    assert not inside.begun()
    assert resumed == []
    assert outside.begun()
    outside.end()
    assert resumed == [True]
