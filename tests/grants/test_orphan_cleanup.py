"""Grants are revoked when all sessions of their owner have ended, and no other grants are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from akoya_gateway.config.model import Cookie, Seconds
from akoya_gateway.errors import StoreUnavailable, UndecryptableRecord
from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.grants.orphan_cleanup import ABANDONED_AFTER, SESSION_OWNER_PREFIX, SWEEP_INTERVAL, OrphanCleaner
from akoya_gateway.sessions.session_store import SessionStore
from akoya_gateway.store import EncryptedStore, open_store
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import RING, GrantEnv, client
from tests.support.redis_servers import RedisServer, own_redis
from tests.support.virtual_time import clock as virtual_clock
from tests.support.virtual_time import in_virtual_time

__all__ = ["own_redis"]

DAY = 86400.0


@dataclass
class Clock:
    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Replica:
    env: GrantEnv
    sessions: SessionStore
    orphans: OrphanCleaner
    clock: Clock

    async def connect(self, owner: str, sub: str = "sub_1") -> Grant:
        tokens = self.env.provider.consent(sub)
        return await self.env.manager.connect(owner, client, "mikomo", tokens)

    async def state(self, grant: Grant) -> GrantState:
        return (await self.env.stored(grant)).state


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    clock = Clock()
    env = GrantEnv(clock=clock, store=MemoryStore(clock))
    store = EncryptedStore(env.store, RING)  # type: ignore[arg-type]
    cookie = Cookie("akoya", secure=False, idle=Seconds(12 * 3600.0), lifetime=Seconds(30 * DAY))
    sessions = SessionStore(store, cookie, clock=clock)
    yield Replica(env, sessions, OrphanCleaner(store, env.manager, sessions.for_owner, clock=clock, pace=0.0), clock)
    await env.manager.stop()


async def test_grant_without_a_session_is_revoked_and_forgotten(replica: Replica) -> None:
    session, _ = await replica.sessions.start()
    assert session.owner.startswith(SESSION_OWNER_PREFIX)
    grant = await replica.connect(session.owner)
    replica.clock.ahead = 12 * 3600.0 + 900.0 + ABANDONED_AFTER
    assert await replica.orphans.sweep() == 1
    assert await replica.state(grant) is GrantState.REVOKED
    await replica.env.manager.revocation_queue.sweep()
    assert len(replica.env.provider.revoked) == 1
    assert await replica.orphans.sweep() == 0


async def test_grant_with_a_session_stays_however_old_its_bearer(replica: Replica) -> None:
    session, value = await replica.sessions.start()
    grant = await replica.connect(session.owner)
    for _ in range(7):
        replica.clock.ahead += 11 * 3600.0
        assert await replica.sessions.resolve(value) is not None
    assert await replica.orphans.sweep() == 0
    assert await replica.state(grant) is GrantState.LIVE


async def test_clock_that_is_hours_ahead_ends_nothing_that_is_in_use(replica: Replica) -> None:
    session, _ = await replica.sessions.start()
    grant = await replica.connect(session.owner)
    replica.clock.ahead = 20 * 3600.0
    assert not await replica.sessions.for_owner(session.owner), "every session seems to have ended"
    assert await replica.orphans.sweep() == 0
    assert await replica.state(grant) is GrantState.LIVE


async def test_grants_of_the_apps_own_users_stay(replica: Replica) -> None:
    grant = await replica.connect("usr_0123456789")
    replica.clock.ahead = 300 * DAY
    assert await replica.orphans.sweep() == 0
    assert await replica.state(grant) is GrantState.LIVE


async def test_of_many_replicas_one_looks_and_again_after_some_hours(replica: Replica) -> None:
    store = EncryptedStore(replica.env.store, RING)  # type: ignore[arg-type]
    others = [
        OrphanCleaner(store, replica.env.manager, replica.sessions.for_owner, clock=replica.clock, pace=0.0)
        for _ in range(5)
    ]
    turns = await asyncio.gather(*[each.run_once() for each in others])
    assert sorted(turns, key=str) == [0, None, None, None, None]
    assert await replica.orphans.run_once() is None
    replica.clock.ahead = SWEEP_INTERVAL + 1
    assert await replica.orphans.run_once() == 0


async def test_session_that_no_key_opens_keeps_its_owners_grants_and_no_others(replica: Replica) -> None:
    unreadable, _ = await replica.sessions.start()
    ended, _ = await replica.sessions.start()
    kept, other = await replica.connect(unreadable.owner), await replica.connect(ended.owner, "sub_2")
    replica.clock.ahead = 20 * DAY
    of = replica.sessions.for_owner

    async def sessions(owner: str) -> Sequence[object]:
        if owner == unreadable.owner:
            raise UndecryptableRecord("k9")
        return await of(owner)

    replica.orphans._sessions = sessions
    assert await replica.orphans.sweep() == 1
    assert (await replica.state(kept), await replica.state(other)) == (GrantState.LIVE, GrantState.REVOKED)


async def test_of_a_disconnected_grant_nothing_stays_in_redis(own_redis: RedisServer) -> None:
    """Owners who never return accumulate over the years."""
    clock = Clock()
    store = open_store(f"{own_redis.url}?prefix=mine", clock)
    await store.open()
    env = GrantEnv(clock=clock, store=store)
    encrypted_store = EncryptedStore(env.store, RING)  # type: ignore[arg-type]
    for n in range(3):
        await env.manager.disconnect(await env.connect(owner=f"usr_{n}"))
    living = await env.connect(owner="usr_2", sub="sub_2")
    await env.manager.revocation_queue.sweep()

    async def nobody(owner: str) -> list[object]:
        return []

    orphans = OrphanCleaner(encrypted_store, env.manager, nobody, clock=clock)
    with own_redis.client as client:
        assert len(client.keys("mine:group:grant:*")) == 3
        clock.ahead = 3600.0
        await orphans.run_once()
        assert len(client.keys("mine:group:grant:*")) == 3, "late requests still find the tombstone"
        clock.ahead = 20 * 3600.0
        for name in client.keys("mine:group:grant:*"):  # the Redis server uses its own clock
            client.zadd(name, dict.fromkeys(client.zrange(name, 0, -1), time.time() - 20 * 3600.0))
        await orphans.run_once()
        assert [client.zrange(name, 0, -1) for name in client.keys("mine:group:grant:*")] == [[living.id.encode()]]
    await store.close()


@in_virtual_time
async def test_internal_error_neither_stops_the_scan_nor_prevents_refreshes_from_completing() -> None:
    env, looks = GrantEnv(), 0
    store = EncryptedStore(env.store, RING)  # type: ignore[arg-type]
    await env.connect(owner=f"{SESSION_OWNER_PREFIX}1")

    async def broken(owner: str) -> list[object]:
        nonlocal looks
        looks += 1
        raise RuntimeError("a fault of ours")

    orphans = OrphanCleaner(store, env.manager, broken, clock=virtual_clock, random=lambda: 0.5)
    await asyncio.sleep(2 * DAY)
    orphans.start()
    await asyncio.sleep(DAY)
    assert looks > 1
    await orphans.stop()


async def test_sessions_that_cannot_be_read_are_no_reason_to_end_a_grant(replica: Replica) -> None:
    session, _ = await replica.sessions.start()
    grant = await replica.connect(session.owner)
    replica.clock.ahead = 20 * DAY
    replica.env.store.failing = lambda verb, record: "before" if verb == "find" else None
    with pytest.raises(StoreUnavailable):
        await replica.orphans.sweep()
    assert await replica.state(grant) is GrantState.LIVE
