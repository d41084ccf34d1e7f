"""What every store must do, asked through its protocol alone."""

from __future__ import annotations

import pytest

from stompbridge.dedup.store import Identity, Outcome, Refusal
from tests.dedup.conftest import Deploy
from tests.dedup.deployment import LOCK_TTL, Node, abandon, commit, finish, release, until, within

DUPLICATE, TOO_OLD, BUSY, STALE, UNAVAILABLE = Refusal

IDENTITIES = [pytest.param(("sender", 7), id="number"), pytest.param("message-id", id="id")]


@pytest.fixture
async def node(deploy: Deploy) -> Node:
    return await deploy().node()


# Deliveries


@pytest.mark.parametrize("identity", IDENTITIES)
async def test_delivered_once(node: Node, identity: Identity) -> None:
    session = await node.open("r")
    await session.deliver(identity)
    assert await session.claim(identity) is DUPLICATE
    assert node.store.counters.void == 0


@pytest.mark.parametrize("identity", IDENTITIES)
async def test_what_is_released_is_new_again(node: Node, identity: Identity) -> None:
    session = await node.open("r")
    assert await release(await session.lock(identity))
    await session.deliver(identity)


@pytest.mark.parametrize("identity", IDENTITIES)
async def test_what_is_locked_is_busy(node: Node, identity: Identity) -> None:
    session = await node.open("r")
    lock = await session.lock(identity)
    assert await session.claim(identity) is BUSY
    assert await commit(lock)
    assert await session.claim(identity) is DUPLICATE


@pytest.mark.parametrize("identity", IDENTITIES)
async def test_an_expired_lock_leaves_a_doubt(deploy: Deploy, identity: Identity) -> None:
    deployment = deploy()
    node = await deployment.node()
    session = await node.open("r")
    stale = await session.lock(identity)
    deployment.advance(LOCK_TTL - 0.001)
    assert await session.claim(identity) is BUSY
    deployment.advance(0.001)
    lock = await session.lock_in_doubt(identity)
    assert not await commit(stale)
    assert not await release(stale)
    assert await session.claim(identity) is BUSY
    assert await commit(lock)
    assert await session.claim(identity) is DUPLICATE
    assert node.store.counters.in_doubt == 1
    assert node.store.counters.void == 2


async def test_an_expired_lock_that_nobody_wanted_is_still_good(deploy: Deploy) -> None:
    deployment = deploy()
    session = await (await deployment.node()).open("r")
    lock = await session.lock(("s", 1))
    deployment.advance(LOCK_TTL * 2)
    assert await commit(lock)
    assert await session.claim(("s", 1)) is DUPLICATE


@pytest.mark.parametrize("identity", IDENTITIES)
async def test_a_lock_is_settled_once(node: Node, identity: Identity) -> None:
    session = await node.open("r")
    lock = await session.lock(identity)
    assert await commit(lock)
    assert not await commit(lock)
    assert not await release(lock)
    assert await session.claim(identity) is DUPLICATE
    other = await session.lock(("s", 8))
    assert await release(other)
    assert not await commit(other)
    await session.deliver(("s", 8))


async def test_a_late_first_delivery_is_no_duplicate(node: Node) -> None:
    session = await node.open("r")
    await session.deliver(("s", 1000), ("s", 998), ("s", 1003), ("s", 999), ("s", 1003 - 63))
    for number in (1000, 998, 1003, 999, 1003 - 63):
        assert await session.claim(("s", number)) is DUPLICATE
    assert await session.claim(("s", 1003 - 64)) is TOO_OLD
    assert await session.claim(("s", 0)) is TOO_OLD
    await session.deliver(("s", 1001), ("s", 1002))


@pytest.mark.parametrize("jump", [1, 7, 8, 9, 55, 56, 57, 63, 64, 65, 71, 72, 73, 80, 200, 2**40])
async def test_the_window_moves(node: Node, jump: int) -> None:
    session = await node.open("r")
    first = 5
    await session.deliver(*(("s", number) for number in range(first, first + 70)))
    highest = first + 69 + jump
    await session.deliver(("s", highest))
    low = max(highest - 70, 0)
    for number in range(low, highest + 1):
        answer = await session.claim(("s", number))
        if number <= highest - 64:
            assert answer is TOO_OLD
        elif number < first + 70 or number == highest:
            assert answer is DUPLICATE
        else:
            assert not isinstance(answer, Refusal)
            assert await release(answer)


async def test_a_commit_below_the_window_leaves_no_trace(node: Node) -> None:
    session = await node.open("r")
    late = await session.lock(("s", 1))
    await session.deliver(("s", 100))
    assert await commit(late)
    assert await session.claim(("s", 1)) is TOO_OLD
    assert await session.claim(("s", 100)) is DUPLICATE


