"""Circuit breakers of a provider, with a controlled clock."""

from __future__ import annotations

import pytest

from akoya_gateway.grants.observer import NullGrantObserver
from akoya_gateway.grants.provider_health import DOWN_AFTER, ProviderHealth
from akoya_gateway.oauth.outcomes import ClientRejected, DownReason, OutcomeUnknown, ProviderDown, Reply, TokensIssued
from tests.grants.events import tokens
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


async def test_rejection_of_one_grant_holds_back_no_other() -> None:
    """A provider that responds with 403 for one bank has not rejected the client."""
    clock = Clock()
    health = ProviderHealth(clock, lambda: 0.5, NullGrantObserver())
    denied, granted = ClientRejected("access_denied"), TokensIssued(tokens())
    for _ in range(3):
        assert health.record_outcome(client, denied, "g1") is not None
        assert health.record_outcome(client, denied, "g1") is None
        assert health.wait(client) == 0.0
        assert [each.error for each in health.registration_problems] == ["access_denied"]
        health.record_outcome(client, granted, "g2")
        assert not health.registration_problems
    health.record_outcome(client, denied, "g1")
    health.record_outcome(client, denied, "g2")
    assert health.wait(client) > 0.0, "two grants in a row: the endpoint or the client"
    clock.now += health.wait(client)
    health.enter(client)
    health.record_outcome(client, granted, "g2")
    health.record_outcome(client, ClientRejected("invalid_client"), "g1")
    assert health.wait(client) > 0.0, "this error is about the client"


BAD_GATEWAY = OutcomeUnknown("responded with 502", Reply(502))
UNAVAILABLE = ProviderDown("responded with 503", reply=Reply(503))
TIMEOUT = OutcomeUnknown("no complete response")
REFUSED_CONNECTION = ProviderDown("no connection")
MANY = {"double": 3}


@pytest.mark.parametrize(
    ("count", "failing", "outcome", "held"),
    [
        (MANY, "aaaaaaa", BAD_GATEWAY, "a"),
        (MANY, "aaaaaaa", UNAVAILABLE, "a"),
        (MANY, "aaaaaaa", TIMEOUT, "a"),
        (MANY, "aaaa", BAD_GATEWAY, ""),
        (MANY, "aaab", BAD_GATEWAY, ""),
        (MANY, "aaaab", BAD_GATEWAY, "abc"),
        (MANY, "ababa", TIMEOUT, "abc"),
        (MANY, "aaaaa", REFUSED_CONNECTION, "abc"),
        ({"double": 1}, "aaaaa", BAD_GATEWAY, "abc"),
        ({}, "aaaaa", BAD_GATEWAY, "abc"),
    ],
)
async def test_failures_of_one_connector_hold_back_no_other(
    count: dict[str, int], failing: str, outcome: ProviderDown | OutcomeUnknown, held: str
) -> None:
    clock = Clock()
    health = ProviderHealth(clock, lambda: 0.5, NullGrantObserver(), count)
    for connector in failing:
        if health.enter(client, connector):
            health.record_outcome(client, outcome, "g", connector)
    assert "".join(connector for connector in "abc" if health.wait(client, connector) > 0.0) == held
    assert health.unavailable_environments == (("double",) if held == "abc" else ())
    assert health.unavailable_connectors == ((("double", "a"),) if held == "a" else ())
    if held != "a":
        return
    health.enter(client, "b")
    health.record_outcome(client, TokensIssued(tokens()), "g", "b")
    assert health.wait(client, "a") > 0.0, "a success at another bank says nothing about this one"
    clock.now += health.wait(client, "a")
    assert health.enter(client, "a")
    assert not health.enter(client, "a"), "one probe at a time"
    health.record_outcome(client, TokensIssued(tokens()), "g", "a")
    assert (health.wait(client, "a"), health.unavailable_connectors) == (0.0, ())


async def test_probe_of_an_environment_that_fails_for_one_bank_lets_another_bank_probe() -> None:
    clock = Clock()
    health = ProviderHealth(clock, lambda: 0.5, NullGrantObserver(), MANY)
    for _ in range(DOWN_AFTER):
        health.record_outcome(client, REFUSED_CONNECTION, "g", "a")
    clock.now += health.wait(client, "a")
    assert health.enter(client, "a")
    health.record_outcome(client, BAD_GATEWAY, "g", "a")
    assert health.enter(client, "b")
    health.record_outcome(client, TokensIssued(tokens()), "g", "b")
    assert health.unavailable_environments == ()


def test_pause_of_this_process_does_not_count_as_an_outage() -> None:
    health = ProviderHealth(Clock(), lambda: 0.5, NullGrantObserver())
    for _ in range(2 * DOWN_AFTER):
        assert health.enter(client, "a")
        health.record_outcome(client, ProviderDown("paused", reason=DownReason.PAUSED), "g", "a")


def test_temporary_failures_that_blame_the_token_do_not_count_as_an_outage() -> None:
    """A provider that responds "account temporarily locked" for one user works for the others."""
    for reply, is_down in (
        (Reply(400, "invalid_grant", "The account is temporarily locked"), False),
        (Reply(400, "invalid_request", "Try again later"), False),
        (Reply(200, "invalid_request", "Try again later"), False),
        (Reply(400, "temporarily_unavailable"), True),
        (Reply(500, "invalid_request"), True),
        (None, True),
    ):
        health = ProviderHealth(Clock(), lambda: 0.5, NullGrantObserver())
        for _ in range(2 * DOWN_AFTER):
            if health.enter(client):
                health.record_outcome(client, ProviderDown("failed", reply=reply), "g1")
        assert (health.wait(client) > 0.0) is is_down
        assert bool(health.unavailable_environments) is is_down
