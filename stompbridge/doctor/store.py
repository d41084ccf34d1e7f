"""The deduplication store, and the clock against it."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from stompbridge.composition import store_options
from stompbridge.config import Settings
from stompbridge.dedup.redis import servers
from stompbridge.dedup.redis_link import Server
from stompbridge.dedup.store import make_store
from stompbridge.doctor.finding import Finding, error, ok, reach, reason, skipped, warning

OLDEST = (7, 0)
SLOW = 0.005
"""Seconds of a round trip from which on it is felt: a SEND with an ``idempotency-key`` waits for two of them."""
CLOCK = 1.0
"""Seconds that clocks may differ."""
_TIMEOUT = 5.0
_PINGS = 9


async def check_store(settings: Settings) -> list[Finding]:
    """The Redis server, or all masters of the cluster."""
    url = settings.dedup.redis_url
    if settings.dedup.store != "redis":
        return [skipped("store", 'dedup.store is "memory"'), skipped("clock", "no server here tells the time")]
    found = servers(url, _TIMEOUT)
    cluster = urlsplit(url).scheme.endswith("+cluster")
    findings: list[Finding] = []
    if cluster:
        found += await _masters(found)
    answers: dict[str, list[Finding]] = {}
    for server in found:
        answers[_where(server, url)] = await _check_server(server, url, cluster)
    reached = [where for where, one in answers.items() if not any(finding.result == "error" for finding in one)]
    for one in answers.values():
        # Of a cluster's servers in the configuration one is enough to find the others.
        findings += [
            warning(finding.name, finding.detail, finding.remedy, finding.subject)
            if finding.result == "error" and finding.name in ("store.tcp", "store.login") and reached
            else finding
            for finding in one
        ]
    if reached:
        findings.append(await _check_whole(settings))
    return findings


async def _masters(seeds: Sequence[Server]) -> list[Server]:
    """Those of a cluster that the configuration does not name; nothing where none of ``seeds`` tells."""
    named = {server.address for server in seeds}
    for seed in seeds:
        asked = seed.at(*seed.address)
        try:
            async with _connected(asked):
                slots = await asked.command("CLUSTER", "SLOTS")
                addresses = {(master[0].decode() or asked.address[0], int(master[1])) for _, _, master, *_ in slots}
        except Exception:
            # What is wrong with it is found by its own check.
            continue
        return [seed.at(*address) for address in sorted(addresses - named)]
    return []


def _where(server: Server, url: str) -> str:
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else "{}:{}".format(*server.address)


async def _check_server(server: Server, url: str, cluster: bool) -> list[Finding]:
    where = _where(server, url)
    scheme = urlsplit(url).scheme
    findings = []
    if scheme != "unix":
        host, port = server.address
        problem = await reach(host, port, _TIMEOUT)
        if problem:
            remedy = "start Redis, or correct dedup.redis_url; a firewall may stand between"
            return [error("store.tcp", problem, remedy, where)]
        findings.append(ok("store.tcp", "accepts connections", where))
    try:
        async with _connected(server):
            info = _read_info(await server.command("INFO"))
            findings.append(ok("store.login", "is let in", where))
            findings += _check_info(info, cluster, where)
            findings.append(await _check_latency(server, where))
            findings.append(await _check_clock(server, where))
    except Exception as problem:
        findings.append(_refused(problem, scheme, where))
    return findings


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[None]:
    await server.connect()
    try:
        yield
    finally:
        await server.close()


def _refused(problem: Exception, scheme: str, where: str) -> Finding:
    text = reason(problem)
    from redis.exceptions import AuthenticationError, ResponseError

    if isinstance(problem, AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
        remedy = "user and password in dedup.redis_url_file; the user needs +@all, or what the scripts use"
        return error("store.login", text, remedy, where)
    if isinstance(problem, ResponseError):
        return error("store.login", text, "the database's number in dedup.redis_url, or what the text says", where)
    if scheme.startswith("rediss"):
        return error("store.tls", text, "the certificate of Redis, or redis:// where it speaks no TLS", where)
    remedy = "something else may listen there, or Redis wants TLS: rediss:// in dedup.redis_url"
    return error("store.login", f"no usable answer: {text}", remedy, where)


def _read_info(data: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in data.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _check_info(info: dict[str, str], cluster: bool, where: str) -> list[Finding]:
    return [
        _check_version(info, where),
        _check_kind(info, cluster, where),
        _check_eviction(info, where),
        _check_persistence(info, where),
    ]


def _check_version(info: dict[str, str], where: str) -> Finding:
    version = info.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < OLDEST:
        return error("store.version", f"Redis {version or 'of unknown version'}", "Redis 7.0 or newer", where)
    return ok("store.version", f"Redis {version}", where)


def _check_kind(info: dict[str, str], cluster: bool, where: str) -> Finding:
    name = "store.cluster"
    is_cluster = info.get("cluster_enabled") == "1"
    if cluster and not is_cluster:
        return error(name, "is no part of a cluster", "redis:// in place of redis+cluster:// in dedup.redis_url", where)
    if is_cluster and not cluster:
        return error(name, "is part of a cluster", "redis+cluster:// in dedup.redis_url", where)
    if not cluster and info.get("role") == "slave":
        return error(name, "is a replica, which takes no writes", "the master's address in dedup.redis_url", where)
    return ok(name, "part of a cluster" if cluster else "a server of its own", where)


def _check_eviction(info: dict[str, str], where: str) -> Finding:
    name, policy, limit = "store.eviction", info.get("maxmemory_policy", ""), info.get("maxmemory", "0")
    remedy = "maxmemory-policy noeviction; a Redis of its own for the bridge, where another program wants to evict"
    if policy == "noeviction":
        return ok(name, "noeviction", where)
    if limit == "0":
        detail = f"the policy is {policy}; as maxmemory is not set, nothing is evicted for now"
        return warning(name, detail, remedy, where)
    detail = f"the policy is {policy}: when memory is short Redis forgets what was delivered, and it comes twice"
    return error(name, detail, remedy, where)


def _check_persistence(info: dict[str, str], where: str) -> Finding:
    name = "store.persistence"
    states = {key: info.get(key, "ok") for key in ("rdb_last_bgsave_status", "aof_last_write_status")}
    failed = [key for key, state in states.items() if state != "ok"]
    if failed:
        remedy = "room and rights for Redis's data folder; its log says more"
        return error(name, f"{failed[0]} is {states[failed[0]]}: Redis may refuse to write", remedy, where)
    if info.get("aof_enabled") == "1":
        return ok(name, "append-only file", where)
    if info.get("rdb_last_save_time", "0") != "0" and info.get("rdb_saves", "1") != "0":
        return warning(name, "snapshots only: a crash loses the last minutes", "appendonly yes", where)
    detail = "nothing was saved on disk since it started: a restart of Redis forgets what was delivered"
    return warning(name, detail, "appendonly yes", where)


async def _check_latency(server: Server, where: str) -> Finding:
    took = []
    for _ in range(_PINGS):
        begin = time.perf_counter()
        await server.command("PING")
        took.append(time.perf_counter() - begin)
    middle = statistics.median(took)
    detail = f"{middle * 1000:.2f} ms a round trip, at most {max(took) * 1000:.2f} ms"
    if middle > SLOW:
        return warning("store.latency", detail, "a Redis nearer to the bridge, or one with less to do", where)
    return ok("store.latency", detail, where)


async def _check_clock(server: Server, where: str) -> Finding:
    begin = time.time()
    seconds, microseconds = await server.command("TIME")
    end = time.time()
    theirs = int(seconds) + int(microseconds) / 1e6
    # Nobody knows when between question and answer the clock was read.
    apart = max(begin - theirs, theirs - end, 0.0)
    if apart > CLOCK:
        detail = f"this machine's clock and that of Redis differ by {apart:.1f} s"
        return warning("clock", detail, "NTP on both; tokens' times and {snowflake} go by this machine's clock", where)
    return ok("clock", "agrees with that of Redis", where)


async def _check_whole(settings: Settings) -> Finding:
    """The store as the bridge uses it: scripts, keys, and all masters of a cluster."""
    store = make_store("redis", store_options(settings.dedup))
    why: list[str] = []
    store.on_change = lambda _available, text: why.append(text)
    await store.start()
    try:
        if store.available:
            return ok("store.use", "carries out the bridge's scripts")
    finally:
        await store.stop()
    remedy = "what the text says; the user needs EVALSHA, SCRIPT LOAD, SUBSCRIBE, and all keys stompbridge:*"
    return error("store.use", (why or ["no answer"])[0], remedy)
