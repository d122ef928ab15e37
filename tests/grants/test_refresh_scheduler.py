"""Grants in use are refreshed in advance, within the provider's limits, so that no request has to wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.grants import GrantState
from tests.support.grants import OWNER, World, bearer, down
from tests.support.virtual_time import clock, in_virtual_time

AHEAD = replace(Tokens(), background=True, refresh_before=Seconds(60.0))


@in_virtual_time
async def test_a_grant_in_use_is_refreshed_before_a_request_would_wait() -> None:
    world = World(tokens=AHEAD)
    world.one.start()
    grant = await world.connect()
    for _ in range(84):
        await world.one.for_owner(OWNER)
        await asyncio.sleep(10)
    (known,) = (await world.one.for_owner(OWNER)).grants
    assert bearer(known) == "bearer-2"
    assert world.one.is_ready(known)
    assert grant.tokens.expires_at - 121 <= world.provider.used_at[0] < grant.tokens.expires_at - 60


@in_virtual_time
async def test_a_grant_that_nobody_uses_is_let_go() -> None:
    world = World(tokens=AHEAD, life=86400)
    world.one.start()
    await world.connect()
    await world.one.for_owner(OWNER)
    await asyncio.sleep(90000)
    assert not world.provider.uses


@in_virtual_time
async def test_background_work_keeps_to_the_rate_of_the_environment() -> None:
    world = World(tokens=AHEAD, delay=0.3)
    world.one.start()
    for n in range(120):
        await world.connect(owner=f"own_{n}")
        await world.one.for_owner(f"own_{n}")
    await asyncio.sleep(880)
    used = world.provider.used_at
    assert len(used) == 120
    assert max(sum(start <= at < start + 1.0 for at in used) for start in used) <= 6, "5 a second"


@in_virtual_time
async def test_background_work_goes_on_after_trouble() -> None:
    world = World(tokens=AHEAD)
    world.one.start()
    await world.connect()
    world.provider.faults = [down(), "never arrived"]
    for _ in range(200):
        await world.one.for_owner(OWNER)
        await asyncio.sleep(5)
    (known,) = (await world.one.for_owner(OWNER)).grants
    assert known.state is GrantState.LIVE
    assert bearer(known) == "bearer-2"
    assert known.tokens.expires_at > clock()


@in_virtual_time
async def test_a_request_and_the_background_share_one_refresh() -> None:
    world = World(tokens=AHEAD, delay=5.0)
    world.one.start()
    grant = await world.connect()
    await world.one.for_owner(OWNER)
    while not world.provider.uses:
        await asyncio.sleep(1)
    await asyncio.gather(*(world.one.get_fresh(grant) for _ in range(10)))
    await asyncio.sleep(10)
    assert sum(world.provider.uses.values()) == 1
