from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stompbridge.brokers.base import Failure, Message, QueueSpec
from stompbridge.brokers.queues import Budget, MemoryConsumer, MemoryQueue, size_of


class Holder:
    """Keeps what a consumer got until it is settled."""

    def __init__(self, queue: MemoryQueue, prefetch: int, log: list[int]) -> None:
        self.held: dict[int, Message] = {}
        self.log = log
        self.consumer = MemoryConsumer("q", queue, prefetch, self)
        queue.add(self.consumer)

    def on_queue_message(self, message: Message, tag: int) -> None:
        self.held[tag] = message
        self.log.append(message.seq)

    def on_queue_restored(self) -> None:
        raise AssertionError

    def on_queue_cancelled(self, failure: Failure | None) -> None:
        raise AssertionError


STEPS = st.lists(
    st.tuples(st.sampled_from(["push", "deliver", "ack", "requeue", "drop", "cancel"]), st.integers(0, 3)), max_size=60
)


@given(STEPS, st.integers(0, 3))
def test_messages_are_settled_once_and_never_lost(steps: list[tuple[str, int]], prefetch: int) -> None:
    budget = Budget(2**40)
    woken: list[MemoryQueue] = []
    queue = MemoryQueue(QueueSpec("q"), budget, woken.append, woken.append)
    log: list[int] = []
    holders = [Holder(queue, prefetch, log) for _ in range(3)]
    waiting: list[int] = []
    settled: list[int] = []
    pushed = 0
    for step, number in steps:
        holder = holders[number % 3]
        tags = tuple(holder.held)[: number + 1]
        seqs = [holder.held[tag].seq for tag in tags]
        match step:
            case "push":
                message = Message("", "q", b"x" * number, seq=pushed)
                queue.push(message, size_of(message))
                waiting.append(pushed)
                pushed += 1
            case "deliver":
                log.clear()
                queue.deliver(number + 1)
                assert log == waiting[: len(log)]
                del waiting[: len(log)]
                if len(log) <= number and waiting:
                    assert prefetch
                    assert all(len(holder.held) == prefetch for holder in holders)
            case "ack" | "drop":
                if step == "ack":
                    holder.consumer.ack(tags)
                else:
                    holder.consumer.nack(tags, requeue=False)
                settled.extend(seqs)
            case "requeue":
                holder.consumer.nack(tags, requeue=True)
                waiting = sorted(waiting + seqs)
            case "cancel":
                holder.consumer.cancel()
                waiting = sorted(waiting + [message.seq for message in holder.held.values()])
                tags = tuple(holder.held)
                holders[number % 3] = Holder(queue, prefetch, log)
        for tag in tags if step in ("ack", "drop", "requeue", "cancel") else ():
            del holder.held[tag]
        if waiting and any(not prefetch or len(holder.held) < prefetch for holder in holders):
            assert woken
        assert all(not prefetch or len(holder.held) <= prefetch for holder in holders)
    held = [message.seq for holder in holders for message in holder.held.values()]
    assert sorted(settled + waiting + held) == list(range(pushed))
    queue.drop()
    assert budget.used == 0
