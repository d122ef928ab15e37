"""The grant manager: it returns fresh grants, or an error that tells the user or the operator what to do."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import pytest

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.grants import Grant, GrantState, NeedsReconnect, RegistrationFault, TemporarilyUnavailable
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DistrustReason,
    ProviderDown,
    Refused,
    TokenOutcome,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from tests.support.grants import OWNER, GrantEnv, Reuse, bearer, client, down, environment
from tests.support.virtual_time import clock, in_virtual_time


@in_virtual_time
async def test_fresh_token_is_passed_without_asking_anybody() -> None:
    env = GrantEnv()
    grant = await env.connect()
    assert await env.manager.get_fresh(grant) is grant
    assert env.manager.is_ready(grant)
    assert not env.provider.uses


@in_virtual_time
async def test_token_close_to_its_end_is_refreshed_before_it_is_passed() -> None:
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(841)
    renewed = await env.manager.get_fresh(grant)
    assert bearer(renewed) == "bearer-2"
    assert renewed.state is GrantState.LIVE
    assert (await env.stored(grant)).tokens == renewed.tokens
    assert env.manager.is_ready(renewed)


@in_virtual_time
async def test_short_lived_token_is_not_refreshed_by_every_request() -> None:
    env = GrantEnv(life=20)
    grant = await env.connect()
    await asyncio.sleep(10)
    assert await env.manager.get_fresh(grant) is grant
    await asyncio.sleep(6)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_thousand_requests_at_three_replicas_make_one_token_call() -> None:
    env = GrantEnv(managers=3)
    grant = await env.connect()
    await asyncio.sleep(1000)
    passed = await asyncio.gather(*(grants.get_fresh(grant) for grants in env.managers for _ in range(1000)))
    assert {bearer(each) for each in passed} == {"bearer-2"}
    assert dict(env.provider.uses) == {"refresh-1": 1}


@in_virtual_time
async def test_replicas_that_lose_the_lease_read_little_while_they_wait() -> None:
    env = GrantEnv(managers=3, delay=8.0)
    grant = await env.connect()
    await asyncio.sleep(1000)
    reads = 0

    def count(verb: str, record: object) -> None:
        nonlocal reads
        reads += verb in {"get", "changed", "find"}

    env.store.failing = count
    passed = await asyncio.gather(*(grants.get_fresh(grant) for grants in env.managers for _ in range(100)))
    assert {bearer(each) for each in passed} == {"bearer-2"}
    assert reads < 30


@in_virtual_time
async def test_cancelled_waiter_does_not_cancel_the_refresh() -> None:
    env = GrantEnv(delay=2.0)
    grant = await env.connect()
    await asyncio.sleep(1000)
    waiters = [asyncio.ensure_future(env.manager.get_fresh(grant)) for _ in range(5)]
    await asyncio.sleep(0.5)
    for waiter in waiters[:4]:
        waiter.cancel()
    assert bearer(await waiters[4]) == "bearer-2"
    assert env.provider.uses["refresh-1"] == 1


@in_virtual_time
async def test_refresh_without_a_waiter_is_still_saved() -> None:
    env = GrantEnv(delay=2.0)
    grant = await env.connect()
    await asyncio.sleep(1000)
    waiter = asyncio.ensure_future(env.manager.get_fresh(grant))
    await asyncio.sleep(0.5)
    waiter.cancel()
    await asyncio.sleep(3)
    assert bearer(await env.stored(grant)) == "bearer-2"


@in_virtual_time
async def test_request_with_a_valid_bearer_waits_briefly_for_a_slow_provider() -> None:
    env = GrantEnv(delay=14.0)
    grant = await env.connect()
    await asyncio.sleep(845)
    before = clock()
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    assert clock() - before <= 5.0
    before = clock()
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    assert clock() - before < 0.1, "the second request does not wait for the full time again"
    await asyncio.sleep(15)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_call_that_takes_longer_than_a_lease_keeps_it() -> None:
    env = GrantEnv(managers=2, delay=14.0)
    grant = await env.connect()
    await asyncio.sleep(1000)
    first, second = await asyncio.gather(*(grants.get_fresh(grant) for grants in env.managers))
    assert bearer(first) == bearer(second) == "bearer-2"
    assert sum(env.provider.uses.values()) == 1


@in_virtual_time
async def test_new_bearer_is_not_passed_before_it_is_durable() -> None:
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(1000)
    env.provider.before_answer = lambda: setattr(env.store, "down", True)
    waiter = asyncio.ensure_future(env.manager.get_fresh(grant))
    await asyncio.sleep(10)
    assert not waiter.done()
    env.store.down = False
    env.provider.before_answer = lambda: None
    assert bearer(await waiter) == "bearer-2"
    assert bearer(await env.stored(grant)) == "bearer-2"
    assert env.provider.uses["refresh-1"] == 1


@in_virtual_time
async def test_pair_in_hand_survives_a_long_store_outage_even_if_the_lease_is_lost_to_another() -> None:
    env = GrantEnv(managers=2)
    grant = await env.connect()
    await asyncio.sleep(1000)
    env.provider.before_answer = lambda: setattr(env.store, "down", True)
    waiter = asyncio.ensure_future(env.manager.get_fresh(grant))
    await asyncio.sleep(60)
    with pytest.raises(TemporarilyUnavailable):
        await waiter
    env.provider.before_answer = lambda: None
    # The store is back, and the other replica reads it first.
    other = env.managers[1]
    env.store.down = False
    with pytest.raises(TemporarilyUnavailable):
        await other.get_fresh(grant)
    assert (await env.stored(grant)).state is GrantState.UNCERTAIN
    await asyncio.sleep(2)
    assert bearer(await env.stored(grant)) == "bearer-2"
    assert env.provider.uses["refresh-1"] == 1


@in_virtual_time
async def test_write_that_was_done_but_not_reported_is_recognised() -> None:
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(1000)

    def cut(verb: str, record: object) -> str | None:
        if verb != "put" or env.provider.uses["refresh-1"] == 0:
            return None
        env.store.failing = lambda verb, record: None
        return "after"

    env.store.failing = cut
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"
    assert env.provider.uses == {"refresh-1": 1}


@in_virtual_time
async def test_pair_that_only_the_primary_has_is_not_used_until_the_promised_copies_are_there() -> None:
    """With `?wait=1`, a Redis whose replica is down reports an error although the write was done."""
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(1000)
    env.store.failing = lambda verb, record: "after" if verb == "put" and env.provider.uses else None
    waiter = asyncio.ensure_future(env.manager.get_fresh(grant))
    await asyncio.sleep(5)
    assert bearer(await env.stored(grant)) == "bearer-2"
    assert not waiter.done()
    env.store.failing = lambda verb, record: None
    assert bearer(await waiter) == "bearer-2"
    assert env.provider.uses == {"refresh-1": 1}


@in_virtual_time
async def test_lease_that_was_written_but_not_reported_is_given_back_unsent() -> None:
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(1000)

    def cut(verb: str, record: object) -> str | None:
        env.store.failing = lambda verb, record: None
        return "after"

    env.store.failing = cut
    with pytest.raises(StoreUnavailable):
        await env.manager.get_fresh(grant)
    assert (await env.stored(grant)).state is GrantState.REFRESHING
    assert not env.provider.uses
    renewed = await env.manager.get_fresh(grant)
    assert bearer(renewed) == "bearer-2"
    assert renewed.unknowns == 0


@in_virtual_time
async def test_old_bearer_is_passed_while_the_store_is_away() -> None:
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(850)
    env.store.down = True
    assert await env.manager.get_fresh(grant) is grant
    await asyncio.sleep(60)
    with pytest.raises(StoreUnavailable):
        await env.manager.get_fresh(grant)
    env.store.down = False
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_lease_of_a_dead_holder_is_taken_over_as_uncertain() -> None:
    env = GrantEnv(managers=2, delay=5.0)
    grant = await env.connect()
    await asyncio.sleep(850)
    flight = env.manager._refresher.flight(grant)
    await asyncio.sleep(1)
    flight.cancel()  # The state that kill -9 leaves behind: a lease without a holder.
    await asyncio.sleep(0)
    assert (await env.stored(grant)).state is GrantState.REFRESHING
    survivor = env.managers[1]
    assert bearer(await survivor.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(11)
    assert bearer(await survivor.get_fresh(await env.stored(grant))) == "bearer-1"
    assert (await env.stored(grant)).state is GrantState.UNCERTAIN
    assert (await env.stored(grant)).reason == "refresh_interrupted"
    assert sum(env.provider.uses.values()) == 1, "no second use while the bearer is valid"


@in_virtual_time
async def test_uncertain_grant_whose_request_never_arrived_becomes_live_again() -> None:
    env = GrantEnv(reuse=Reuse.FAMILY)
    grant = await env.connect()
    env.provider.faults = ["never arrived"]
    await asyncio.sleep(850)
    passed = await env.manager.get_fresh(grant)
    assert (passed.state, bearer(passed)) == (GrantState.UNCERTAIN, "bearer-1")
    await asyncio.sleep(40)
    assert bearer(await env.manager.get_fresh(passed)) == "bearer-1"
    assert env.provider.uses["refresh-1"] == 1
    await asyncio.sleep(30)
    won_back = await env.manager.get_fresh(passed)
    assert (won_back.state, bearer(won_back), won_back.unknowns) == (GrantState.LIVE, "bearer-2", 0)


@in_virtual_time
async def test_uncertain_grant_whose_token_was_spent_ends_with_the_truth() -> None:
    for reuse in Reuse:
        env = GrantEnv(reuse=reuse)
        grant = await env.connect()
        env.provider.faults = ["lost"]
        await asyncio.sleep(850)
        passed = await env.manager.get_fresh(grant)
        await asyncio.sleep(60)
        assert not env.provider.families[0].ended, "the valid bearer was not put at risk"
        with pytest.raises(NeedsReconnect) as raised:
            await env.manager.get_fresh(passed)
        assert raised.value.grant.reason == "refresh_outcome_unknown"
        assert env.provider.uses["refresh-1"] == 2


@in_virtual_time
async def test_two_uses_of_one_token_keep_their_distance() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = ["never arrived"]
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable) as raised:
        await env.manager.get_fresh(grant)
    assert raised.value.retry_after is not None and 29 <= raised.value.retry_after <= 60
    await asyncio.sleep(raised.value.retry_after + 1)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"
    assert env.provider.used_at[1] - env.provider.used_at[0] >= 30


@in_virtual_time
async def test_second_unknown_outcome_offers_reconnect_and_the_grant_can_still_recover() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = ["never arrived", "never arrived"]
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable):
        await env.manager.get_fresh(grant)
    await asyncio.sleep(61)
    with pytest.raises(NeedsReconnect):
        await env.manager.get_fresh(grant)
    assert (await env.stored(grant)).state is GrantState.UNCERTAIN
    await asyncio.sleep(200)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_failing_grant_is_not_retried_forever() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = ["never arrived"] * 100
    for _ in range(100):
        await asyncio.sleep(1000)
        with pytest.raises((TemporarilyUnavailable, NeedsReconnect)):
            await env.manager.get_fresh(grant)
    assert (await env.stored(grant)).state is GrantState.NEEDS_RECONNECT
    assert env.provider.uses["refresh-1"] == 8


@in_virtual_time
async def test_dead_token_needs_the_user() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = [Refused("invalid_request")]
    await asyncio.sleep(1000)
    for _ in range(3):
        with pytest.raises(NeedsReconnect):
            await env.manager.get_fresh(grant)
    assert sum(env.provider.uses.values()) == 1
    assert (await env.stored(grant)).reason == "dead_token"


@in_virtual_time
async def test_refused_registration_keeps_the_grant_and_raises_an_alarm() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = [ClientRejected("invalid_client")]
    await asyncio.sleep(850)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    (fault,) = env.manager.registration_problems
    assert (fault.client, fault.error) == ("demo-app", "invalid_client")
    await asyncio.sleep(40)
    env.provider.faults = [ClientRejected("invalid_client")]
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(11)
    with pytest.raises(RegistrationFault) as raised:
        await env.manager.get_fresh(grant)
    assert raised.value.status == 503
    assert raised.value.retry_after
    await asyncio.sleep(raised.value.retry_after + 1)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"
    assert env.manager.registration_problems == ()


@in_virtual_time
async def test_new_configuration_ends_the_alarm_and_is_used_at_once() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = [ClientRejected("invalid_client")]
    await asyncio.sleep(1000)
    with pytest.raises(RegistrationFault):
        await env.manager.get_fresh(grant)
    successor = env.new_manager("after a reload")
    assert successor.registration_problems == ()
    await asyncio.sleep(2)
    assert bearer(await successor.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_old_bearer_serves_while_the_provider_is_down() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = [down(), down()]
    await asyncio.sleep(845)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    assert sum(env.provider.uses.values()) == 1, "backs off"
    await asyncio.sleep(5)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(5)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_reload_ends_the_pauses_of_a_provider_that_was_down() -> None:
    """A wrong token_endpoint or proxy looks as if the provider were down, so a corrected one is used at once."""
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = [down(retry_after=600)]
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable):
        await env.manager.get_fresh(grant)
    reloaded = env.new_manager("reloaded")
    await asyncio.sleep(1)
    assert bearer(await reloaded.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_provider_decides_when_to_come_back() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.provider.faults = [down(retry_after=120)]
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable) as raised:
        await env.manager.get_fresh(grant)
    assert raised.value.retry_after == 120


@in_virtual_time
async def test_provider_that_is_down_is_not_requested_for_every_grant() -> None:
    env = GrantEnv()
    grants = [await env.connect(sub=f"sub_{n}") for n in range(50)]
    env.provider.faults = [down()] * 1000
    await asyncio.sleep(1000)
    for grant in grants:
        with pytest.raises(TemporarilyUnavailable):
            await env.manager.get_fresh(grant)
    assert sum(env.provider.uses.values()) == 5
    assert env.manager.health.unavailable_environments == ("double",)
    env.provider.faults = []
    await asyncio.sleep(13)
    await asyncio.gather(*(env.manager.get_fresh(grant) for grant in grants), return_exceptions=True)
    assert sum(env.provider.uses.values()) == 6, "one probe"
    assert not env.manager.health.unavailable_environments
    renewed = await asyncio.gather(*(env.manager.get_fresh(grant) for grant in grants))
    assert all(grant.state is GrantState.LIVE for grant in renewed)


@in_virtual_time
async def test_rate_limited_provider_is_paced_and_not_considered_down() -> None:
    """Two hundred users return in the morning, and all their bearers have expired overnight."""
    env = GrantEnv(life=3600.0)
    grants = [await env.connect(owner=f"own_{n}") for n in range(200)]
    await asyncio.sleep(4000)
    granted: deque[float] = deque()
    refused = 0
    act = env.provider.act

    def five_a_second(token: str) -> TokenOutcome:
        nonlocal refused
        while granted and granted[0] < env.clock() - 0.99:
            granted.popleft()
        if len(granted) >= 5:
            refused += 1
            return ProviderDown("too many", retry_after=1.0, busy=True)
        granted.append(env.clock())
        return act(token)

    env.provider.act = five_a_second  # type: ignore[method-assign]

    async def user(grant: Grant) -> float:
        while True:
            try:
                await env.manager.get_fresh(grant)
                return env.clock()
            except TemporarilyUnavailable as error:
                await asyncio.sleep(error.retry_after or 1.0)

    began = env.clock()
    served = await asyncio.gather(*map(user, grants))
    assert max(served) - began < 80.0, "forty seconds is the minimum"
    assert refused < 250, "one for each grant, and a few more"
    assert not env.manager.health.unavailable_environments


@in_virtual_time
async def test_refresh_that_waits_for_its_turn_does_not_hold_up_the_end() -> None:
    env = GrantEnv(life=3600.0)
    grants = [await env.connect(owner=f"own_{n}") for n in range(50)]
    await asyncio.sleep(4000)
    env.provider.faults = [ProviderDown("too many", busy=True)] * 1000
    users = [asyncio.ensure_future(env.manager.get_fresh(grant)) for grant in grants]
    await asyncio.wait(users, timeout=3.0)
    again = [asyncio.ensure_future(env.manager.get_fresh(grant)) for grant in grants]
    await asyncio.sleep(0.1)
    began = env.clock()
    await env.manager.stop()
    assert env.clock() - began < 6.0
    await asyncio.gather(*users, *again, return_exceptions=True)


@in_virtual_time
async def test_unverifiable_response_is_not_used_and_its_refresh_token_is_kept() -> None:
    env = GrantEnv()
    grant = await env.connect()
    response = env.provider.act("refresh-1")
    env.provider.faults = [Untrusted("no key", response.tokens.refresh_token, DistrustReason.KEYS)]  # type: ignore[union-attr]
    await asyncio.sleep(850)
    passed = await env.manager.get_fresh(grant)
    assert bearer(passed) == "bearer-1"
    assert passed.tokens.refresh_token == Secret("refresh-2")
    await asyncio.sleep(10)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-3"


@in_virtual_time
async def test_response_for_another_login_ends_the_grant_and_revokes_its_token() -> None:
    env = GrantEnv()
    env.manager.start()
    grant = await env.connect()
    env.provider.faults = [Untrusted("sub", Secret("refresh-of-another"), DistrustReason.SUBJECT)]
    await asyncio.sleep(1000)
    with pytest.raises(NeedsReconnect) as raised:
        await env.manager.get_fresh(grant)
    assert raised.value.grant.reason == "another_sub"
    await asyncio.sleep(2)
    assert env.provider.revoked == ["refresh-of-another"]


@in_virtual_time
async def test_provider_that_raises_counts_as_an_unknown_outcome() -> None:
    env = GrantEnv()
    grant = await env.connect()

    def fail() -> None:
        raise ValueError("a fault of ours")

    env.provider.before_answer = fail
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable):
        await env.manager.get_fresh(grant)
    assert (await env.stored(grant)).state is GrantState.UNCERTAIN


@in_virtual_time
async def test_grant_without_a_refresh_token_serves_to_its_end() -> None:
    env = GrantEnv()
    tokens = env.provider.consent()
    grant = await env.manager.connect(OWNER, client, "mikomo", replace(tokens, refresh_token=None))
    await asyncio.sleep(890)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(11)
    with pytest.raises(NeedsReconnect) as raised:
        await env.manager.get_fresh(grant)
    assert raised.value.grant.reason == "no_refresh_token"


@in_virtual_time
async def test_bearer_that_the_upstream_found_dead_is_refreshed_once() -> None:
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(10)
    await env.manager.for_owner(OWNER)
    assert await env.manager.report_stale(grant)
    assert not await env.manager.report_stale(grant)
    await asyncio.sleep(1)
    assert bearer(await env.stored(grant)) == "bearer-2"
    assert not await env.manager.report_stale(grant), "that bearer has been replaced"
    renewed = await env.stored(grant)
    assert not await env.manager.report_stale(renewed), "not again so soon: the cause may be a missing entitlement"
    await asyncio.sleep(61)
    assert await env.manager.report_stale(renewed)
    await asyncio.sleep(1)
    third = await env.stored(grant)
    await asyncio.sleep(61)
    assert not await env.manager.report_stale(third), "the interval grows each time"


@in_virtual_time
async def test_pair_in_hand_puts_back_a_grant_that_the_store_has_lost() -> None:
    """A failover to a replica that was missing the last writes."""
    env = GrantEnv()
    grant = await env.connect()
    await asyncio.sleep(1000)
    losing: list[object] = []
    lose = env.store.store.delete
    env.provider.before_answer = lambda: losing.append(asyncio.ensure_future(lose("grant", grant.id)))
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"
    assert losing
    assert bearer(await env.stored(grant)) == "bearer-2"


@in_virtual_time
async def test_grant_that_the_store_has_set_back_gets_its_new_pair() -> None:
    env = GrantEnv()
    grant = await env.connect()
    before = await env.store.store.get("grant", grant.id)
    assert before is not None
    await asyncio.sleep(1000)

    async def set_back() -> None:
        await env.store.store.delete("grant", grant.id)
        assert await env.store.store.put(before)

    losing: list[object] = []
    env.provider.before_answer = lambda: losing.append(asyncio.ensure_future(set_back()))
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-2"
    assert bearer(await env.stored(grant)) == "bearer-2"


@in_virtual_time
async def test_stop_waits_for_refreshes_in_flight_and_starts_no_new_ones() -> None:
    env = GrantEnv(delay=4.0, tokens=Tokens(background=True))
    env.manager.start()
    grant = await env.connect()
    other = await env.connect(sub="sub_2")
    await asyncio.sleep(839)
    env.manager._refresher.flight(grant, early=2.0)
    await asyncio.sleep(0.1)
    await env.manager.stop()
    assert bearer(await env.stored(grant)) != bearer(grant)
    uses = sum(env.provider.uses.values())
    await asyncio.sleep(100)
    with pytest.raises(TemporarilyUnavailable):
        await env.manager.get_fresh(other)
    assert sum(env.provider.uses.values()) == uses


def test_margins_are_seconds() -> None:
    assert Tokens().refresh_before == Seconds(60.0)


@in_virtual_time
async def test_client_that_now_names_another_environment_never_shows_it_the_old_tokens() -> None:
    env = GrantEnv()
    grant = await env.connect()
    other = GrantEnv().provider
    other.client = replace(client, environment=replace(environment, name="production"))
    changed = env.new_manager("with another environment", other)
    await asyncio.sleep(850)
    assert bearer(await changed.get_fresh(grant)) == "bearer-1", "it is still valid in its own environment"
    await asyncio.sleep(100)
    with pytest.raises(RegistrationFault):
        await changed.get_fresh(grant)
    await changed.disconnect(grant)
    await changed.revocation_queue.sweep()
    assert not other.uses
    assert not other.revoked
    await asyncio.sleep(60)
    await env.manager.revocation_queue.sweep()
    assert env.provider.revoked == ["refresh-1"], "revoked once the configuration is correct again"


@in_virtual_time
async def test_bearer_that_the_provider_issues_again_costs_one_refresh_for_each_rejection() -> None:
    """The data API rejects it again, which ends the refreshes (`data_api.entitlements`)."""
    env = GrantEnv()
    grant = await env.connect()
    act = env.provider.act

    def same_bearer(token: str) -> TokenOutcome:
        response = act(token)
        assert isinstance(response, TokensIssued)
        return TokensIssued(replace(response.tokens, bearer=grant.tokens.bearer))

    env.provider.act = same_bearer  # type: ignore[method-assign]
    await asyncio.sleep(10)
    (grant,) = (await env.manager.for_owner(OWNER)).grants
    replaced = await env.manager.replace_rejected(grant)
    assert (bearer(replaced), replaced.tokens.refresh_token) == ("bearer-1", Secret("refresh-2"))
    assert sum(env.provider.uses.values()) == 1
    assert await env.manager.replace_rejected(grant) == replaced, "it was refreshed since that rejection"
    assert sum(env.provider.uses.values()) == 1
