"""A clock that was ahead for a while and is corrected: no wait that began meanwhile outlasts the correction for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from akoya_gateway.clock import remaining
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.grants.request_pacer import RequestPacer
from akoya_gateway.oauth.outcomes import ClientRejected, OutcomeUnknown, ProviderDown, TokenOutcome, Untrusted
from akoya_gateway.secret import Secret
from tests.support import virtual_time
from tests.support.grants import GrantEnv
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
