"""Any sequence of steps: every store does what a plain model of sets and deadlines says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from stompbridge.dedup.store import Attempt, Identity, Lock, Outcome, Refusal
from tests.dedup.conftest import Deploy
from tests.dedup.deployment import (
    LOCK_TTL,
    Answer,
    Deployment,
    Node,
    Session,
    abandon,
    commit,
    finish,
    release,
    within,
)

T = TypeVar("T")
WINDOW = 8

NAMES = st.sampled_from(["r1", "r2"])
NODES = st.integers(0, 1)
NUMBERS = st.integers(0, 40) | st.integers(0, 2**53)
IDENTITIES: st.SearchStrategy[Identity] = st.tuples(st.sampled_from("ab"), NUMBERS) | st.sampled_from(["x", "y"])
KEYS = st.sampled_from(["k1", "k2"])
DIGESTS = st.sampled_from(["d1", "d2"])
PICK = st.integers(0, 10**6)


@dataclass(eq=False)
class SessionModel:
    name: str
    session: Session
    open: bool = True
    lost: bool = False


@dataclass(eq=False)
class LockModel:
    owner: SessionModel
    identity: Identity
    deadline: float
    lock: Lock


@dataclass
class ReceiverModel:
    newest: SessionModel | None = None
    delivered: set[Identity] = field(default_factory=set)
    highest: dict[str, int] = field(default_factory=dict)
    locks: dict[Identity, LockModel] = field(default_factory=dict)

    def expected(self, session: SessionModel, identity: Identity, now: float) -> Refusal | bool:
        """A refusal, or whether the message is granted in doubt."""
        if session.lost or not session.open:
            return Refusal.STALE
        if isinstance(identity, tuple) and identity[1] <= self.highest.get(identity[0], -1) - WINDOW:
            return Refusal.TOO_OLD
        if identity in self.delivered:
            return Refusal.DUPLICATE
        lock = self.locks.get(identity)
        if lock is None:
            return False
        return Refusal.BUSY if lock.owner is session and lock.deadline > now else True

    def record(self, identity: Identity) -> None:
        if isinstance(identity, tuple):
            sender, number = identity
            highest = self.highest.setdefault(sender, number)
            if number <= highest - WINDOW:
                return
            self.highest[sender] = max(highest, number)
        self.delivered.add(identity)


@dataclass(eq=False)
class AttemptModel:
    key: str
    digest: str
    node: int
    deadline: float
    attempt: Attempt


class StoreMachine(RuleBasedStateMachine):
    def __init__(self, deploy: Deploy) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.deploy = deploy
        self.now = 0.0
        self.nodes: list[Node] = []
        self.receivers: dict[str, ReceiverModel] = {}
        self.sessions: list[SessionModel] = []
        self.locks: list[LockModel] = []
        self.attempts: list[AttemptModel] = []
        self.in_flight: dict[str, AttemptModel] = {}
        self.sent: dict[str, str] = {}

    def run(self, steps: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(steps)

    @initialize()
    def start(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        self.deployment: Deployment = self.deploy(window=WINDOW, history_ttl=1e6, idempotency_window=1e6)
        self.nodes = [await self.deployment.node() for _ in range(2)]

    def teardown(self) -> None:
        if self.nodes:
            self.run(self.deployment.stop())
        self.loop.close()

    @rule(seconds=st.sampled_from([0.001, LOCK_TTL / 2, LOCK_TTL]))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.deployment.advance(seconds)

    # Receivers

    @rule(name=NAMES, node=NODES)
    def open(self, name: str, node: int) -> None:
        receiver = self.receivers.setdefault(name, ReceiverModel())
        older = receiver.newest
        session = receiver.newest = SessionModel(name, self.run(self.nodes[node].open(name)))
        if older is not None:
            assert session.session.receiver.fence > older.session.receiver.fence
            if not older.lost:
                older.lost = True
                if older.open:
                    self.run(older.session.lost())
        self.sessions.append(session)

    @rule(pick=PICK)
    def close(self, pick: int) -> None:
        if self.sessions:
            session = self.sessions[pick % len(self.sessions)]
            session.session.receiver.close()
            session.open = False

    @rule(name=NAMES, node=NODES)
    def discard(self, name: str, node: int) -> None:
        self.nodes[node].store.discard(name)
        receiver = self.receivers.pop(name, ReceiverModel())
        if receiver.newest is not None:
            receiver.newest.lost = True
            if receiver.newest.open:
                self.run(receiver.newest.session.lost())
        # Settled before: on another node the order of a discard and what follows is not fixed.
        self.run(self._settle_down())

    async def _settle_down(self) -> None:
        for node in self.nodes:
            await node.open("nobody")

    @rule(pick=PICK, identities=st.lists(IDENTITIES, min_size=1, max_size=6))
    def claim(self, pick: int, identities: list[Identity]) -> None:
        if self.sessions:
            self.claimed(self.sessions[-1 - pick % min(len(self.sessions), 3)], identities)

    @rule(pick=PICK, others=st.lists(PICK, min_size=1, max_size=6))
    def claim_again(self, pick: int, others: list[int]) -> None:
        """Claims what was claimed before, lately."""
        if self.locks:
            lock = self.locks[-1 - pick % min(len(self.locks), 12)]
            newest = self.receivers.get(lock.owner.name, ReceiverModel()).newest or lock.owner
            recent = self.locks[-12:]
            self.claimed(newest, [recent[other % len(recent)].identity for other in others])

    @rule(name=NAMES, sender=st.sampled_from("ab"), offsets=st.lists(st.integers(-12, 20), min_size=1, max_size=8))
    def deliver(self, name: str, sender: str, offsets: list[int]) -> None:
        """Claims numbers about the highest, then commits what is granted."""
        receiver = self.receivers.get(name, ReceiverModel())
        if receiver.newest is None or not receiver.newest.open:
            self.open(name, 0)
            receiver = self.receivers[name]
        assert receiver.newest is not None
        highest = receiver.highest.get(sender, 30)
        before = len(self.locks)
        self.claimed(receiver.newest, [(sender, max(highest + offset, 0)) for offset in offsets])
        self.settled([(lock, True) for lock in self.locks[before:]])

    def claimed(self, session: SessionModel, identities: list[Identity]) -> None:
        """Claims in one turn of the loop."""
        answers = self.run(self._claim(session, identities))
        receiver = self.receivers.get(session.name, ReceiverModel())
        for identity, answer in zip(identities, answers, strict=True):
            expected = receiver.expected(session, identity, self.now)
            if isinstance(answer, Refusal):
                assert answer is expected, (identity, answer, expected)
            else:
                assert answer.in_doubt is expected, (identity, expected)
                lock = LockModel(session, identity, self.now + LOCK_TTL, answer)
                receiver.locks[identity] = lock
                self.locks.append(lock)

    async def _claim(self, session: SessionModel, identities: list[Identity]) -> list[Lock | Refusal]:
        answers: list[Answer[Lock | Refusal]] = []
        for identity in identities:
            answers.append(Answer())
            session.session.receiver.claim(identity, answers[-1])
        return [await within(answer) for answer in answers]

    @rule(picks=st.lists(st.tuples(PICK, st.booleans()), min_size=1, max_size=6))
    def settle(self, picks: list[tuple[int, bool]]) -> None:
        """Settles some of the newest locks in one turn of the loop."""
        if not self.locks:
            return
        chosen = [(self.locks[-1 - pick % min(len(self.locks), 12)], delivered) for pick, delivered in picks]
        # Across nodes, steps of one turn have no order.
        one = chosen[0][0].owner
        self.settled([(lock, delivered) for lock, delivered in chosen if lock.owner is one])

    def settled(self, chosen: list[tuple[LockModel, bool]]) -> None:
        effects = self.run(self._settle(chosen))
        for (lock, delivered), effect in zip(chosen, effects, strict=True):
            receiver = self.receivers.get(lock.owner.name, ReceiverModel())
            expected = receiver.newest is lock.owner and receiver.locks.get(lock.identity) is lock
            assert effect is expected, (lock.identity, delivered, expected)
            if effect:
                del receiver.locks[lock.identity]
                if delivered:
                    receiver.record(lock.identity)

    async def _settle(self, chosen: list[tuple[LockModel, bool]]) -> list[bool]:
        tasks = [commit(lock.lock) if delivered else release(lock.lock) for lock, delivered in chosen]
        return list(await asyncio.gather(*tasks))

    # Senders

    @rule(key=KEYS, digest=DIGESTS, node=NODES)
    def begin(self, key: str, digest: str, node: int) -> None:
        older = self.in_flight.get(key)
        expected: Outcome | bool = False
        if key in self.sent:
            expected = Outcome.DONE if self.sent[key] == digest else Outcome.MISMATCH
        elif older is not None and older.digest != digest:
            expected = Outcome.MISMATCH
        elif older is not None:
            if not self.deployment.attempts_expire or older.deadline > self.now:
                return  # it would wait
            node = 1 - older.node
            if any(a.node == node and a.key == key and a.digest == digest for a in self.attempts):
                return  # it would wait for an older attempt of this process
            expected = True
        elif any(a.key == key and a.digest == digest and a.node == node for a in self.attempts):
            return
        answer = self.run(self.nodes[node].begin(key, digest))
        if isinstance(answer, Outcome):
            assert answer is expected
        else:
            assert answer.in_doubt is expected
            attempt = AttemptModel(key, digest, node, self.now + LOCK_TTL, answer)
            self.attempts.append(attempt)
            self.in_flight[key] = attempt

    @rule(pick=PICK, finished=st.booleans())
    def end(self, pick: int, finished: bool) -> None:
        if not self.attempts:
            return
        attempt = self.attempts.pop(pick % len(self.attempts))
        effect = self.run(finish(attempt.attempt) if finished else abandon(attempt.attempt))
        assert effect is (self.in_flight.get(attempt.key) is attempt)
        if effect:
            del self.in_flight[attempt.key]
            if finished:
                self.sent[attempt.key] = attempt.digest

    @invariant()
    def losses_are_told_once(self) -> None:
        for session in self.sessions:
            assert len(session.session.losses) == int(session.lost and session.open) or not session.open
            assert len(session.session.losses) <= 1


@pytest.mark.timeout(120)
def test_any_sequence(new_deployment: Deploy) -> None:
    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(new_deployment)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
