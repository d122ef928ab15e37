"""A thousand requests at each of three gateways need one expiring grant: it is refreshed once, and all are served."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from akoya_gateway.grants import Grant, GrantRepository, GrantState
from tests.chaos.clients import Crowd
from tests.chaos.conftest import FULL
from tests.chaos.replicas import CACHES, Fleet, age, fingerprint

ROUNDS = 10 if FULL else 2
EACH = 1000


@pytest.mark.timeout(240)
def test_three_thousand_requests_at_three_gateways_cost_one_refresh_each_time(fleet: Fleet) -> None:
    """In every second round the old bearer has expired; in the others it is still valid for some seconds."""
    uvloop.run(rushes(fleet))  # the clients must be faster than the gateways


async def rushes(fleet: Fleet) -> None:
    visitor = fleet.visitor()
    async with fleet.book() as repository, Crowd(fleet.ports, EACH) as crowd:
        grant = await live(repository, visitor.grant)
        for turn in range(ROUNDS):
            before, old = len(fleet.refreshes()), bearer(await live(repository, grant.id))
            await age(repository, grant.id, left=-1.0 if turn % 2 else 8.0)
            fleet.akoya.fault("slow_after", "token.refresh_token", seconds=0.3, times=1)
            await asyncio.sleep(CACHES)
            responses = await crowd.rush(visitor.cookie)
            assert len(responses) == 3 * EACH
            assert {response.status for response in responses} == {200}, f"turn {turn}"
            refreshes = fleet.refreshes()[before:]
            assert [each["outcome"] for each in refreshes] == ["issued"], f"turn {turn}"
            new = bearer(await live(repository, grant.id))
            assert fingerprint(new) == refreshes[0]["id_token"]
            # The emulator's tokens are valid for a day, so the old one works where the gateways consider it valid.
            assert {response.token for response in responses} <= ({new} if turn % 2 else {new, old})


async def live(repository: GrantRepository, grant_id: str) -> Grant:
    current = await repository.get(grant_id)
    assert current is not None
    assert current.state is GrantState.LIVE
    return current


def bearer(grant: Grant) -> str:
    return grant.tokens.bearer.reveal()
