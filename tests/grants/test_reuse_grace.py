"""Retries after a lost response, which are immediate only with providers that grant a grace period for spent tokens."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.grants.events import LeaseExpired, ProviderResponded, RefreshRequested
from akoya_gateway.grants.refresh_policy import Action, next_action
from akoya_gateway.grants.serialization import decode, encode
from akoya_gateway.grants.state_machine import transition
from akoya_gateway.oauth.outcomes import DistrustReason, OutcomeUnknown, ProviderDown, TokensIssued, Untrusted
from akoya_gateway.secret import Secret
from tests.grants.events import KEY, NOW, tokens
from tests.support.grants import GrantEnv, Reuse, bearer, down
from tests.support.virtual_time import clock, in_virtual_time


def unknown(grace: float, jitter: float = 0.5) -> ProviderResponded:
    return ProviderResponded("me", Secret("refresh-1"), OutcomeUnknown("cut"), jitter, reuse_grace=grace)


@pytest.mark.parametrize("reuse", Reuse)
@in_virtual_time
async def test_lost_response_is_repeated_at_once_by_the_same_request(reuse: Reuse) -> None:
    env = GrantEnv(grace=30, reuse=reuse)
    grant = await env.connect()
    env.provider.faults = ["lost"]
    await asyncio.sleep(850)
    before = clock()
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-3"
    assert clock() - before < 1.0
    stored = await env.stored(grant)
    assert (stored.state, stored.unknowns, stored.reuse) == (GrantState.LIVE, 0, None)


@pytest.mark.parametrize("reuse", Reuse)
@in_virtual_time
async def test_without_a_grace_the_living_bearer_is_not_risked(reuse: Reuse) -> None:
    env = GrantEnv(reuse=reuse)
    grant = await env.connect()
    env.provider.faults = ["lost"]
    await asyncio.sleep(850)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(20)
    assert bearer(await env.manager.get_fresh(await env.stored(grant))) == "bearer-1"
    assert env.provider.uses == {"refresh-1": 1}


@in_virtual_time
async def test_no_reuse_comes_after_the_grace() -> None:
    """Every response is lost: retries happen early in the grace period, the next attempt after the bearer's expiry."""
    env = GrantEnv(grace=30, reuse=Reuse.FAMILY)
    grant = await env.connect()
    env.provider.faults = ["lost"] * 100
    await asyncio.sleep(850)
    began = clock()
    while clock() < began + 49:
        assert bearer(await env.manager.get_fresh(await env.stored(grant))) == "bearer-1"
        await asyncio.sleep(0.5)
    used = [at - began for at in env.provider.used_at]
    assert 5 < len(used) < 30
    assert max(used) < 0.75 * 30
    stored = await env.stored(grant)
    assert (stored.state, stored.unknowns) == (GrantState.UNCERTAIN, 1)


@in_virtual_time
async def test_background_work_repeats_the_refresh_without_a_request() -> None:
    env = GrantEnv(grace=60, tokens=Tokens(background=True, refresh_before=Seconds(60)))
    env.manager.start()
    grant = await env.connect()
    await env.manager.for_owner(grant.key.owner)
    env.provider.faults = ["lost", "lost", "lost"]
    await asyncio.sleep(840)
    stored = await env.stored(grant)
    assert stored.state is GrantState.LIVE
    assert bearer(stored) == "bearer-5"
    await env.manager.stop()


@in_virtual_time
async def test_crash_is_made_good_by_another_process_within_the_grace() -> None:
    env = GrantEnv(managers=2, delay=40.0, grace=60, reuse=Reuse.FAMILY)
    grant = await env.connect()
    await asyncio.sleep(850)
    flight = env.manager._refresher.flight(grant)
    await asyncio.sleep(21)
    tasks = [task for task in asyncio.all_tasks() if task is flight or "HeldLease.renew" in repr(task)]
    for task in tasks:
        task.cancel()
    env.provider.delay = 0.1
    await asyncio.sleep(12)
    other = env.managers[1]
    assert bearer(await other.get_fresh(await env.stored(grant))) == "bearer-3"


@in_virtual_time
async def test_provider_that_is_down_within_the_grace_period_is_not_requested_in_a_loop() -> None:
    env = GrantEnv(grace=60)
    grant = await env.connect()
    env.provider.faults = ["lost", *[down()] * 100]
    await asyncio.sleep(850)
    began = clock()
    while clock() < began + 40:
        await env.manager.get_fresh(await env.stored(grant))
        await asyncio.sleep(0.1)
    assert len(env.provider.used_at) < 12


@pytest.mark.parametrize("reason", [DistrustReason.SOURCE, DistrustReason.KEYS])
@in_virtual_time
async def test_untrusted_responses_within_the_grace_period_are_not_repeated_in_a_loop(reason: DistrustReason) -> None:
    env = GrantEnv(grace=60)
    grant = await env.connect()
    env.provider.faults = ["lost", *[Untrusted("invalid_grant", reason=reason)] * 1000]
    await asyncio.sleep(850)
    began = clock()
    while clock() < began + 40:
        await env.manager.get_fresh(await env.stored(grant))
        await asyncio.sleep(0.1)
    assert len(env.provider.used_at) < 12


@given(
    st.lists(st.tuples(st.floats(0.01, 5.0), st.sampled_from(["unknown", "down", "lease"])), max_size=30),
    st.floats(1, 120),
)
def test_no_use_begins_after_three_quarters_of_the_grace(rounds: list[tuple[float, str]], grace: float) -> None:
    grant, now = Grant(KEY, tokens(), GrantState.LIVE, NOW - 100, NOW - 100), NOW
    grant = transition(grant, RefreshRequested("me", 10.0), now)
    first = now
    grant = transition(grant, unknown(grace), now + 0.1)
    for pause, what in rounds:
        now += pause
        next_step = next_action(grant, now, 60.0)
        if now >= first + 0.75 * grace or grant.reuse is None:
            assert next_step.action is Action.USE, "the bearer is valid, and reuse would put it at risk"
            continue
        if next_step.action is not Action.REFRESH:
            continue
        grant = transition(grant, RefreshRequested("me", 10.0), now)
        if what == "lease":
            now += 10.1
            grant = transition(grant, LeaseExpired(grace), now)
        else:
            response = OutcomeUnknown("cut") if what == "unknown" else ProviderDown("no connection")
            grant = transition(
                grant, ProviderResponded("me", Secret("refresh-1"), response, 0.5, reuse_grace=grace), now
            )
        assert grant.state is GrantState.UNCERTAIN
        assert grant.unknowns == 1, "reuses within the grace do not count towards the limit"
        assert decode(encode(grant), grant.version) == grant
    grant = transition(
        transition(grant, RefreshRequested("me", 10.0), now),
        ProviderResponded("me", Secret("refresh-1"), TokensIssued(tokens(2))),
        now,
    )
    assert (grant.state, grant.reuse) == (GrantState.LIVE, None)
