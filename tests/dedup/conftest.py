"""Deployments for each of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.dedup.cluster import Cluster
from tests.dedup.deployment import Deployment, MemoryDeployment, RedisDeployment
from tests.support.redis import binary
from tests.support.requirements import require

Deploy = Callable[..., Deployment]

STORES = [
    pytest.param("memory"),
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("cluster", marks=pytest.mark.redis),
]


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Cluster]:
    """Three masters shared by all tests: leave them running, and use keys of your own."""
    require(binary(), "redis-server")
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def _factory(kind: str, request: pytest.FixtureRequest) -> Deploy:
    if kind == "memory":
        return MemoryDeployment
    url = request.getfixturevalue("redis_server" if kind == "redis" else "redis_cluster").url
    return lambda **changes: RedisDeployment(url, **changes)


@pytest.fixture(params=STORES)
def new_deployment(request: pytest.FixtureRequest) -> Deploy:
    """``new_deployment(**options)``; to be stopped by the test."""
    return _factory(request.param, request)


@pytest.fixture(params=STORES)
async def deploy(request: pytest.FixtureRequest) -> AsyncIterator[Deploy]:
    """``deploy(**options)`` is a deployment that is stopped at the end."""
    deployments: list[Deployment] = []
    factory = _factory(request.param, request)

    def make(**changes: Any) -> Deployment:
        deployments.append(factory(**changes))
        return deployments[-1]

    yield make
    for deployment in deployments:
        await deployment.stop()
