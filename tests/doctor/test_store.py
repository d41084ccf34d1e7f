"""Faults planted at a real Redis, each of which the doctor has to name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis as RedisClient

from stompbridge.doctor import store
from tests.dedup.cluster import Cluster
from tests.doctor.conftest import Look
from tests.doctor.test_broker import errors, only
from tests.support.ports import free_port
from tests.support.redis import Redis, binary
from tests.support.requirements import require

pytestmark = pytest.mark.redis


def site(url: str) -> str:
    return f'[dedup]\nstore = "redis"\nredis_url = "{url}"\n'


@contextmanager
def changed(server: Redis, **settings: str) -> Iterator[None]:
    """The server with other settings for a while."""
    with RedisClient(host=server.host, port=server.port) as client:
        names = {name: name.replace("_", "-") for name in settings}
        before = {name: client.config_get(name)[name] for name in names.values()}
        for name, value in settings.items():
            client.config_set(names[name], value)
        try:
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)


async def test_nothing_is_wrong(look: Look, redis_server: Redis) -> None:
    found = await look(site(redis_server.url))
    assert errors(found) == set()
    names = ("tcp", "login", "version", "cluster", "eviction", "latency", "use")
    assert {only(found, f"store.{name}").result for name in names} <= {"ok", "warning"}
    assert only(found, "clock").result == "ok"
    # As the tests start it.
    assert "nothing was saved" in only(found, "store.persistence").detail


async def test_redis_is_down(look: Look) -> None:
    found = await look(site(f"redis://127.0.0.1:{free_port()}"))
    assert errors(found) == {"store.tcp"}
    assert only(found, "store.tcp").detail == "connection refused"


async def test_wrong_password(look: Look, redis_server: Redis) -> None:
    with RedisClient(host=redis_server.host, port=redis_server.port) as client:
        client.acl_setuser("doctor", enabled=True, passwords=["+right"], keys=["*"], categories=["+@all"])
    found = await look(site(f"redis://doctor:wrong@127.0.0.1:{redis_server.port}/0"))
    assert errors(found) == {"store.login"}
    assert "wrong@" not in only(found, "store.login").detail


async def test_no_password_where_one_is_needed(look: Look, redis_server: Redis) -> None:
    with changed(redis_server, requirepass="secret"):
        found = await look(site(redis_server.url))
        with RedisClient(host=redis_server.host, port=redis_server.port, password="secret") as client:
            client.config_set("requirepass", "")
    assert errors(found) == {"store.login"}


async def test_a_user_without_scripts(look: Look, redis_server: Redis) -> None:
    with RedisClient(host=redis_server.host, port=redis_server.port) as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-evalsha"]
        )
    found = await look(site(f"redis://reader:pw@127.0.0.1:{redis_server.port}/0"))
    assert errors(found) == {"store.use"}
    assert "EVALSHA" in only(found, "store.use").remedy


async def test_a_database_that_is_not_there(look: Look, redis_server: Redis) -> None:
    found = await look(site(f"redis://127.0.0.1:{redis_server.port}/999"))
    assert errors(found) == {"store.login"}
    assert "database" in only(found, "store.login").remedy


async def test_eviction(look: Look, redis_server: Redis) -> None:
    with changed(redis_server, maxmemory_policy="allkeys-lru"):
        unlimited = await look(site(redis_server.url))
        with changed(redis_server, maxmemory="100mb"):
            limited = await look(site(redis_server.url))
    assert (errors(unlimited), only(unlimited, "store.eviction").result) == (set(), "warning")
    assert errors(limited) == {"store.eviction"}
    assert "allkeys-lru" in only(limited, "store.eviction").detail
    assert "noeviction" in only(limited, "store.eviction").remedy


async def test_what_listens_there_is_no_redis(look: Look) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        plain = await look(site(f"redis://127.0.0.1:{port}"))
        tls = await look(site(f"rediss://127.0.0.1:{port}"))
    assert errors(plain) == {"store.login"}
    assert errors(tls) == {"store.tls"}


async def test_a_cluster(look: Look) -> None:
    require(binary(), "redis-server")
    cluster = Cluster()
    try:
        cluster.start()
        first = cluster.masters[0]
        whole = await look(site(f"redis+cluster://127.0.0.1:{first.port},127.0.0.1:{free_port()}"))
        plain = await look(site(f"redis://127.0.0.1:{first.port}/0"))
    finally:
        cluster.remove()
    assert errors(whole) == set()
    # The seed that is down, and three masters, two of which were not named.
    assert sorted(finding.result for finding in whole["store.tcp"]) == ["ok", "ok", "ok", "warning"]
    assert len(whole["store.eviction"]) == 3
    assert errors(plain) == {"store.cluster"}


async def test_a_single_server_is_no_cluster(look: Look, redis_server: Redis) -> None:
    found = await look(site(f"redis+cluster://127.0.0.1:{redis_server.port}"))
    assert "store.cluster" in errors(found)


@pytest.mark.parametrize(
    ("info", "name", "result"),
    [
        ({"redis_version": "6.2.1"}, "store.version", "error"),
        ({}, "store.version", "error"),
        ({"role": "slave"}, "store.cluster", "error"),
        ({"rdb_last_bgsave_status": "err"}, "store.persistence", "error"),
        ({"aof_enabled": "1"}, "store.persistence", "ok"),
        ({"rdb_last_save_time": "5", "rdb_saves": "2"}, "store.persistence", "warning"),
    ],
)
def test_what_the_server_says(info: dict[str, str], name: str, result: str) -> None:
    found = {finding.name: finding for finding in store._check_info(info, False, "here")}
    assert found[name].result == result


class Slow:
    """A server with a bad clock that takes its time."""

    async def command(self, *command: str) -> list[bytes]:
        if command == ("PING",):
            await asyncio.sleep(0.01)
        return [b"1000", b"0"]


async def test_clock_and_latency() -> None:
    assert (await store._check_clock(Slow(), "here")).result == "warning"  # type: ignore[arg-type]
    assert (await store._check_latency(Slow(), "here")).result == "warning"  # type: ignore[arg-type]
