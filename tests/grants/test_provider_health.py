"""Circuit breakers of a provider, with a controlled clock."""

from __future__ import annotations

from akoya_gateway.grants.observer import NullGrantObserver
from akoya_gateway.grants.provider_health import ProviderHealth
from akoya_gateway.oauth.outcomes import ClientRejected, OutcomeUnknown, ProviderDown
from tests.support.grants import client


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_registration_probe_that_meets_an_outage_leaves_room_for_the_next_probe() -> None:
    for outage in (ProviderDown("no connection"), OutcomeUnknown("no response")):
        clock = Clock()
        health = ProviderHealth(clock, lambda: 0.5, NullGrantObserver())
        while health.wait(client) == 0.0:
            health.enter(client)
            health.record_outcome(client, ClientRejected("invalid_client"))
        clock.now += health.wait(client)
        assert health.enter(client), "the probe"
        health.record_outcome(client, outage)
        assert health.wait(client) == 0.0, "the outage says nothing about the registration"
        assert health.enter(client)
