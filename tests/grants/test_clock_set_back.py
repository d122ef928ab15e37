"""A clock that was ahead for a while and is corrected: no wait that began meanwhile outlasts the correction for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from akoya_gateway.clock import remaining
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.grants.orphan_cleanup import OrphanCleaner
from akoya_gateway.grants.request_pacer import RequestPacer
from akoya_gateway.oauth.outcomes import ClientRejected, OutcomeUnknown, ProviderDown, TokenOutcome, Untrusted
from akoya_gateway.secret import Secret
from akoya_gateway.store.encrypted_store import EncryptedStore
from tests.support import virtual_time
from tests.support.grants import RING, GrantEnv
from tests.support.virtual_time import in_virtual_time

DAY = 86_400.0


class SkewedEnv(GrantEnv):
    """Replicas whose clock is `ahead` seconds ahead of the provider's clock."""

    def __init__(self, managers: int = 1) -> None:
        self.ahead = 0.0
        super().__init__(managers, clock=lambda: virtual_time.clock() + self.ahead)
        self.provider.clock = virtual_time.clock


def down(_: SkewedEnv) -> TokenOutcome:
    return ProviderDown("503", retry_after=900.0)


OUTCOMES: dict[str, Callable[[SkewedEnv], TokenOutcome]] = {
    "untrusted": lambda env: Untrusted("exp is past", Secret(env.provider.families[0].living)),
    "provider down": down,
    "client rejected": lambda _: ClientRejected("invalid_client"),
    "outcome unknown": lambda _: OutcomeUnknown("no response"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@in_virtual_time
async def test_grant_is_refreshed_soon_after_the_clock_is_corrected(outcome: str) -> None:
    env = SkewedEnv(managers=2)
    grant = await env.connect()
    env.ahead = DAY
    env.provider.faults = [OUTCOMES[outcome](env)] * 5
    for _ in range(5):
        with pytest.raises(GatewayError):
            await env.manager.get_fresh(grant)
        await asyncio.sleep(10)
    env.ahead, env.provider.faults = 0.0, []
    await asyncio.sleep(950)  # the bearer has expired
    for manager in env.managers:
        await manager.get_fresh(await env.stored(grant))
    assert (await env.stored(grant)).state is GrantState.LIVE


@in_virtual_time
async def test_lease_of_a_crashed_replica_that_was_ahead_expires() -> None:
    env = SkewedEnv(managers=2)
    grant = await env.connect()
    env.ahead, env.provider.faults = DAY, ["never arrived"]
    env.provider.delay = 10_000.0
    flight: asyncio.Task[Grant] = env.manager._refresher.flight(grant)
    await asyncio.sleep(1)
    flight.cancel()
    await asyncio.wait({flight})
    env.ahead, env.provider.delay, env.provider.faults = 0.0, 0.1, []
    assert (await env.stored(grant)).state is GrantState.REFRESHING
    await asyncio.sleep(1000)
    with pytest.raises(GatewayError):
        await env.managers[1].get_fresh(await env.stored(grant))
    await asyncio.sleep(60)
    await env.managers[1].get_fresh(await env.stored(grant))
    assert (await env.stored(grant)).state is GrantState.LIVE


def test_wait_by_a_clock_that_was_set_back_is_over() -> None:
    assert [remaining(until, 100.0, 10.0) for until in (99.0, 100.0, 101.0, 110.0, 110.5, 9e9)] == [0, 0, 1, 10, 0, 0]


def test_requests_are_not_paced_by_turns_of_a_clock_that_was_ahead() -> None:
    now = [DAY]
    pacer = RequestPacer(lambda: now[0])
    pacer.on_rate_limited()
    assert [pacer.reserve(1.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    now[0] = 0.0
    assert pacer.reserve(1.0) == 0.0


@pytest.mark.parametrize(
    ("outcome", "seconds"), [("untrusted", 66), ("client rejected", 121), ("outcome unknown", 106)]
)
@in_virtual_time
async def test_pause_that_began_while_the_clock_was_ten_minutes_ahead_is_over_soon(
    outcome: str, seconds: float
) -> None:
    """A clock that is ahead makes every response untrusted, so its correction is what the pause waits for."""
    env = SkewedEnv()
    grant = await env.connect()
    await asyncio.sleep(950)
    env.ahead = 600.0
    env.provider.faults = [OUTCOMES[outcome](env)]
    with pytest.raises(GatewayError):
        await env.manager.get_fresh(grant)
    env.ahead = 0.0
    await asyncio.sleep(seconds)
    assert (await env.manager.get_fresh(await env.stored(grant))).tokens.expires_at > env.clock()


async def no_sessions(owner: str) -> list[object]:
    return []


@pytest.mark.parametrize("set_after", [0.0, 2 * 3600.0])
@in_virtual_time
async def test_clock_that_is_days_ahead_revokes_no_grant(set_after: float) -> None:
    """By such a clock every session has expired, so every grant seems abandoned."""
    env = SkewedEnv()
    grant = await env.connect(owner="own_1")
    manager = env.manager if set_after else env.new_manager("started with the wrong clock")
    orphans = OrphanCleaner(EncryptedStore(env.store, RING), manager, no_sessions, clock=env.clock)  # type: ignore[arg-type]
    orphans.start()
    await asyncio.sleep(set_after)
    env.ahead = 800 * DAY
    await asyncio.sleep(20 * 3600.0)
    assert (await env.stored(grant)).state is GrantState.LIVE
    env.ahead = 0.0
    if not set_after:
        await manager.get_fresh(await env.stored(grant))  # the provider issues tokens, which confirms the clock
    await asyncio.sleep(3 * DAY)
    left = await env.manager.repository.get(grant.id)
    assert left is None or left.state is GrantState.REVOKED, "abandoned by the right clock"
    await orphans.stop()
