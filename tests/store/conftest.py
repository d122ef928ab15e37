"""A fresh store of each kind for each test, and a second one on the same data."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from akoya_gateway.store import Store
from akoya_gateway.store.factory import open_store
from tests.support.redis_servers import own_redis, redis_cluster, redis_sentinel, redis_server, redis_tls

__all__ = ["own_redis", "redis_cluster", "redis_sentinel", "redis_server", "redis_tls"]

SORTS = ["memory", "sqlite", "redis", "redis-tls", "redis-sentinel", "redis-cluster"]


class FakeClock:
    """A clock that changes only when a test sets it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=SORTS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite://{tmp_path}/data/grants.db"
        case sort:
            fixture = {"redis": "redis_server"}.get(sort, sort.replace("-", "_"))
            url = str(request.getfixturevalue(fixture).url)
            return f"{url}{'&' if '?' in url else '?'}timeout=10&prefix=t{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def store(store_url: str, clock: FakeClock) -> AsyncIterator[Store]:
    store = open_store(store_url, clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def another(store: Store, store_url: str, clock: FakeClock) -> AsyncIterator[Store | None]:
    """A second store on the same data, like another process's. None if the kind cannot be shared."""
    if store_url.startswith("memory"):
        yield None
        return
    other = open_store(store_url, clock)
    await other.open()
    yield other
    await other.close()
