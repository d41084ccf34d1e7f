"""The Redis store while servers of its cluster are absent or silent, and while slots move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot
from redis.exceptions import MovedError

from stompbridge.dedup import redis_link
from stompbridge.dedup.redis import RedisStore
from stompbridge.dedup.redis_cluster import ClusterLink
from stompbridge.dedup.redis_link import Call
from stompbridge.dedup.store import Lock, Refusal
from tests.dedup.cluster import Cluster
from tests.dedup.deployment import Answer, RedisDeployment, Session, Watched, options, until, within
from tests.support.redis import binary
from tests.support.requirements import require

pytestmark = pytest.mark.redis

DUPLICATE, TOO_OLD, BUSY, STALE, UNAVAILABLE = Refusal


@pytest.fixture(scope="module")
def faulty_cluster() -> Iterator[Cluster]:
    require(binary(), "redis-server")
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def own_cluster(faulty_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster whose masters a test may kill and suspend."""
    yield faulty_cluster
    for master in faulty_cluster.masters:
        master.ensure_running()
    faulty_cluster.wait_ready()


def sessions_by_master(cluster: Cluster, sessions: list[Session]) -> dict[int, list[Session]]:
    """The sessions by the number of the master that has their keys."""
    share = -(-16384 // len(cluster.masters))
    found: dict[int, list[Session]] = {number: [] for number in range(len(cluster.masters))}
    for session in sessions:
        found[key_slot(session.receiver.root) // share].append(session)  # type: ignore[attr-defined]
    return found


async def test_a_cluster_without_one_of_its_masters(own_cluster: Cluster) -> None:
    watched = Watched(own_cluster.url)
    await watched.store.start()
    sessions = [await watched.node.open(f"r{number}") for number in range(20)]
    by_master = sessions_by_master(own_cluster, sessions)
    assert all(by_master.values())
    own_cluster.masters[0].suspend()
    answers: dict[Session, Answer[Lock | Refusal]] = {session: Answer() for session in sessions}
    for session, answer in answers.items():
        session.receiver.claim(("s", 1), answer)
    for number, mine in by_master.items():
        for session in mine:
            assert (await within(answers[session]) is UNAVAILABLE) is (number == 0)
    assert not watched.store.available
    own_cluster.masters[0].resume()
    await watched.up()
    await by_master[0][0].deliver(("s", 1))
    assert await by_master[1][0].claim(("s", 1)) is BUSY
    # Without its data, but with its slots.
    own_cluster.masters[1].kill()
    await watched.down()
    own_cluster.masters[1].start()
    await watched.up()
    await by_master[1][0].deliver(("s", 1))
    assert await by_master[0][0].claim(("s", 1)) is DUPLICATE
    await watched.store.stop()


async def test_slots_that_moved(own_cluster: Cluster) -> None:
    watched = Watched(own_cluster.url)
    await watched.store.start()
    session = await watched.node.open("r")
    root: bytes = session.receiver.root  # type: ignore[attr-defined]
    slot = key_slot(root)
    old = slot // -(-16384 // 3)
    new = (old + 1) % 3
    with own_cluster.masters[old].client() as source, own_cluster.masters[new].client() as target:
        names = [master.execute_command("CLUSTER MYID").decode() for master in (source, target)]
        target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[0])
        source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[1])
        for key in source.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
            source.execute_command("MIGRATE", "127.0.0.1", own_cluster.masters[new].port, key, 0, 5000)
        # While the slot is on its way, what needs several keys has to wait.
        assert await session.claim(("s", 1)) is UNAVAILABLE
        for master in (target, source):
            master.execute_command("CLUSTER SETSLOT", slot, "NODE", names[1])
    await watched.up()
    before = watched.store.counters.unavailable
    await session.deliver(("s", 1))
    link = watched.store._link
    assert isinstance(link, ClusterLink)
    # An old map.
    link._slots[slot] = link._masters["127.0.0.1", own_cluster.masters[old].port]
    assert await session.claim(("s", 1)) is DUPLICATE
    assert watched.store.counters.unavailable == before
    await watched.store.stop()


async def test_a_cluster_that_lacks_slots(own_cluster: Cluster) -> None:
    with own_cluster.masters[0].client() as client:
        client.execute_command("CLUSTER DELSLOTS", 0)
        watched = Watched(f"redis+cluster://127.0.0.1:{own_cluster.masters[0].port}")
        await watched.store.start()
        assert not watched.store.available
        client.execute_command("CLUSTER ADDSLOTS", 0)
    await watched.up()
    await watched.store.stop()


async def test_a_map_with_fewer_masters(own_cluster: Cluster) -> None:
    store = RedisStore(options(url=own_cluster.url))
    link = store._link
    assert isinstance(link, ClusterLink)
    await link.connect()
    asked = link._seeds[0]
    # Without a host, it is the one that was asked.
    await link._take_map([[0, 16383, [b"", own_cluster.masters[0].port, b"name"], []]], asked)
    assert list(link._masters) == [("127.0.0.1", own_cluster.masters[0].port)]
    assert len(link.probes()) == 1
    await link.close()


async def test_a_master_that_the_map_does_not_show_yet(own_cluster: Cluster) -> None:
    store = RedisStore(options(url=own_cluster.url))
    link = store._link
    assert isinstance(link, ClusterLink)
    await link.connect()
    known = dict(link._masters)
    address = ("127.0.0.1", own_cluster.masters[2].port)
    last = link._masters.pop(address)
    await last.close()
    call = Call(5)
    call.error = MovedError(f"5 :{address[1]}")

    async def no_map() -> None:
        raise redis_link.LinkError("no map")

    link.connect = no_map  # type: ignore[method-assign]
    await link._follow([call])
    assert set(link._masters) == set(known)
    assert link._slots[5] is link._masters[address]
    await link.close()


async def test_listening_to_another_master(own_cluster: Cluster) -> None:
    deployment = RedisDeployment(own_cluster.url, timeout=0.3)
    one, other = await deployment.node(), await deployment.node()
    old = await one.open("r")
    own_cluster.masters[0].kill()
    store = one.store
    await until(lambda: not store.available, store.sweep)
    own_cluster.masters[0].start()
    deployment.advance(1)
    async with asyncio.timeout(10):
        while await other.try_open("r") is None:
            await asyncio.to_thread(own_cluster.wait_ready)
    # A cluster may lose what is published while its servers find each other.
    await until(lambda: bool(old.losses), store.sweep)
    await deployment.stop()


async def test_a_cluster_whose_first_server_is_gone(own_cluster: Cluster) -> None:
    watched = Watched(own_cluster.url.replace("://", "://127.0.0.1:1,"))
    await watched.store.start()
    assert watched.store.available
    await watched.store.stop()


async def test_nobody_to_listen_to() -> None:
    store = RedisStore(options(url="redis+cluster://127.0.0.1:1"))
    with pytest.raises(redis_link.LinkError):
        await anext(store._link.listen("channel"))
    with pytest.raises(redis_link.LinkError):
        await store._link.connect()


async def test_no_master_is_there(own_cluster: Cluster) -> None:
    watched = Watched(own_cluster.url)
    await watched.store.start()
    for master in own_cluster.masters:
        master.kill()
    await watched.down()
    assert await watched.node.try_open("r") is None
    await watched.store.stop()
