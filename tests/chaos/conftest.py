"""The fleet on each kind of store."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chaos.replicas import Fleet
from tests.support.redis_servers import RedisServer, own_redis, redis_sentinel, redis_server

__all__ = ["own_redis", "redis_sentinel", "redis_server"]

FULL = os.environ.get("AKOYA_SOAK") == "full"


@pytest.fixture(scope="session", params=["sqlite", "redis"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three gateways for all tests, which share only the processes: faults are cleared after each test (`calm`)."""
    folder = tmp_path_factory.mktemp("fleet")
    store = None
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        store = f"{server.url}?prefix={folder.name}"
    with Fleet(folder, store=store) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Clear all faults after each test."""
    yield
    for name in {"fleet", "pair"} & set(request.fixturenames):
        fleet: Fleet = request.getfixturevalue(name)
        fleet.akoya.clear_faults()
        fleet.upstream.slow = 0.0
