"""Grants in use are refreshed in advance, within the provider's limits, so that no request has to wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.grants import GrantState
from tests.support.grants import OWNER, GrantEnv, bearer, down
from tests.support.virtual_time import clock, in_virtual_time

AHEAD = replace(Tokens(), background=True, refresh_before=Seconds(60.0))


@in_virtual_time
async def test_grant_in_use_is_refreshed_before_a_request_would_wait() -> None:
    env = GrantEnv(tokens=AHEAD)
    env.manager.start()
    grant = await env.connect()
    for _ in range(84):
        await env.manager.for_owner(OWNER)
        await asyncio.sleep(10)
    (known,) = (await env.manager.for_owner(OWNER)).grants
    assert bearer(known) == "bearer-2"
    assert env.manager.is_ready(known)
    assert grant.tokens.expires_at - 121 <= env.provider.used_at[0] < grant.tokens.expires_at - 60


@in_virtual_time
async def test_grant_of_an_inactive_owner_is_not_refreshed() -> None:
    env = GrantEnv(tokens=AHEAD, life=86400)
    env.manager.start()
    await env.connect()
    await env.manager.for_owner(OWNER)
    await asyncio.sleep(90000)
    assert not env.provider.uses


@in_virtual_time
async def test_background_work_keeps_to_the_rate_of_the_environment() -> None:
    env = GrantEnv(tokens=AHEAD, delay=0.3)
    env.manager.start()
    for n in range(120):
        await env.connect(owner=f"own_{n}")
        await env.manager.for_owner(f"own_{n}")
    await asyncio.sleep(880)
    used = env.provider.used_at
    assert len(used) == 120
    assert max(sum(start <= at < start + 1.0 for at in used) for start in used) <= 6, "5 a second"


@in_virtual_time
async def test_background_work_continues_after_an_exception() -> None:
    env = GrantEnv(tokens=AHEAD)
    env.manager.start()
    await env.connect()
    env.provider.faults = [down(), "never arrived"]
    for _ in range(200):
        await env.manager.for_owner(OWNER)
        await asyncio.sleep(5)
    (known,) = (await env.manager.for_owner(OWNER)).grants
    assert known.state is GrantState.LIVE
    assert bearer(known) == "bearer-2"
    assert known.tokens.expires_at > clock()


@in_virtual_time
async def test_request_and_the_background_share_one_refresh() -> None:
    env = GrantEnv(tokens=AHEAD, delay=5.0)
    env.manager.start()
    grant = await env.connect()
    await env.manager.for_owner(OWNER)
    while not env.provider.uses:
        await asyncio.sleep(1)
    await asyncio.gather(*(env.manager.get_fresh(grant) for _ in range(10)))
    await asyncio.sleep(10)
    assert sum(env.provider.uses.values()) == 1
