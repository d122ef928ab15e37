"""How full a store is: what the metrics show before it is full."""

from __future__ import annotations

from pathlib import Path

from akoya_gateway.store.base import Record, StoreSize
from akoya_gateway.store.factory import open_store
from tests.support.redis_servers import RedisServer
from tests.support.tiny_disk import tiny_disk

__all__ = ["tiny_disk"]


async def size(url: str, *records: Record) -> StoreSize | None:
    store = open_store(url)
    await store.open()
    for record in records:
        assert await store.put(record)
    found = await store.size()
    await store.close()
    return found


async def test_size_of_sqlite_is_that_of_its_file_and_log_and_grows_to_the_size_of_the_disk(tiny_disk: Path) -> None:
    url = f"sqlite://{tiny_disk}/grants.db"
    empty = await size(url)
    grown = await size(url, Record("grant", "k", b"x" * 400_000))
    assert empty is not None and grown is not None
    assert grown.used > empty.used + 400_000
    assert 1_900_000 < empty.limit <= 2 * 1024 * 1024
    assert 1_900_000 < grown.limit <= 2 * 1024 * 1024


async def test_size_of_redis_is_its_memory_and_limit(own_redis: RedisServer) -> None:
    assert await size(own_redis.url) is None
    own_redis.client.config_set("maxmemory", 50_000_000)
    found = await size(own_redis.url, Record("grant", "k", b"x" * 400_000))
    assert found is not None
    assert found.limit == 50_000_000
    assert 400_000 < found.used < 50_000_000


async def test_size_of_a_redis_server_that_does_not_tell_is_unknown(own_redis: RedisServer) -> None:
    own_redis.client.config_set("maxmemory", 50_000_000)
    own_redis.client.execute_command("ACL", "SETUSER", "default", "-info")
    assert await size(own_redis.url) is None


async def test_size_of_memory_has_no_limit() -> None:
    assert await size("memory://") is None
