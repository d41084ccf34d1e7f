"""The Redis store while its servers are absent, silent or unwilling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis as Client

from stompbridge.dedup import redis_link
from stompbridge.dedup.scripts import Script
from stompbridge.dedup.store import Attempt, Lock, Outcome, Refusal
from tests.dedup.deployment import Answer, Watched, commit, finish, until, within
from tests.support.redis import Redis, binary
from tests.support.requirements import require

pytestmark = pytest.mark.redis

DUPLICATE, TOO_OLD, BUSY, STALE, UNAVAILABLE = Refusal


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server of the test's own, which is not running yet."""
    require(binary(), "redis-server")
    server = Redis()
    try:
        yield server
    finally:
        server.resume()
        server.remove()


@pytest.fixture
async def watched(own_redis: Redis) -> AsyncIterator[Watched]:
    own_redis.start()
    watched = Watched(own_redis.url)
    await watched.store.start()
    yield watched
    await watched.store.stop()


async def test_absent_at_the_start(own_redis: Redis) -> None:
    watched = Watched(own_redis.url)
    await watched.store.start()
    assert not watched.store.available
    assert await watched.node.try_open("r") is None
    assert await watched.node.begin("k") is Outcome.UNAVAILABLE
    assert watched.store.counters.unavailable == 2
    own_redis.start()
    await watched.up()
    await (await watched.node.open("r")).deliver(("s", 1))
    assert [available for available, _ in watched.news] == [False, True]
    await watched.store.stop()


async def test_killed_and_restarted(own_redis: Redis, watched: Watched) -> None:
    other = Watched(own_redis.url)
    await other.store.start()
    session = await watched.node.open("r")
    await session.deliver(("s", 1))
    lock = await session.lock(("s", 2))
    attempt = await watched.node.attempt("k")
    waiting = watched.node.ask("k")
    remote = other.node.ask("k")
    await other.node.open("settled")
    own_redis.kill()
    claims = [Answer[Lock | Refusal]() for _ in range(3)]
    for number, answer in enumerate(claims):
        session.receiver.claim(("s", 10 + number), answer)
    assert [await within(answer) for answer in claims] == [UNAVAILABLE] * 3
    assert await session.claim(("s", 3)) is UNAVAILABLE
    assert not await commit(lock)
    assert await finish(attempt) is False
    assert await within(waiting) is Outcome.DONE
    await other.down()
    assert await within(remote) is Outcome.UNAVAILABLE
    own_redis.start()
    await watched.up()
    await other.up()
    # It has forgotten all, but not who had the receiver open.
    await session.deliver(("s", 3), ("s", 1))
    await other.node.open("r")
    await session.lost()
    assert [available for available, _ in watched.news] == [True, False, True]
    assert watched.news[1][1]
    assert watched.store.counters.unsent == 0
    await other.store.stop()


async def test_silent(own_redis: Redis, watched: Watched) -> None:
    session = await watched.node.open("r")
    lock = await session.lock(("s", 1))
    attempt = await watched.node.attempt("k")
    own_redis.suspend()
    # Carried out later, when nobody waits for the answer any more.
    assert await session.claim(("s", 2)) is UNAVAILABLE
    assert not watched.store.available
    effects: list[bool] = []
    lock.commit(effects.append)
    attempt.finish(effects.append)
    assert effects == [False, False]
    own_redis.resume()
    await watched.up()
    assert await session.claim(("s", 1)) is DUPLICATE
    assert await watched.node.begin("k") is Outcome.DONE
    await session.deliver(("s", 2))
    assert watched.store.counters.void == 0
    assert session.losses == []


async def test_silent_while_much_is_under_way(own_redis: Redis, watched: Watched) -> None:
    session = await watched.node.open("r")
    locks = [await session.lock(("s", number)) for number in (1, 2)]
    attempt = await watched.node.attempt("k")
    own_redis.suspend()
    effects: list[bool] = []
    begun: Answer[Attempt | Outcome] = Answer()
    opened: list[object] = []
    locks[0].commit(effects.append)
    locks[1].release(effects.append)
    attempt.finish(effects.append)
    watched.store.begin("l", "digest", begun)
    watched.store.open("other", lambda: None, opened.append)
    watched.store._sessions.touch()
    watched.store._senders.renew()
    assert await within(begun) is Outcome.UNAVAILABLE
    assert effects == [False] * 3
    assert opened == [None]
    own_redis.resume()
    await watched.up()
    assert await session.claim(("s", 1)) is DUPLICATE
    await session.deliver(("s", 2))
    assert await watched.node.begin("k") is Outcome.DONE
    assert not (await watched.node.attempt("l")).in_doubt
    assert watched.store.counters.void == 0


async def test_renewals_and_touches_while_it_is_away(own_redis: Redis, watched: Watched) -> None:
    session = await watched.node.open("r")
    attempt = await watched.node.attempt("k")
    own_redis.kill()
    await watched.down()
    watched.store._sessions.touch()
    watched.store._senders.renew()
    watched.store.sweep()
    session.receiver.close()
    watched.store.discard("other")
    own_redis.start()
    await watched.up()
    # The server has lost the key, so that another may have it by now.
    assert not await finish(attempt)
    assert watched.store.counters.void == 1


