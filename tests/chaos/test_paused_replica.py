"""One of several gateways is stopped (SIGSTOP) for longer than its lease while it refreshes a grant."""

from __future__ import annotations

import asyncio
import signal

import pytest

from akoya_gateway.grants import GrantState
from akoya_gateway.grants.held_lease import LEASE_SECONDS
from tests.chaos.clients import fetch
from tests.chaos.conftest import FULL
from tests.chaos.replicas import CACHES, Fleet, age
from tests.support.waiting import until_async


@pytest.mark.soak
@pytest.mark.skipif(not FULL, reason="waits for a minute; runs with AKOYA_SOAK=full")
@pytest.mark.timeout(240)
async def test_response_of_a_gateway_that_is_stopped_beyond_its_lease_is_stored_and_no_token_is_used_twice(
    fleet: Fleet,
) -> None:
    visitor = fleet.visitor()
    async with fleet.book() as repository:
        for stopped, other in ((0, 1), (1, 0)):
            await age(repository, visitor.grant, left=-1.0)
            await asyncio.sleep(CACHES)
            before = len(fleet.refreshes())
            fleet.akoya.fault("slow_after", "token.refresh_token", seconds=1.0, times=1)
            pending = asyncio.create_task(fetch(fleet.ports[stopped], visitor.cookie))

            async def is_sent(count: int = before) -> bool:
                return len(await asyncio.to_thread(fleet.refreshes)) > count

            await until_async(is_sent, "the provider has the refresh token")
            process = fleet.gateways[stopped].process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(LEASE_SECONDS + 1)
                response = await fetch(fleet.ports[other], visitor.cookie)
                assert response.status == 503, "the bearer has expired, and the outcome of the refresh is unknown"
            finally:
                process.send_signal(signal.SIGCONT)
            assert (await pending).status == 200
            grant = await repository.get(visitor.grant)
            assert grant is not None and grant.state is GrantState.LIVE
            await asyncio.sleep(CACHES)
            assert (await fetch(fleet.ports[other], visitor.cookie)).status == 200
            assert [event["outcome"] for event in fleet.refreshes()[before:]] == ["issued"]
