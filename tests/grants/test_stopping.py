"""A cancellation that is lost in a store call neither keeps the gateway from stopping nor a response from being stored.

Python 3.11's `asyncio.wait_for` loses a cancellation that arrives just as the awaited future completes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.grants.held_lease import LEASE_SECONDS
from akoya_gateway.grants.orphan_cleanup import OrphanCleaner
from akoya_gateway.oauth.outcomes import TokenOutcome
from akoya_gateway.secret import Secret
from akoya_gateway.store import Record, open_store
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.memory import MemoryStore
from akoya_gateway.tasks import cancel_and_wait
from tests.support.grants import RING, GrantEnv, Provider, bearer
from tests.support.redis_servers import RedisServer, own_redis
from tests.support.virtual_time import clock, in_virtual_time

__all__ = ["own_redis"]

TURNS = range(25)
"""Event loop turns before the cancellation. All are tried, because it is lost only between two specific turns."""


class SentByRedis(MemoryStore):
    """A memory store whose methods take a few event loop turns, as the Redis client's do."""

    async def _sent(self) -> None:
        for _ in range(3):
            await asyncio.wait_for(asyncio.sleep(0), 5)

    async def get(self, kind: str, key: str) -> Record | None:
        await self._sent()
        return await super().get(kind, key)

    async def put(self, record: Record) -> bool:
        await self._sent()
        return await super().put(record)

    async def scan(self, kind: str) -> AsyncIterator[Record]:
        await self._sent()
        async for record in super().scan(kind):
            yield record


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("number", TURNS)
def test_work_on_revocations_and_orphans_stops(number: int) -> None:
    @in_virtual_time
    async def main() -> None:
        env = GrantEnv(store=SentByRedis(clock))
        orphans = OrphanCleaner(EncryptedStore(env.store, RING), env.manager, no_sessions, clock=clock)  # type: ignore[arg-type]
        env.manager.start()
        orphans.start()
        await turns(number)
        stopping = asyncio.ensure_future(stop(env, orphans))
        done, _ = await asyncio.wait({stopping}, timeout=60)
        assert done, "it went on working despite the cancellation"

    main()


async def stop(env: GrantEnv, orphans: OrphanCleaner) -> None:
    await orphans.stop()
    await env.manager.stop()


async def no_sessions(owner: str) -> list[object]:
    return []


class LateBy(Provider):
    """Responds a given number of turns after the first renewal of the lease."""

    turns = 0

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        response = self.act(refresh_token.reveal())
        await asyncio.sleep(LEASE_SECONDS / 3)
        await turns(self.turns)
        return response


@pytest.mark.parametrize("number", TURNS)
def test_response_that_arrives_during_a_lease_renewal_is_stored(number: int) -> None:
    @in_virtual_time
    async def main() -> None:
        env = GrantEnv(managers=0, store=SentByRedis(clock))
        env.provider = LateBy(clock)
        env.provider.turns = number
        grants = env.new_manager("holder")
        env.managers.append(grants)
        grant = await env.connect()
        await asyncio.sleep(899)
        async with asyncio.timeout(60):
            fresh: Grant = await grants.get_fresh(grant)
            while bearer(fresh) != "bearer-2":
                await asyncio.sleep(1)
                fresh = await grants.get_fresh(grant)
        assert (await env.stored(grant)).state is GrantState.LIVE

    main()


@pytest.mark.parametrize("number", range(0, 60, 4))
async def test_task_that_queries_redis_forever_is_cancelled(number: int, own_redis: RedisServer) -> None:
    store = open_store(own_redis.url)
    await store.open()

    async def count_forever() -> Any:
        while True:
            await store.count("grant")

    for more in range(4):
        task = asyncio.create_task(count_forever())
        await turns(number + more)
        async with asyncio.timeout(5):
            await cancel_and_wait(task)
    await store.close()
