from __future__ import annotations

from collections.abc import Sequence

import pytest

from stompbridge.brokers.base import Done, Message
from stompbridge.routing.history import Copy, QueueHistory


class Consumer:
    queue = "q"

    def __init__(self) -> None:
        self.acked: list[int] = []

    def ack(self, tags: Sequence[int]) -> None:
        self.acked.extend(tags)

    def nack(self, tags: Sequence[int], requeue: bool) -> None:
        raise AssertionError("the history never refuses a message")

    def cancel(self, done: Done | None = None) -> None:
        raise AssertionError("the history never ends a consumer")


@pytest.fixture
def history() -> QueueHistory:
    return QueueHistory(1024, 60.0)


def copy(consumer: Consumer, tag: int, sender: str | None = "s", seq: int = 0, **kwargs: object) -> Copy:
    return Copy(consumer, tag, Message("", "q", b"", sender=sender, seq=seq, **kwargs))  # type: ignore[arg-type]


def test_a_copy_of_a_finished_message_is_settled_at_once(history: QueueHistory) -> None:
    consumer = Consumer()
    first = copy(consumer, 1)
    assert history.admit(first)
    history.commit(first)
    assert not history.admit(copy(consumer, 2, redelivered=True))
    assert consumer.acked == [2]
    assert history.suppressed == 1


def test_a_copy_of_a_held_message_takes_over_where_it_is_settled(history: QueueHistory) -> None:
    first_consumer, second_consumer = Consumer(), Consumer()
    held = copy(first_consumer, 1)
    assert history.admit(held)
    assert not history.admit(copy(second_consumer, 9, redelivered=True))
    assert (held.consumer, held.tag) == (second_consumer, 9)
    assert history.suppressed == 1


def test_what_was_given_back_is_passed_on_again(history: QueueHistory) -> None:
    consumer = Consumer()
    first = copy(consumer, 1)
    assert history.admit(first)
    history.release(first)
    assert history.admit(copy(consumer, 2, redelivered=True))


def test_other_programs_and_dead_lettered_messages_pass(history: QueueHistory) -> None:
    consumer = Consumer()
    for tag in (1, 2):
        foreign = copy(consumer, tag, sender=None)
        assert history.admit(foreign)
        history.commit(foreign)
        history.release(foreign)
    first = copy(consumer, 3)
    assert history.admit(first)
    history.commit(first)
    assert history.admit(copy(consumer, 4, headers={"x-death": []}))


def test_beyond_the_window_a_redelivery_is_in_doubt_and_passed_on(history: QueueHistory) -> None:
    consumer = Consumer()
    first = copy(consumer, 1, seq=10_000)
    assert history.admit(first)
    history.commit(first)
    assert history.admit(copy(consumer, 2, seq=1))
    assert history.admit(copy(consumer, 3, seq=2, redelivered=True))
    assert history.in_doubt == 1


def test_it_can_be_forgotten_when_nothing_is_held_and_all_senders_are_silent(history: QueueHistory) -> None:
    assert history.sweep(0.0)
    first = copy(Consumer(), 1)
    assert history.admit(first)
    assert not history.sweep(float("inf"))
    history.commit(first)
    assert not history.sweep(0.0)
    assert history.sweep(float("inf"))
