"""Grants whose owner's every session has ended are revoked; no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from akoya_gateway.config.model import Cookie, Seconds
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.grants.orphans import A_SESSIONS, ABANDONED, EVERY, Orphans
from akoya_gateway.sessions.book import Sessions
from akoya_gateway.store import Vault
from akoya_gateway.store.memory import MemoryStore
from tests.grants.virtual_time import clock as virtual_clock
from tests.grants.virtual_time import in_virtual_time
from tests.grants.world import RING, World, client

DAY = 86400.0


@dataclass
class Clock:
    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Replica:
    world: World
    sessions: Sessions
    orphans: Orphans
    clock: Clock

    async def connect(self, owner: str, sub: str = "sub_1") -> Grant:
        tokens = self.world.provider.consent(sub)
        return await self.world.one.connected(owner, client, "mikomo", tokens)

    async def state(self, grant: Grant) -> GrantState:
        return (await self.world.stored(grant)).state


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    clock = Clock()
    world = World(clock=clock, store=MemoryStore(clock))
    vault = Vault(world.store, RING)  # type: ignore[arg-type]
    cookie = Cookie("akoya", secure=False, idle=Seconds(12 * 3600.0), lifetime=Seconds(30 * DAY))
    sessions = Sessions(vault, cookie, clock=clock)
    yield Replica(world, sessions, Orphans(vault, world.one, sessions.of, clock=clock, pace=0.0), clock)
    await world.one.stop()


async def test_a_grant_without_a_session_is_revoked_and_forgotten(replica: Replica) -> None:
    session, _ = await replica.sessions.start()
    assert session.owner.startswith(A_SESSIONS)
    grant = await replica.connect(session.owner)
    replica.clock.ahead = 12 * 3600.0 + 900.0 + ABANDONED
    assert await replica.orphans.sweep() == 1
    assert await replica.state(grant) is GrantState.REVOKED
    await replica.world.one.revocations.sweep()
    assert len(replica.world.provider.revoked) == 1
    assert await replica.orphans.sweep() == 0


async def test_a_grant_with_a_session_stays_however_old_its_bearer(replica: Replica) -> None:
    session, value = await replica.sessions.start()
    grant = await replica.connect(session.owner)
    for _ in range(7):
        replica.clock.ahead += 11 * 3600.0
        assert await replica.sessions.resolve(value) is not None
    assert await replica.orphans.sweep() == 0
    assert await replica.state(grant) is GrantState.LIVE


async def test_a_clock_that_is_hours_ahead_ends_nothing_that_is_in_use(replica: Replica) -> None:
    session, _ = await replica.sessions.start()
    grant = await replica.connect(session.owner)
    replica.clock.ahead = 20 * 3600.0
    assert not await replica.sessions.of(session.owner), "every session seems to have ended"
    assert await replica.orphans.sweep() == 0
    assert await replica.state(grant) is GrantState.LIVE


async def test_grants_of_the_apps_own_users_stay(replica: Replica) -> None:
    grant = await replica.connect("usr_0123456789")
    replica.clock.ahead = 300 * DAY
    assert await replica.orphans.sweep() == 0
    assert await replica.state(grant) is GrantState.LIVE


async def test_of_many_replicas_one_looks_and_again_after_some_hours(replica: Replica) -> None:
    vault = Vault(replica.world.store, RING)  # type: ignore[arg-type]
    others = [Orphans(vault, replica.world.one, replica.sessions.of, clock=replica.clock, pace=0.0) for _ in range(5)]
    turns = await asyncio.gather(*[each.turn() for each in others])
    assert sorted(turns, key=str) == [0, None, None, None, None]
    assert await replica.orphans.turn() is None
    replica.clock.ahead = EVERY + 1
    assert await replica.orphans.turn() == 0


@in_virtual_time
async def test_a_fault_of_ours_neither_ends_the_looking_nor_keeps_the_gateway_from_landing_its_refreshes() -> None:
    world, looks = World(), 0
    vault = Vault(world.store, RING)  # type: ignore[arg-type]
    await world.connect(owner=f"{A_SESSIONS}1")

    async def broken(owner: str) -> list[object]:
        nonlocal looks
        looks += 1
        raise RuntimeError("a fault of ours")

    orphans = Orphans(vault, world.one, broken, clock=virtual_clock, random=lambda: 0.5)
    await asyncio.sleep(2 * DAY)
    orphans.start()
    await asyncio.sleep(DAY)
    assert looks > 1
    await orphans.stop()


async def test_sessions_that_cannot_be_read_are_no_reason_to_end_a_grant(replica: Replica) -> None:
    session, _ = await replica.sessions.start()
    grant = await replica.connect(session.owner)
    replica.clock.ahead = 20 * DAY
    replica.world.store.failing = lambda verb, record: "before" if verb == "find" else None
    with pytest.raises(StoreUnavailable):
        await replica.orphans.sweep()
    assert await replica.state(grant) is GrantState.LIVE