async def test_numbers_beyond_the_usual(node: Node) -> None:
    session = await node.open("r")
    numbers = [2**53 - 2, 2**53 - 1, 2**53, 2**53 + 1, 2**63, 2**64 + 1]
    for number in numbers:
        await session.deliver(("s", number))
        assert await session.claim(("s", number)) is DUPLICATE
    await session.deliver(("t", -1))
    assert await session.claim(("t", -1)) is DUPLICATE


AWKWARD = ["", "}", "{}", "{r:x}", "a b", "a:1", "user/client-1", "%7B", "ä€\U0001f600", "x\x00y\n", "\udce9"]


@pytest.mark.parametrize("name", AWKWARD)
async def test_names_are_opaque(node: Node, name: str) -> None:
    session = await node.open(name)
    await session.deliver((name, 1), name)
    assert await session.claim((name, 1)) is DUPLICATE
    assert await session.claim(name) is DUPLICATE
    attempt = await node.attempt(name, name)
    assert await finish(attempt)
    assert await node.begin(name, name) is Outcome.DONE
    assert await node.begin(name, name + "x") is Outcome.MISMATCH


async def test_receivers_senders_and_ids_are_apart(node: Node) -> None:
    one, other = await node.open("a"), await node.open("b")
    await one.deliver(("a", 1), ("a:1", 1), ("1:a", 1), ("b", 1), "a", "a:1", "1:a")
    await other.deliver(("a", 1), ("b", 1), "a")
    await one.deliver(("1", 1), ("a", 11), "b", "1")


async def test_ids_are_bounded(deploy: Deploy) -> None:
    node = await deploy(max_ids=3).node()
    session = await node.open("r")
    await session.deliver("a", "b", "c")
    assert node.store.counters.evicted == 0
    await session.deliver("d", "e")
    assert node.store.counters.evicted == 2
    for message_id in ("c", "d", "e"):
        assert await session.claim(message_id) is DUPLICATE
    await session.deliver("a")


# Sessions


@pytest.mark.parametrize("identity", IDENTITIES)
async def test_the_newer_session_takes_over(deploy: Deploy, identity: Identity) -> None:
    deployment = deploy()
    old_node, new_node = await deployment.node(), await deployment.node()
    old = await old_node.open("r")
    await old.deliver(("done", 1), "done")
    assert await release(await old.lock("released"))
    held = await old.lock(identity)
    new = await new_node.open("r")
    await old.lost()
    assert old.losses == [1]
    assert not old.receiver.held
    assert new.receiver.held
    assert new.receiver.fence > old.receiver.fence
    assert await old.claim(("s", 1)) is STALE
    assert not await commit(held)
    assert not await release(held)
    assert await new.claim(("done", 1)) is DUPLICATE
    assert await new.claim("done") is DUPLICATE
    await new.lock("released")
    lock = await new.lock_in_doubt(identity)
    assert not await commit(held)
    assert await commit(lock)
    assert await new.claim(identity) is DUPLICATE
    assert new.losses == []
    assert old.losses == [1]
    assert old_node.store.counters.taken_over == 1


async def test_many_sessions_of_one_process(node: Node) -> None:
    sessions = [await node.open("r") for _ in range(4)]
    for session in sessions[:-1]:
        await session.lost()
    assert [session.losses for session in sessions] == [[1], [1], [1], []]
    fences = [session.receiver.fence for session in sessions]
    assert fences == sorted(set(fences))
    await sessions[-1].deliver(("s", 1))


