"""Responses that contain neither tokens nor a refusal, at every refresh: no grant ends, and the load is bounded."""

from __future__ import annotations

import asyncio

import pytest

from akoya_gateway.grants import GrantState
from akoya_gateway.grants.events import Reason
from akoya_gateway.grants.pauses import MAX_UNKNOWN_OUTCOMES, MAX_UNUSABLE_RESPONSES
from akoya_gateway.oauth.outcomes import OutcomeUnknown, Refused, Reply, Untrusted
from akoya_gateway.secret import Secret
from tests.support.grants import GrantEnv, status
from tests.support.virtual_time import in_virtual_time

ECHO = Untrusted("no id_token", Secret("refresh-1"), doubtful=True)


@in_virtual_time
async def test_provider_that_only_repeats_the_refresh_token_gets_few_requests_and_is_reported() -> None:
    """Status 200 and the refresh token that was sent, without a bearer, at every refresh and both replicas."""
    env = GrantEnv(managers=2)
    grant = await env.connect()
    env.provider.faults = [ECHO] * 1000
    await asyncio.sleep(950)
    for _ in range(360):
        for manager in env.managers:
            assert await status(await env.stored(grant), manager) == 503
        await asyncio.sleep(10)
    stored = await env.stored(grant)
    assert (stored.state, stored.reason, stored.fallback) == (GrantState.LIVE, Reason.UNTRUSTED_ANSWER, None)
    assert stored.untrusted == len(env.provider.used_at) <= 25, "one attempt for each pause, over both replicas"
    notes = [note for manager in env.managers for note in manager.notes]
    assert any("1 grant of mikomo" in note and "no id_token" in note for note in notes)
    env.provider.faults = [Refused("invalid_grant")]
    await asyncio.sleep(900)
    assert await status(stored, env.manager) == 401
    for manager in env.managers:
        await asyncio.sleep(1800)
        assert manager.notes == ()


LOST, UNUSABLE = OutcomeUnknown("timeout"), OutcomeUnknown("responded with 502", Reply(502))


@pytest.mark.parametrize(
    ("response", "lost_after", "state"),
    [
        (UNUSABLE, 0, GrantState.LIVE),
        (UNUSABLE, MAX_UNKNOWN_OUTCOMES - MAX_UNUSABLE_RESPONSES - 1, GrantState.LIVE),
        (UNUSABLE, MAX_UNKNOWN_OUTCOMES - MAX_UNUSABLE_RESPONSES, GrantState.NEEDS_RECONNECT),
        (LOST, 0, GrantState.NEEDS_RECONNECT),
    ],
)
def test_hours_of_unusable_responses_end_no_grant(response: OutcomeUnknown, lost_after: int, state: GrantState) -> None:
    """A proxy in front of the provider sends 502, or a web page with status 200, during maintenance."""

    @in_virtual_time
    async def main() -> None:
        env = GrantEnv()
        grant = await env.connect()
        await asyncio.sleep(950)
        env.provider.faults = [response] * 1000
        for _ in range(4 * 60):
            await env.manager._refresher.flight(await env.stored(grant))
            await asyncio.sleep(60)
        assert len(env.provider.used_at) <= 4 * 60 * 60 / 120, "at most one attempt in two minutes"
        env.provider.faults = [LOST] * lost_after
        for _ in range(60):
            await env.manager._refresher.flight(await env.stored(grant))
            await asyncio.sleep(60)
        assert (await env.stored(grant)).state is state

    main()
