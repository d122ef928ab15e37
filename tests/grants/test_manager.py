"""The grant manager: it returns fresh grants, or an error that tells the user or the operator what to do."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import pytest

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.grants import Grant, GrantState, NeedsReconnect, RegistrationFault, TemporarilyUnavailable
from akoya_gateway.oauth.outcomes import ClientRejected, DistrustReason, ProviderDown, Refused, TokenOutcome, Untrusted
from akoya_gateway.secret import Secret
from tests.support.grants import OWNER, Reuse, World, bearer, client, down, environment
from tests.support.virtual_time import clock, in_virtual_time


@in_virtual_time
async def test_a_fresh_token_is_passed_without_asking_anybody() -> None:
    world = World()
    grant = await world.connect()
    assert await world.one.get_fresh(grant) is grant
    assert world.one.is_ready(grant)
    assert not world.provider.uses


@in_virtual_time
async def test_a_token_close_to_its_end_is_refreshed_before_it_is_passed() -> None:
    world = World()
    grant = await world.connect()
    await asyncio.sleep(841)
    renewed = await world.one.get_fresh(grant)
    assert bearer(renewed) == "bearer-2"
    assert renewed.state is GrantState.LIVE
    assert (await world.stored(grant)).tokens == renewed.tokens
    assert world.one.is_ready(renewed)


@in_virtual_time
async def test_a_short_lived_token_is_not_refreshed_by_every_request() -> None:
    world = World(life=20)
    grant = await world.connect()
    await asyncio.sleep(10)
    assert await world.one.get_fresh(grant) is grant
    await asyncio.sleep(6)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_a_thousand_requests_at_three_replicas_make_one_token_call() -> None:
    world = World(keepers=3)
    grant = await world.connect()
    await asyncio.sleep(1000)
    passed = await asyncio.gather(*(grants.get_fresh(grant) for grants in world.keepers for _ in range(1000)))
    assert {bearer(each) for each in passed} == {"bearer-2"}
    assert dict(world.provider.uses) == {"refresh-1": 1}


@in_virtual_time
async def test_replicas_that_lose_the_lease_read_little_while_they_wait() -> None:
    world = World(keepers=3, delay=8.0)
    grant = await world.connect()
    await asyncio.sleep(1000)
    reads = 0

    def count(verb: str, record: object) -> None:
        nonlocal reads
        reads += verb in {"get", "changed", "find"}

    world.store.failing = count
    passed = await asyncio.gather(*(grants.get_fresh(grant) for grants in world.keepers for _ in range(100)))
    assert {bearer(each) for each in passed} == {"bearer-2"}
    assert reads < 30


@in_virtual_time
async def test_a_cancelled_waiter_does_not_cancel_the_refresh() -> None:
    world = World(delay=2.0)
    grant = await world.connect()
    await asyncio.sleep(1000)
    waiters = [asyncio.ensure_future(world.one.get_fresh(grant)) for _ in range(5)]
    await asyncio.sleep(0.5)
    for waiter in waiters[:4]:
        waiter.cancel()
    assert bearer(await waiters[4]) == "bearer-2"
    assert world.provider.uses["refresh-1"] == 1


@in_virtual_time
async def test_a_refresh_that_nobody_waits_for_any_more_is_still_saved() -> None:
    world = World(delay=2.0)
    grant = await world.connect()
    await asyncio.sleep(1000)
    waiter = asyncio.ensure_future(world.one.get_fresh(grant))
    await asyncio.sleep(0.5)
    waiter.cancel()
    await asyncio.sleep(3)
    assert bearer(await world.stored(grant)) == "bearer-2"


@in_virtual_time
async def test_nobody_waits_long_for_a_slow_provider_while_the_old_bearer_lives() -> None:
    world = World(delay=14.0)
    grant = await world.connect()
    await asyncio.sleep(845)
    before = clock()
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    assert clock() - before <= 5.0
    before = clock()
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    assert clock() - before < 0.1, "the second request does not wait for the full time again"
    await asyncio.sleep(15)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_a_call_that_takes_longer_than_a_lease_keeps_it() -> None:
    world = World(keepers=2, delay=14.0)
    grant = await world.connect()
    await asyncio.sleep(1000)
    first, second = await asyncio.gather(*(grants.get_fresh(grant) for grants in world.keepers))
    assert bearer(first) == bearer(second) == "bearer-2"
    assert sum(world.provider.uses.values()) == 1


@in_virtual_time
async def test_the_new_bearer_is_not_passed_before_it_is_durable() -> None:
    world = World()
    grant = await world.connect()
    await asyncio.sleep(1000)
    world.provider.before_answer = lambda: setattr(world.store, "down", True)
    waiter = asyncio.ensure_future(world.one.get_fresh(grant))
    await asyncio.sleep(10)
    assert not waiter.done()
    world.store.down = False
    world.provider.before_answer = lambda: None
    assert bearer(await waiter) == "bearer-2"
    assert bearer(await world.stored(grant)) == "bearer-2"
    assert world.provider.uses["refresh-1"] == 1


@in_virtual_time
async def test_a_pair_in_hand_survives_a_long_store_outage_even_if_the_lease_is_lost_to_another() -> None:
    world = World(keepers=2)
    grant = await world.connect()
    await asyncio.sleep(1000)
    world.provider.before_answer = lambda: setattr(world.store, "down", True)
    waiter = asyncio.ensure_future(world.one.get_fresh(grant))
    await asyncio.sleep(60)
    with pytest.raises(TemporarilyUnavailable):
        await waiter
    world.provider.before_answer = lambda: None
    # The store is back, and the other replica reads it first.
    other = world.keepers[1]
    world.store.down = False
    with pytest.raises(TemporarilyUnavailable):
        await other.get_fresh(grant)
    assert (await world.stored(grant)).state is GrantState.UNCERTAIN
    await asyncio.sleep(2)
    assert bearer(await world.stored(grant)) == "bearer-2"
    assert world.provider.uses["refresh-1"] == 1


@in_virtual_time
async def test_a_write_that_was_done_but_not_reported_is_recognised() -> None:
    world = World()
    grant = await world.connect()
    await asyncio.sleep(1000)

    def cut(verb: str, record: object) -> str | None:
        if verb != "put" or world.provider.uses["refresh-1"] == 0:
            return None
        world.store.failing = lambda verb, record: None
        return "after"

    world.store.failing = cut
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"
    assert world.provider.uses == {"refresh-1": 1}


@in_virtual_time
async def test_a_pair_that_only_the_primary_has_is_not_used_until_the_promised_copies_are_there() -> None:
    """With `?wait=1`, a Redis whose replica is down reports an error although the write was done."""
    world = World()
    grant = await world.connect()
    await asyncio.sleep(1000)
    world.store.failing = lambda verb, record: "after" if verb == "put" and world.provider.uses else None
    waiter = asyncio.ensure_future(world.one.get_fresh(grant))
    await asyncio.sleep(5)
    assert bearer(await world.stored(grant)) == "bearer-2"
    assert not waiter.done()
    world.store.failing = lambda verb, record: None
    assert bearer(await waiter) == "bearer-2"
    assert world.provider.uses == {"refresh-1": 1}


@in_virtual_time
async def test_a_lease_that_was_written_but_not_reported_is_given_back_unsent() -> None:
    world = World()
    grant = await world.connect()
    await asyncio.sleep(1000)

    def cut(verb: str, record: object) -> str | None:
        world.store.failing = lambda verb, record: None
        return "after"

    world.store.failing = cut
    with pytest.raises(StoreUnavailable):
        await world.one.get_fresh(grant)
    assert (await world.stored(grant)).state is GrantState.REFRESHING
    assert not world.provider.uses
    renewed = await world.one.get_fresh(grant)
    assert bearer(renewed) == "bearer-2"
    assert renewed.unknowns == 0


@in_virtual_time
async def test_the_old_bearer_is_passed_while_the_store_is_away() -> None:
    world = World()
    grant = await world.connect()
    await asyncio.sleep(850)
    world.store.down = True
    assert await world.one.get_fresh(grant) is grant
    await asyncio.sleep(60)
    with pytest.raises(StoreUnavailable):
        await world.one.get_fresh(grant)
    world.store.down = False
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_the_lease_of_a_dead_holder_is_taken_over_as_uncertain() -> None:
    world = World(keepers=2, delay=5.0)
    grant = await world.connect()
    await asyncio.sleep(850)
    flight = world.one._refresher.flight(grant)
    await asyncio.sleep(1)
    flight.cancel()  # The state that kill -9 leaves behind: a lease without a holder.
    await asyncio.sleep(0)
    assert (await world.stored(grant)).state is GrantState.REFRESHING
    survivor = world.keepers[1]
    assert bearer(await survivor.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(11)
    assert bearer(await survivor.get_fresh(await world.stored(grant))) == "bearer-1"
    assert (await world.stored(grant)).state is GrantState.UNCERTAIN
    assert (await world.stored(grant)).reason == "refresh_interrupted"
    assert sum(world.provider.uses.values()) == 1, "no second use while the bearer is valid"


@in_virtual_time
async def test_an_uncertain_grant_whose_request_never_arrived_is_won_back() -> None:
    world = World(reuse=Reuse.FAMILY)
    grant = await world.connect()
    world.provider.faults = ["never arrived"]
    await asyncio.sleep(850)
    passed = await world.one.get_fresh(grant)
    assert (passed.state, bearer(passed)) == (GrantState.UNCERTAIN, "bearer-1")
    await asyncio.sleep(40)
    assert bearer(await world.one.get_fresh(passed)) == "bearer-1"
    assert world.provider.uses["refresh-1"] == 1
    await asyncio.sleep(30)
    won_back = await world.one.get_fresh(passed)
    assert (won_back.state, bearer(won_back), won_back.unknowns) == (GrantState.LIVE, "bearer-2", 0)


@in_virtual_time
async def test_an_uncertain_grant_whose_token_was_spent_ends_with_the_truth() -> None:
    for reuse in Reuse:
        world = World(reuse=reuse)
        grant = await world.connect()
        world.provider.faults = ["lost"]
        await asyncio.sleep(850)
        passed = await world.one.get_fresh(grant)
        await asyncio.sleep(60)
        assert not world.provider.families[0].ended, "the valid bearer was not put at risk"
        with pytest.raises(NeedsReconnect) as raised:
            await world.one.get_fresh(passed)
        assert raised.value.grant.reason == "refresh_outcome_unknown"
        assert world.provider.uses["refresh-1"] == 2


@in_virtual_time
async def test_two_uses_of_one_token_keep_their_distance() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = ["never arrived"]
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable) as raised:
        await world.one.get_fresh(grant)
    assert raised.value.retry_after is not None and 29 <= raised.value.retry_after <= 60
    await asyncio.sleep(raised.value.retry_after + 1)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"
    assert world.provider.used_at[1] - world.provider.used_at[0] >= 30


@in_virtual_time
async def test_after_a_second_unknown_outcome_the_user_is_told_to_reconnect_and_the_grant_may_still_come_back() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = ["never arrived", "never arrived"]
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable):
        await world.one.get_fresh(grant)
    await asyncio.sleep(61)
    with pytest.raises(NeedsReconnect):
        await world.one.get_fresh(grant)
    assert (await world.stored(grant)).state is GrantState.UNCERTAIN
    await asyncio.sleep(200)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_a_grant_is_not_tried_for_ever() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = ["never arrived"] * 100
    for _ in range(100):
        await asyncio.sleep(1000)
        with pytest.raises((TemporarilyUnavailable, NeedsReconnect)):
            await world.one.get_fresh(grant)
    assert (await world.stored(grant)).state is GrantState.NEEDS_RECONNECT
    assert world.provider.uses["refresh-1"] == 8


@in_virtual_time
async def test_a_dead_token_needs_the_user() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = [Refused("invalid_request")]
    await asyncio.sleep(1000)
    for _ in range(3):
        with pytest.raises(NeedsReconnect):
            await world.one.get_fresh(grant)
    assert sum(world.provider.uses.values()) == 1
    assert (await world.stored(grant)).reason == "dead_token"


@in_virtual_time
async def test_a_refused_registration_keeps_the_grant_and_raises_an_alarm() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = [ClientRejected("invalid_client")]
    await asyncio.sleep(850)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    (fault,) = world.one.registration_problems
    assert (fault.client, fault.error) == ("demo-app", "invalid_client")
    await asyncio.sleep(40)
    world.provider.faults = [ClientRejected("invalid_client")]
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(11)
    with pytest.raises(RegistrationFault) as raised:
        await world.one.get_fresh(grant)
    assert raised.value.status == 503
    assert raised.value.retry_after
    await asyncio.sleep(raised.value.retry_after + 1)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"
    assert world.one.registration_problems == ()


@in_virtual_time
async def test_a_new_configuration_ends_the_alarm_and_is_used_at_once() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = [ClientRejected("invalid_client")]
    await asyncio.sleep(1000)
    with pytest.raises(RegistrationFault):
        await world.one.get_fresh(grant)
    successor = world.keeper("after a reload")
    assert successor.registration_problems == ()
    await asyncio.sleep(2)
    assert bearer(await successor.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_the_old_bearer_serves_while_the_provider_is_down() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = [down(), down()]
    await asyncio.sleep(845)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    assert sum(world.provider.uses.values()) == 1, "backs off"
    await asyncio.sleep(5)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(5)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"


@in_virtual_time
async def test_the_provider_decides_when_to_come_back() -> None:
    world = World()
    grant = await world.connect()
    world.provider.faults = [down(retry_after=120)]
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable) as raised:
        await world.one.get_fresh(grant)
    assert raised.value.retry_after == 120


@in_virtual_time
async def test_a_provider_that_is_down_is_not_asked_for_every_grant() -> None:
    world = World()
    grants = [await world.connect(sub=f"sub_{n}") for n in range(50)]
    world.provider.faults = [down()] * 1000
    await asyncio.sleep(1000)
    for grant in grants:
        with pytest.raises(TemporarilyUnavailable):
            await world.one.get_fresh(grant)
    assert sum(world.provider.uses.values()) == 5
    assert world.one.health.unavailable_environments == ("double",)
    world.provider.faults = []
    await asyncio.sleep(13)
    await asyncio.gather(*(world.one.get_fresh(grant) for grant in grants), return_exceptions=True)
    assert sum(world.provider.uses.values()) == 6, "one probe"
    assert not world.one.health.unavailable_environments
    renewed = await asyncio.gather(*(world.one.get_fresh(grant) for grant in grants))
    assert all(grant.state is GrantState.LIVE for grant in renewed)


@in_virtual_time
async def test_a_provider_that_is_asked_too_often_is_asked_in_turn_and_not_taken_to_be_down() -> None:
    """Two hundred users return in the morning, and all their bearers have expired overnight."""
    world = World(life=3600.0)
    grants = [await world.connect(owner=f"own_{n}") for n in range(200)]
    await asyncio.sleep(4000)
    granted: deque[float] = deque()
    refused = 0
    act = world.provider.act

    def five_a_second(token: str) -> TokenOutcome:
        nonlocal refused
        while granted and granted[0] < world.clock() - 0.99:
            granted.popleft()
        if len(granted) >= 5:
            refused += 1
            return ProviderDown("too many", retry_after=1.0, busy=True)
        granted.append(world.clock())
        return act(token)

    world.provider.act = five_a_second  # type: ignore[method-assign]

    async def user(grant: Grant) -> float:
        while True:
            try:
                await world.one.get_fresh(grant)
                return world.clock()
            except TemporarilyUnavailable as error:
                await asyncio.sleep(error.retry_after or 1.0)

    began = world.clock()
    served = await asyncio.gather(*map(user, grants))
    assert max(served) - began < 80.0, "forty seconds is the minimum"
    assert refused < 250, "one for each grant, and a few more"
    assert not world.one.health.unavailable_environments


@in_virtual_time
async def test_a_refresh_that_waits_for_its_turn_does_not_hold_up_the_end() -> None:
    world = World(life=3600.0)
    grants = [await world.connect(owner=f"own_{n}") for n in range(50)]
    await asyncio.sleep(4000)
    world.provider.faults = [ProviderDown("too many", busy=True)] * 1000
    users = [asyncio.ensure_future(world.one.get_fresh(grant)) for grant in grants]
    await asyncio.wait(users, timeout=3.0)
    again = [asyncio.ensure_future(world.one.get_fresh(grant)) for grant in grants]
    await asyncio.sleep(0.1)
    began = world.clock()
    await world.one.stop()
    assert world.clock() - began < 6.0
    await asyncio.gather(*users, *again, return_exceptions=True)


@in_virtual_time
async def test_an_answer_that_cannot_be_judged_is_not_used_and_its_refresh_token_not_lost() -> None:
    world = World()
    grant = await world.connect()
    answer = world.provider.act("refresh-1")
    world.provider.faults = [Untrusted("no key", answer.tokens.refresh_token, DistrustReason.KEYS)]  # type: ignore[union-attr]
    await asyncio.sleep(850)
    passed = await world.one.get_fresh(grant)
    assert bearer(passed) == "bearer-1"
    assert passed.tokens.refresh_token == Secret("refresh-2")
    await asyncio.sleep(10)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-3"


@in_virtual_time
async def test_an_answer_for_another_login_ends_the_grant_and_its_token_is_revoked() -> None:
    world = World()
    world.one.start()
    grant = await world.connect()
    world.provider.faults = [Untrusted("sub", Secret("refresh-of-another"), DistrustReason.SUBJECT)]
    await asyncio.sleep(1000)
    with pytest.raises(NeedsReconnect) as raised:
        await world.one.get_fresh(grant)
    assert raised.value.grant.reason == "another_sub"
    await asyncio.sleep(2)
    assert world.provider.revoked == ["refresh-of-another"]


@in_virtual_time
async def test_a_provider_that_raises_counts_as_an_unknown_outcome() -> None:
    world = World()
    grant = await world.connect()

    def fail() -> None:
        raise ValueError("a fault of ours")

    world.provider.before_answer = fail
    await asyncio.sleep(1000)
    with pytest.raises(TemporarilyUnavailable):
        await world.one.get_fresh(grant)
    assert (await world.stored(grant)).state is GrantState.UNCERTAIN


@in_virtual_time
async def test_a_grant_without_a_refresh_token_serves_to_its_end() -> None:
    world = World()
    tokens = world.provider.consent()
    grant = await world.one.connect(OWNER, client, "mikomo", replace(tokens, refresh_token=None))
    await asyncio.sleep(890)
    assert bearer(await world.one.get_fresh(grant)) == "bearer-1"
    await asyncio.sleep(11)
    with pytest.raises(NeedsReconnect) as raised:
        await world.one.get_fresh(grant)
    assert raised.value.grant.reason == "no_refresh_token"


@in_virtual_time
async def test_a_bearer_that_the_upstream_found_dead_is_refreshed_once() -> None:
    world = World()
    grant = await world.connect()
    await asyncio.sleep(10)
    await world.one.for_owner(OWNER)
    assert await world.one.report_stale(grant)
    assert not await world.one.report_stale(grant)
    await asyncio.sleep(1)
    assert bearer(await world.stored(grant)) == "bearer-2"
    assert not await world.one.report_stale(grant), "that bearer has been replaced"
    renewed = await world.stored(grant)
    assert not await world.one.report_stale(renewed), "not again so soon: the cause may be a missing entitlement"
    await asyncio.sleep(61)
    assert await world.one.report_stale(renewed)
    await asyncio.sleep(1)
    third = await world.stored(grant)
    await asyncio.sleep(61)
    assert not await world.one.report_stale(third), "the interval grows each time"


@in_virtual_time
async def test_a_pair_in_hand_puts_back_a_grant_that_the_store_has_lost() -> None:
    """A failover to a replica that was missing the last writes."""
    world = World()
    grant = await world.connect()
    await asyncio.sleep(1000)
    losing: list[object] = []
    lose = world.store.store.delete
    world.provider.before_answer = lambda: losing.append(asyncio.ensure_future(lose("grant", grant.id)))
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"
    assert losing
    assert bearer(await world.stored(grant)) == "bearer-2"


@in_virtual_time
async def test_a_grant_that_the_store_has_set_back_gets_its_new_pair() -> None:
    world = World()
    grant = await world.connect()
    before = await world.store.store.get("grant", grant.id)
    assert before is not None
    await asyncio.sleep(1000)

    async def set_back() -> None:
        await world.store.store.delete("grant", grant.id)
        assert await world.store.store.put(before)

    losing: list[object] = []
    world.provider.before_answer = lambda: losing.append(asyncio.ensure_future(set_back()))
    assert bearer(await world.one.get_fresh(grant)) == "bearer-2"
    assert bearer(await world.stored(grant)) == "bearer-2"


@in_virtual_time
async def test_stop_waits_for_refreshes_in_flight_and_starts_no_new_ones() -> None:
    world = World(delay=4.0, tokens=Tokens(background=True))
    world.one.start()
    grant = await world.connect()
    other = await world.connect(sub="sub_2")
    await asyncio.sleep(839)
    world.one._refresher.flight(grant, early=2.0)
    await asyncio.sleep(0.1)
    await world.one.stop()
    assert bearer(await world.stored(grant)) != bearer(grant)
    uses = sum(world.provider.uses.values())
    await asyncio.sleep(100)
    with pytest.raises(TemporarilyUnavailable):
        await world.one.get_fresh(other)
    assert sum(world.provider.uses.values()) == uses


def test_margins_are_seconds() -> None:
    assert Tokens().refresh_before == Seconds(60.0)


@in_virtual_time
async def test_a_client_that_now_names_another_environment_never_shows_it_the_old_tokens() -> None:
    world = World()
    grant = await world.connect()
    other = World().provider
    other.client = replace(client, environment=replace(environment, name="production"))
    changed = world.keeper("with another environment", other)
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
    await world.one.revocation_queue.sweep()
    assert world.provider.revoked == ["refresh-1"], "revoked once the configuration is correct again"
