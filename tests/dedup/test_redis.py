"""What only the Redis store does, on a server and on a cluster that stay up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis as Client
from redis.asyncio import RedisCluster as ClusterClient

from stompbridge.dedup import redis_senders
from stompbridge.dedup.memory import MemoryStore
from stompbridge.dedup.redis import RedisStore, make_link
from stompbridge.dedup.redis_cluster import ClusterLink
from stompbridge.dedup.scripts import Script
from stompbridge.dedup.store import STORES, Lock, Outcome, Refusal, make_store
from tests.dedup.cluster import Cluster
from tests.dedup.deployment import (
    LOCK_TTL,
    Answer,
    Node,
    RedisDeployment,
    Session,
    abandon,
    commit,
    finish,
    options,
    until,
    within,
)
from tests.support.redis import Redis

pytestmark = pytest.mark.redis

Deploy = Callable[..., RedisDeployment]
DUPLICATE, TOO_OLD, BUSY, STALE, UNAVAILABLE = Refusal


@pytest.fixture(params=["redis_server", "redis_cluster"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def deploy(server: Any) -> AsyncIterator[Deploy]:
    deployments: list[RedisDeployment] = []

    def make(**changes: Any) -> RedisDeployment:
        deployments.append(RedisDeployment(server.url, **changes))
        return deployments[-1]

    yield make
    for deployment in deployments:
        await deployment.stop()


@pytest.fixture
async def client(server: Redis | Cluster) -> AsyncIterator[Any]:
    """Looks at the keys from outside."""
    if isinstance(server, Cluster):
        port = server.masters[0].port
        async with ClusterClient(host="127.0.0.1", port=port, decode_responses=True) as cluster:
            yield cluster
    else:
        async with Client.from_url(server.url, decode_responses=True) as single:
            yield single


async def claim_all(session: Session, numbers: range) -> list[Lock | Refusal]:
    answers: list[Answer[Lock | Refusal]] = []
    for number in numbers:
        answers.append(Answer())
        session.receiver.claim(("s", number), answers[-1])
    return [await within(answer) for answer in answers]


async def open_alone(node: Node) -> Session:
    """A session of a store that sends nothing by itself."""
    assert isinstance(node.store, RedisStore)
    node.store._sessions.touch = lambda: None  # type: ignore[method-assign]
    session = await node.open("r")
    await session.deliver(("t", 1))
    return session


# Batches


async def test_a_turn_of_the_loop_is_one_call(deploy: Deploy) -> None:
    node = await deploy().node()
    session = await open_alone(node)
    before = node.store.counters.calls
    locks = await claim_all(session, range(100))
    assert node.store.counters.calls == before + 1
    settled: list[bool] = []
    for lock in locks:
        assert not isinstance(lock, Refusal)
        lock.commit(settled.append)
    await until(lambda: len(settled) == 100)
    assert all(settled)
    assert node.store.counters.calls == before + 2


async def test_long_batches_are_divided(deploy: Deploy) -> None:
    node = await deploy(window=4096).node()
    session = await open_alone(node)
    before = node.store.counters.calls
    locks = await claim_all(session, range(1201))
    assert node.store.counters.calls == before + 3
    for lock in locks:
        assert not isinstance(lock, Refusal)
        lock.commit()
    assert await claim_all(session, range(1201)) == [DUPLICATE] * 1201


async def test_steps_of_a_turn_keep_their_order(deploy: Deploy) -> None:
    node = await deploy().node()
    session = await node.open("r")
    lock = await session.lock(("s", 1))
    answers: list[Answer[Lock | Refusal]] = [Answer(), Answer(), Answer(), Answer()]
    effects: list[bool] = []
    session.receiver.claim(("s", 1), answers[0])
    lock.release(effects.append)
    session.receiver.claim(("s", 1), answers[1])
    lock.commit(effects.append)
    session.receiver.claim(("s", 1), answers[2])
    session.receiver.claim(("s", 2), answers[3])
    results = [await within(answer) for answer in answers]
    assert results[0] is BUSY
    assert results[2] is BUSY
    assert effects == [True, False]
    assert not isinstance(results[1], Refusal)
    assert not results[1].in_doubt


async def test_many_receivers_in_one_turn(deploy: Deploy) -> None:
    node = await deploy().node()
    sessions = [await node.open(f"r{number}") for number in range(40)]
    await asyncio.gather(*(session.deliver(("s", 1)) for session in sessions))
    assert [await session.claim(("s", 1)) for session in sessions] == [DUPLICATE] * 40


async def test_a_server_that_forgot_the_script(deploy: Deploy, client: Any) -> None:
    node = await deploy().node()
    sessions = [await node.open(f"r{number}") for number in range(6)]
    await client.script_flush()
    await asyncio.gather(*(session.deliver(("s", 1)) for session in sessions))
    assert node.store.counters.void == 0


# Keys


async def test_every_key_has_a_ttl_and_stays_in_its_slot(deploy: Deploy, client: Any) -> None:
    deployment = deploy()
    node = await deployment.node()
    for name in ("open", "closed", "discarded"):
        session = await node.open(name)
        await session.deliver(("s", 1), ("t", 5), "id")
        await session.lock(("s", 3))
        await session.lock("other id")
    (await node.open("closed")).receiver.close()
    node.store.discard("discarded")
    await finish(await node.attempt("done"))
    await node.attempt("in flight")
    node.store.sweep()
    await node.open("last")
    keys = [key async for key in client.scan_iter(f"{deployment.options.prefix}:*")]
    assert len(keys) >= 15
    for key in keys:
        assert 0 < await client.pttl(key) <= 1_200_000
        assert key.count("{") == key.count("}") == 1


async def test_a_window_is_compact(deploy: Deploy, client: Any) -> None:
    deployment = deploy(window=1024)
    session = await (await deployment.node()).open("r")
    for number in (0, 1, 5000, 10**12):
        await session.deliver(("s", number))
        keys = [key async for key in client.scan_iter(f"{deployment.options.prefix}:*:w1024:s")]
        assert len(keys) == 1
        assert await client.strlen(keys[0]) <= 8 + 129


async def test_another_width_is_another_history(deploy: Deploy) -> None:
    deployment = deploy(window=64)
    await (await (await deployment.node()).open("r")).deliver(("s", 1000))
    deployment.options = options(url=deployment.options.url, prefix=deployment.options.prefix, window=128)
    await (await (await deployment.node()).open("r")).deliver(("s", 1000))


async def test_what_is_over_its_time_is_forgotten(deploy: Deploy) -> None:
    deployment = deploy(history_ttl=0.05, lock_ttl=0.001, idempotency_window=0.05)
    node = await deployment.node()
    session = await node.open("r")
    await session.deliver(("s", 1))
    unsettled = await session.lock(("s", 2))
    assert await finish(await node.attempt("k"))
    async with asyncio.timeout(5):
        while isinstance(await session.claim(("s", 1)), Refusal):
            pass
        while True:
            answer = await session.claim(("s", 2))
            if not isinstance(answer, Refusal) and not answer.in_doubt:
                break
        while isinstance(await node.begin("k"), Outcome):
            pass
    assert not await commit(unsettled)
    session.receiver.close()
    second = await node.open("r")
    await second.deliver(("s", 5))


async def test_ids_are_forgotten_by_the_servers_clock(deploy: Deploy) -> None:
    deployment = deploy()
    session = await (await deployment.node()).open("r")
    await session.deliver("a")
    deployment.advance(599)
    await session.deliver("b")
    assert await session.claim("a") is DUPLICATE
    deployment.advance(2)
    await session.deliver("a", "c")
    assert await session.claim("b") is DUPLICATE


# Sessions


async def test_an_older_session_learns_it_when_it_claims(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    old = await one.open("r")
    store = one.store
    assert isinstance(store, RedisStore)
    store._sessions.on_notice = lambda notice: None  # type: ignore[method-assign]
    await other.open("r")
    assert old.losses == []
    assert await old.claim(("s", 1)) is STALE
    assert old.losses == [1]


async def test_an_older_session_learns_it_when_it_is_touched(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    old = await one.open("r")
    store = one.store
    assert isinstance(store, RedisStore)
    store._sessions.on_notice = lambda notice: None  # type: ignore[method-assign]
    await other.open("r")
    # Every one is touched within some sweeps.
    others = [await one.open(f"other {number}") for number in range(40)]
    store.sweep()
    for other_session in others[::2]:
        other_session.receiver.close()
    for _ in range(20):
        store.sweep()
    await old.lost()
    store._sessions.touch()


async def test_a_lost_notice_is_made_up_for(deploy: Deploy, client: Any, server: Any) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    old = await one.open("r")
    store = one.store
    assert isinstance(store, RedisStore)
    heard: list[bytes] = []
    store._sessions.on_notice = heard.append  # type: ignore[assignment, method-assign]
    await other.open("r")
    if isinstance(server, Cluster):
        for master in server.masters:
            with master.client() as connection:
                connection.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    else:
        await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await old.lost()


async def test_a_session_outlives_the_servers_memory(deploy: Deploy, client: Any) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    old = await one.open("r")
    keys = [key async for key in client.scan_iter(f"{deployment.options.prefix}:*")]
    for key in keys:
        await client.delete(key)
    await old.deliver(("s", 1))
    store = one.store
    assert isinstance(store, RedisStore)
    store._sessions.touch()
    assert await old.claim(("s", 1)) is DUPLICATE
    new = await other.open("r")
    await old.lost()
    assert new.receiver.fence > old.receiver.fence
    assert await new.claim(("s", 1)) is DUPLICATE


async def test_notices_of_others_are_ignored(deploy: Deploy) -> None:
    node = await deploy().node()
    session = await node.open("r")
    store = node.store
    assert isinstance(store, RedisStore)
    root = session.receiver.root  # type: ignore[attr-defined]
    store._sessions.on_notice(b"%d %s" % (session.receiver.fence, root))
    store._sessions.on_notice(b"99999999999999999 other")
    assert session.losses == []
    store._sessions.on_notice(b"%d %s" % (session.receiver.fence + 1, root))
    assert session.losses == [1]
    session.receiver.lose()  # type: ignore[attr-defined]
    assert session.losses == [1]


# Senders


async def test_a_renewed_attempt_stays(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    attempt = await one.attempt("k")
    for _ in range(3):
        deployment.advance(LOCK_TTL * 0.9)
        store = one.store
        assert isinstance(store, RedisStore)
        store._senders.renew()
        await one.open("settled")
    waiting = other.ask("k")
    assert await other.begin("l") is not None
    assert not waiting.done()
    assert await finish(attempt)
    assert await within(waiting) is Outcome.DONE


async def test_an_attempt_of_a_dead_process(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    stale = await one.attempt("k")
    deployment.advance(LOCK_TTL)
    attempt = await other.attempt("k")
    assert attempt.in_doubt
    one.store.sweep()
    assert not await finish(stale)
    assert await finish(attempt)
    assert await one.begin("k") is Outcome.DONE
    assert other.store.counters.in_doubt == 1


async def test_waits_are_bounded_in_time(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_senders, "_LONGEST_PAUSE", 0.05)
    deployment = deploy(lock_ttl=0.3)
    one, other = await deployment.node(), await deployment.node()
    attempt = await one.attempt("k")
    here, there = one.ask("k"), other.ask("k")
    await until(lambda: there.done(), other.store.sweep)
    await until(lambda: here.done(), one.store.sweep)
    assert here.result() is Outcome.IN_FLIGHT
    assert there.result() is Outcome.IN_FLIGHT
    assert await finish(attempt)
    assert await other.begin("k") is Outcome.DONE


async def test_nobody_waits_any_more(deploy: Deploy) -> None:
    deployment = deploy(lock_ttl=0.001)
    one, other = await deployment.node(), await deployment.node()
    await one.attempt("k")
    late = asyncio.get_running_loop().time() + 1
    store = other.store
    assert isinstance(store, RedisStore)
    # Given up before the answer comes: first that another has the right, then that it may publish.
    waiting = other.ask("k")
    store._senders.sweep(late)
    assert await within(waiting) is Outcome.IN_FLIGHT
    await other.open("settled")
    assert not store._senders._inquiries
    waiting = other.ask("free")
    store._senders.sweep(late)
    assert await within(waiting) is Outcome.IN_FLIGHT
    await other.open("settled")
    assert await abandon(await one.attempt("free"))


async def test_stopped_while_somebody_waits(deploy: Deploy) -> None:
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    await one.attempt("k")
    waiting = other.ask("k")
    await other.open("settled")
    await other.store.stop()
    assert await within(waiting) is Outcome.UNAVAILABLE


async def test_asks_again_at_growing_intervals(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_senders, "_SHORTEST_PAUSE", 0.01)
    deployment = deploy()
    one, other = await deployment.node(), await deployment.node()
    attempt, second = await one.attempt("k"), await one.attempt("l")
    waiting = other.ask("k")
    before = other.store.counters.calls
    await until(lambda: other.store.counters.calls >= before + 4)
    later = other.ask("l")
    await until(lambda: other.store.counters.calls >= before + 6)
    assert await finish(attempt)
    assert await abandon(second)
    assert await within(waiting) is Outcome.DONE
    result = await within(later)
    assert not isinstance(result, Outcome)


# The store as a whole


def test_table() -> None:
    assert isinstance(make_store("memory", options()), MemoryStore)
    assert isinstance(make_store("redis", options()), RedisStore)
    assert set(STORES) == {"memory", "redis"}


@pytest.mark.parametrize("url", ["http://x", "redis://h:port", "redis+cluster://", "x+cluster://a:1,b:2"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make_store("redis", options(url=url))


@pytest.mark.parametrize("prefix", ["", "a b", "{a}", "it's"])
def test_bad_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        make_store("redis", options(prefix=prefix))


def test_cluster_urls() -> None:
    url = "rediss+cluster://user:p%40ss@one:7000,two:7001?ssl_cert_reqs=none"
    link = make_link(options(url=url), Script("", ""), RedisStore(options()).counters)
    assert isinstance(link, ClusterLink)
    assert [server.address for server in link._seeds] == [("one", 7000), ("two", 7001)]
    for server in link._seeds:
        assert server._options["password"] == "p@ss"
        assert server._options["username"] == "user"


async def test_stop_without_start() -> None:
    store = RedisStore(options())
    await store.stop()
    assert not store.available


async def test_a_failing_callback_is_reported(deploy: Deploy) -> None:
    node = await deploy().node()
    session = await node.open("r")
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))

    def fail(_answer: object) -> None:
        raise ZeroDivisionError

    session.receiver.claim(("s", 1), fail)
    await session.deliver(("s", 2))
    assert isinstance(reports[0]["exception"], ZeroDivisionError)