async def test_history_outlives_the_session(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    first = await one.open("r")
    await first.deliver(("s", 1), "id")
    unsettled = await first.lock(("s", 2))
    first.receiver.close()
    first.receiver.close()
    assert not first.receiver.held
    assert await first.claim(("s", 3)) is STALE
    second = await other.open("r")
    assert await second.claim(("s", 1)) is DUPLICATE
    assert await second.claim("id") is DUPLICATE
    assert not await commit(unsettled)
    lock = await second.lock_in_doubt(("s", 2))
    first.receiver.close()
    assert await commit(lock)
    assert first.losses == second.losses == []


async def test_a_closed_session_may_still_settle(node: Node) -> None:
    session = await node.open("r")
    lock = await session.lock(("s", 1))
    session.receiver.close()
    assert await commit(lock)
    assert await (await node.open("r")).claim(("s", 1)) is DUPLICATE


async def test_an_old_session_can_not_close_the_newer(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    old = await one.open("r")
    new = await other.open("r")
    old.receiver.close()
    await new.deliver(("s", 1))
    newest = await one.open("r")
    await new.lost()
    assert await newest.claim(("s", 1)) is DUPLICATE


async def test_discard(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    session = await one.open("r")
    await session.deliver(("s", 1), "id")
    lock = await session.lock(("s", 2))
    other.store.discard("r")
    await session.lost()
    assert await session.claim(("s", 3)) is STALE
    assert not await commit(lock)
    fresh = await other.open("r")
    assert fresh.receiver.fence > session.receiver.fence
    await fresh.deliver(("s", 1), ("s", 2), "id")
    fresh.receiver.close()
    other.store.discard("r")
    other.store.discard("never seen")
    await (await other.open("r")).deliver(("s", 1))
    assert session.losses == [1]
    assert fresh.losses == []


async def test_discard_in_the_same_process(node: Node) -> None:
    session = await node.open("r")
    node.store.discard("r")
    await session.lost()
    assert session.losses == [1]
    assert await session.claim(("s", 1)) is STALE


# Senders


async def test_published_once(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    attempt = await one.attempt("k")
    assert not attempt.in_doubt
    assert await finish(attempt)
    for node in (one, other):
        assert await node.begin("k") is Outcome.DONE
        assert await node.begin("k", "other body") is Outcome.MISMATCH
        await finish(await node.attempt(f"of {id(node)}"))


async def test_an_abandoned_key_is_free(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    assert await abandon(await one.attempt("k"))
    attempt = await other.attempt("k", "other body")
    assert not attempt.in_doubt
    assert await abandon(attempt)
    assert await finish(await one.attempt("k"))


async def test_another_body_while_in_flight(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    attempt = await one.attempt("k")
    assert await one.begin("k", "other body") is Outcome.MISMATCH
    assert await other.begin("k", "other body") is Outcome.MISMATCH
    assert await finish(attempt)


async def test_an_attempt_is_settled_once(node: Node) -> None:
    attempt = await node.attempt("k")
    assert await finish(attempt)
    assert not await finish(attempt)
    assert not await abandon(attempt)
    assert await node.begin("k") is Outcome.DONE
    assert node.store.counters.void == 2


async def test_waits_for_what_comes_of_it(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    attempt = await one.attempt("k")
    answers = [one.ask("k"), other.ask("k"), one.ask("k"), other.ask("k")]
    # An answer from the store after which nobody can have been answered yet.
    assert await other.begin("other key") is not None
    assert not any(answer.done() for answer in answers)
    assert await finish(attempt)
    assert [await within(answer) for answer in answers] == [Outcome.DONE] * 4


async def test_inherits_what_is_abandoned(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    attempt = await one.attempt("k")
    answers = [one.ask("k"), other.ask("k"), one.ask("k"), other.ask("k")]
    heirs = []
    for _ in range(4):
        assert await abandon(attempt)
        await until(lambda: any(answer.done() for answer in answers))
        heir = next(answer for answer in answers if answer.done())
        answers.remove(heir)
        assert not any(answer.done() for answer in answers)
        result = heir.result()
        assert not isinstance(result, Outcome)
        heirs.append(result)
        attempt = result
    assert len(set(map(id, heirs))) == 4
    assert await finish(attempt)


async def test_waits_are_bounded_in_number(deploy: Deploy) -> None:
    node = await deploy(max_waiting=2).node()
    attempt = await node.attempt("k")
    waiting = [node.ask("k"), node.ask("k")]
    assert await node.begin("k") is Outcome.IN_FLIGHT
    assert await finish(attempt)
    assert [await within(answer) for answer in waiting] == [Outcome.DONE] * 2
    again = await node.attempt("l")
    waiting = [node.ask("l"), node.ask("l")]
    assert await finish(again)
    assert [await within(answer) for answer in waiting] == [Outcome.DONE] * 2


# The store as a whole


async def test_available(node: Node) -> None:
    calls: list[int] = []
    assert node.store.available
    node.store.when_available(lambda: calls.append(1))
    assert calls == [1]
    node.store.sweep()


async def test_without_anyone_who_wants_to_know(node: Node) -> None:
    session = await node.open("r")
    (await session.lock(("s", 1))).commit()
    (await session.lock(("s", 2))).release()
    (await node.attempt("k")).finish()
    (await node.attempt("l")).abandon()
    assert await session.claim(("s", 1)) is DUPLICATE
    await session.deliver(("s", 2))
    assert await node.begin("k") is Outcome.DONE
    await node.attempt("l")


async def test_stopped(deploy: Deploy) -> None:
    node = await deploy().node()
    session = await node.open("r")
    attempt = await node.attempt("k")
    waiting = node.ask("k")
    await node.store.stop()
    assert not node.store.available
    assert await within(waiting) is Outcome.UNAVAILABLE
    assert await session.claim(("s", 1)) is UNAVAILABLE
    assert await node.begin("k") is Outcome.UNAVAILABLE
    assert await node.try_open("r") is None
    assert node.store.counters.unavailable == 4
    attempt.abandon()
