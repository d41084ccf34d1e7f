from __future__ import annotations

import pytest

from stompbridge.dedup.store import Outcome, Refusal
from tests.dedup.deployment import LOCK_TTL, Answer, MemoryDeployment, abandon, commit, finish


@pytest.fixture
def deployment() -> MemoryDeployment:
    return MemoryDeployment()


async def test_everything_is_answered_from_inside(deployment: MemoryDeployment) -> None:
    store = deployment.store
    answer: Answer[object] = Answer()
    store.open("r", lambda: None, answer)
    assert answer.done()


async def test_idle_senders_ids_and_doubts_are_forgotten(deployment: MemoryDeployment) -> None:
    node = await deployment.node()
    session = await node.open("r")
    await session.deliver(("s", 1), "id")
    await session.lock(("s", 2))
    await session.lock("unsettled")
    deployment.advance(300)
    node.store.sweep()
    await session.deliver(("t", 1), "other id")
    deployment.advance(300)
    assert not isinstance(await session.claim("id"), Refusal)
    node.store.sweep()
    await session.lock(("s", 1))
    await session.lock(("s", 2))
    await session.lock("unsettled")
    assert await session.claim(("t", 1)) is Refusal.DUPLICATE
    assert await session.claim("other id") is Refusal.DUPLICATE
    deployment.advance(1000)
    node.store.sweep()
    history = deployment.store._histories["r"]
    assert not history.windows
    assert not history.ids
    assert not history.locks


async def test_a_lock_outlives_a_short_history() -> None:
    deployment = MemoryDeployment(history_ttl=1.0)
    node = await deployment.node()
    session = await node.open("r")
    lock = await session.lock(("s", 1))
    deployment.advance(LOCK_TTL - 1)
    node.store.sweep()
    assert await commit(lock)


async def test_closed_receivers_are_forgotten(deployment: MemoryDeployment) -> None:
    node = await deployment.node()
    for name in ("closed", "open"):
        await (await node.open(name)).deliver(("s", 1))
    (await node.open("closed")).receiver.close()
    deployment.advance(599)
    node.store.sweep()
    assert set(deployment.store._histories) == {"closed", "open"}
    deployment.advance(100)
    node.store.sweep()
    node.store.sweep()
    assert set(deployment.store._histories) == {"open"}


async def test_keys_are_forgotten(deployment: MemoryDeployment) -> None:
    node = await deployment.node()
    assert await finish(await node.attempt("k"))
    deployment.advance(60)
    assert await finish(await node.attempt("l"))
    deployment.advance(60)
    await abandon(await node.attempt("k"))
    node.store.sweep()
    assert list(deployment.store._done) == ["l"]


async def test_keys_are_bounded() -> None:
    node = await MemoryDeployment(max_keys=2).node()
    for key in ("a", "b", "c"):
        assert await finish(await node.attempt(key))
    assert node.store.counters.evicted == 1
    await node.attempt("a")
    assert await node.begin("c") is Outcome.DONE


async def test_waits_are_bounded_in_time(deployment: MemoryDeployment) -> None:
    node = await deployment.node()
    attempt = await node.attempt("k")
    early = node.ask("k")
    deployment.advance(LOCK_TTL / 2)
    late = node.ask("k")
    deployment.advance(LOCK_TTL / 2)
    node.store.sweep()
    assert early.result() is Outcome.IN_FLIGHT
    assert not late.done()
    assert await finish(attempt)
    assert late.result() is Outcome.DONE
    assert deployment.store._waiting == 0