async def test_what_is_kept_is_bounded(own_redis: Redis) -> None:
    own_redis.start()
    watched = Watched(own_redis.url, max_pending=3)
    await watched.store.start()
    session = await watched.node.open("r")
    locks = [await session.lock(("s", number)) for number in range(5)]
    answers: list[Answer[Lock | Refusal]] = []
    for number in range(10, 15):
        answers.append(Answer())
        session.receiver.claim(("s", number), answers[-1])
    results = [await within(answer) for answer in answers]
    assert results[3:] == [UNAVAILABLE] * 2
    assert not any(isinstance(result, Refusal) for result in results[:3])
    own_redis.suspend()
    assert await session.claim(("s", 20)) is UNAVAILABLE
    for lock in locks:
        lock.commit()
    # One place is taken by what takes the claim back.
    assert watched.store.counters.unsent == 3
    own_redis.resume()
    await watched.up()
    assert [await session.claim(("s", number)) is DUPLICATE for number in range(5)] == [True, True] + [False] * 3
    await watched.store.stop()


async def test_stopped_while_it_is_away(own_redis: Redis) -> None:
    own_redis.start()
    watched = Watched(own_redis.url)
    await watched.store.start()
    session = await watched.node.open("r")
    locks = [await session.lock(("s", number)) for number in range(3)]
    own_redis.kill()
    await watched.down()
    for lock in locks:
        lock.commit()
    watched.store.when_available(lambda: None)
    await watched.store.stop()
    assert watched.store.counters.unsent == 3
    locks[0].release()
    assert watched.store.counters.unsent == 4


async def test_stopped_with_work_to_do(own_redis: Redis) -> None:
    own_redis.start()
    watched, other = Watched(own_redis.url), Watched(own_redis.url)
    await watched.store.start()
    await other.store.start()
    session = await watched.node.open("r")
    (await session.lock(("s", 1))).commit()
    session.receiver.close()
    await watched.store.stop()
    assert watched.store.counters.unsent == 0
    assert await (await other.node.open("r")).claim(("s", 1)) is DUPLICATE
    await other.store.stop()


async def test_stopped_while_it_is_silent(own_redis: Redis) -> None:
    own_redis.start()
    watched = Watched(own_redis.url, timeout=0.2)
    await watched.store.start()
    session = await watched.node.open("r")
    lock = await session.lock(("s", 1))
    own_redis.suspend()
    lock.commit()
    await watched.store.stop()
    assert watched.store.counters.unsent == 1


async def test_noticed_without_traffic(own_redis: Redis, watched: Watched) -> None:
    own_redis.kill()
    await until(lambda: not watched.store.available)


async def test_a_silent_subscription(own_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "_PING_INTERVAL", 0.05)
    own_redis.start()
    watched = Watched(own_redis.url)
    await watched.store.start()
    listening = watched.store._link.listen("channel")
    assert await anext(listening) == b""
    heard = asyncio.ensure_future(anext(listening))
    with Client.from_url(own_redis.url) as client:
        # Some pings are answered.
        await until(lambda: client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] > 2)
        client.publish("channel", "hello")
    assert await heard == b"hello"
    own_redis.suspend()
    with pytest.raises(redis_link.LinkError, match="ping"):
        await anext(listening)
    own_redis.resume()
    await watched.store.stop()


async def test_unwilling(own_redis: Redis, watched: Watched) -> None:
    session = await watched.node.open("r")
    with Client.from_url(own_redis.url) as client:
        client.config_set("min-replicas-to-write", 1)
        assert await session.claim(("s", 1)) is UNAVAILABLE
        assert not watched.store.available
        assert "NOREPLICAS" in watched.news[-1][1]
        news = len(watched.news)
        client.config_set("min-replicas-to-write", 0)
    await watched.up()
    assert len(watched.news) == news + 1
    await session.deliver(("s", 1))


async def test_a_wrong_password(own_redis: Redis) -> None:
    own_redis.start()
    watched = Watched(f"redis://:secret@127.0.0.1:{own_redis.port}/0")
    await watched.store.start()
    assert not watched.store.available
    assert [available for available, _ in watched.news] == [False]
    assert "secret" not in watched.news[0][1]
    with Client.from_url(own_redis.url) as client:
        client.config_set("requirepass", "secret")
    await watched.up()
    await watched.store.stop()


async def test_a_script_that_can_not_be_loaded(own_redis: Redis, watched: Watched) -> None:
    session = await watched.node.open("r")
    good = watched.store._link.script
    watched.store._link.script = Script("return 1", "0" * 40)
    assert await session.claim(("s", 1)) is UNAVAILABLE
    watched.store._link.script = good
    await watched.up()
    await session.deliver(("s", 1))


async def test_waiting_for_the_store_twice(own_redis: Redis) -> None:
    watched = Watched(own_redis.url)
    await watched.store.start()
    calls: list[int] = []

    def once() -> None:
        calls.append(1)

    watched.store.when_available(once)
    watched.store.when_available(once)
    own_redis.start()
    await watched.up()
    assert calls == [1]
    await watched.store.stop()
