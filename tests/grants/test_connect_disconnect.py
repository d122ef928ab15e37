"""Reconnecting, disconnecting, and refreshes in flight meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from akoya_gateway.config.model import EncryptionKey, key_id
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.grants import Grant, GrantState, NeedsReconnect
from akoya_gateway.oauth.outcomes import ClientRejected, OutcomeUnknown, ProviderDown, RevocationOutcome, Untrusted
from akoya_gateway.secret import Secret
from akoya_gateway.store.encryption import Keyring
from tests.support.grants import OWNER, GrantEnv, bearer, client
from tests.support.virtual_time import in_virtual_time

OTHER_RING = Keyring([EncryptionKey(key_id(b"o" * 32), b"o" * 32)])


@in_virtual_time
async def test_connecting_the_same_login_again_replaces_its_tokens() -> None:
    env = GrantEnv()
    first = await env.connect()
    second = await env.connect()
    assert second.id == first.id
    (only,) = (await env.manager.for_owner(OWNER)).grants
    assert bearer(only) == "bearer-2"


@in_virtual_time
async def test_connecting_another_login_adds_a_grant_and_the_latest_is_first() -> None:
    env = GrantEnv()
    await env.connect("sub_1")
    await asyncio.sleep(5)
    await env.connect("sub_2")
    await asyncio.sleep(5)
    await env.connect("sub_1", connector="other")
    held = (await env.manager.for_owner(OWNER)).grants
    assert [(grant.connector, grant.key.sub) for grant in held] == [
        ("other", "sub_1"),
        ("mikomo", "sub_2"),
        ("mikomo", "sub_1"),
    ]


@in_virtual_time
async def test_owners_do_not_see_each_other() -> None:
    env = GrantEnv()
    await env.connect(owner="own_1")
    await env.connect(owner="own_2")
    assert [g.key.owner for g in (await env.manager.for_owner("own_2")).grants] == ["own_2"]
    assert (await env.manager.for_owner("own_3")).grants == ()


@in_virtual_time
async def test_reconnecting_during_a_refresh_takes_precedence_over_its_response() -> None:
    env = GrantEnv(managers=2, delay=2.0)
    grant = await env.connect()
    await asyncio.sleep(1000)
    waiter = asyncio.ensure_future(env.manager.get_fresh(grant))
    await asyncio.sleep(1.5)  # The provider has acted on the older token; its response is on the way.
    await env.managers[1].connect(OWNER, client, "mikomo", env.provider.consent())
    assert bearer(await waiter) == "bearer-3"
    assert bearer(await env.stored(grant)) == "bearer-3"
    assert env.provider.revoked == []


@in_virtual_time
async def test_disconnecting_hides_the_grant_at_once_and_revokes_it() -> None:
    env = GrantEnv()
    env.manager.start()
    grant = await env.connect()
    await env.manager.for_owner(OWNER)
    gone: list[Grant] = []
    end = env.manager.on_disconnect(gone.append)
    revoked = await env.manager.disconnect(grant)
    known = env.manager.get_cached(OWNER)
    assert known is not None
    assert known.grants == ()
    assert (await env.manager.for_owner(OWNER)).grants == ()
    assert [(g.id, g.state) for g in gone] == [(grant.id, GrantState.REVOKED)]
    assert revoked.tokens.refresh_token is None
    await asyncio.sleep(1)
    assert env.provider.revoked == ["refresh-1"]
    assert await env.manager.revocation_queue.count() == 0
    end()
    await env.manager.disconnect(grant)
    assert len(gone) == 1


@in_virtual_time
async def test_disconnecting_during_a_refresh_revokes_what_the_refresh_brings() -> None:
    env = GrantEnv(delay=2.0)
    env.manager.start()
    grant = await env.connect()
    await asyncio.sleep(1000)
    waiter = asyncio.ensure_future(env.manager.get_fresh(grant))
    await asyncio.sleep(1.5)
    await env.manager.disconnect(grant)
    with pytest.raises(NeedsReconnect):
        await waiter
    await asyncio.sleep(20)
    assert "refresh-2" in env.provider.revoked
    assert env.provider.families[0].ended
    assert (await env.manager.for_owner(OWNER)).grants == ()


@in_virtual_time
async def test_disconnected_login_can_be_connected_again() -> None:
    env = GrantEnv()
    grant = await env.connect()
    await env.manager.disconnect(grant)
    again = await env.connect()
    assert again.id == grant.id
    assert again.version > grant.version
    assert (await env.manager.for_owner(OWNER)).grants == (again,)


@in_virtual_time
async def test_revocation_is_repeated_until_the_provider_takes_it_even_by_another_process() -> None:
    env = GrantEnv()
    env.provider.revocation_faults = [
        ProviderDown("no connection"),
        OutcomeUnknown("timeout"),
        ClientRejected("invalid_client"),
    ]
    env.manager.start()
    grant = await env.connect()
    await env.manager.disconnect(grant)
    await asyncio.sleep(1)
    await env.manager.stop()
    assert await env.manager.revocation_queue.count() == 1
    successor = env.new_manager("after a restart")
    successor.start()
    await asyncio.sleep(300)
    assert env.provider.revoked == ["refresh-1"]
    assert await successor.revocation_queue.count() == 0


@in_virtual_time
async def test_two_replicas_work_on_one_revocation_queue_without_meeting() -> None:
    env = GrantEnv(managers=2)
    for grant_manager in env.managers:
        grant_manager.start()
    grants = [await env.connect(sub=f"sub_{n}") for n in range(20)]
    for grant in grants:
        await env.manager.disconnect(grant)
    await asyncio.sleep(60)
    assert sorted(env.provider.revoked) == sorted(f"refresh-{n}" for n in range(1, 21))


@in_virtual_time
async def test_revocations_keep_to_the_rate_of_the_environment() -> None:
    """Mass revocation (an app that closes, or a backlog after an outage) obeys the rate limit of refreshes too."""
    env = GrantEnv(delay=0.01)
    grants = [await env.connect(sub=f"sub_{n}") for n in range(60)]
    for grant in grants:
        await env.manager.disconnect(grant)
    env.manager.start()
    await asyncio.sleep(30)
    at = env.provider.revoked_at
    assert len(at) == 60
    assert max(sum(start <= each < start + 1.0 for each in at) for start in at) <= 6, "5 a second"


@in_virtual_time
async def test_revocations_wait_while_the_provider_is_down() -> None:
    env = GrantEnv()
    env.provider.revocation_faults = [ProviderDown("no connection")] * 1000
    grants = [await env.connect(sub=f"sub_{n}") for n in range(100)]
    for grant in grants:
        await env.manager.disconnect(grant)
    env.manager.start()
    await asyncio.sleep(60)
    assert 1000 - len(env.provider.revocation_faults) < 15, "a few that detect the outage, then one occasionally"
    env.provider.revocation_faults.clear()
    await asyncio.sleep(600)
    assert len(env.provider.revoked) == 100
    assert await env.manager.revocation_queue.count() == 0


@pytest.mark.parametrize(
    "fault", [ClientRejected("not_found"), ProviderDown("no connection"), OutcomeUnknown("timeout")], ids=repr
)
def test_revocation_endpoint_that_fails_does_not_hold_refreshes_back(fault: RevocationOutcome) -> None:
    """It is another URL than the token endpoint, and may be the only one that is misconfigured or down."""

    @in_virtual_time
    async def main() -> None:
        env = GrantEnv()
        env.provider.revocation_faults = [fault] * 1000
        env.manager.start()
        kept = await env.connect(sub="kept")
        await asyncio.sleep(870)
        for n in range(10):
            await env.manager.disconnect(await env.connect(sub=f"sub_{n}"))
        for _ in range(60):
            await asyncio.sleep(1)
            assert all("the revocation endpoint returns" in note for note in env.manager.notes)
            kept = await env.manager.get_fresh(kept)
        assert kept.refreshed_at > kept.connected_at
        assert 1000 - len(env.provider.revocation_faults) < 15, "the revocations have a circuit breaker of their own"

    main()


@in_virtual_time
async def test_disconnecting_revokes_the_previous_refresh_token_too_while_the_new_one_is_in_doubt() -> None:
    env = GrantEnv()
    env.manager.start()
    grant = await env.connect()
    env.provider.faults = [Untrusted("no bearer", Secret("is required"), doubtful=True)]
    await asyncio.sleep(850)
    await env.manager.get_fresh(grant)
    assert (await env.stored(grant)).fallback == Secret("refresh-1")
    await env.manager.disconnect(grant)
    await asyncio.sleep(10)
    assert sorted(env.provider.revoked) == ["is required", "refresh-1"]


@in_virtual_time
async def test_no_revocation_is_queued_where_the_provider_has_no_endpoint_for_it() -> None:
    env = GrantEnv(delay=2.0)
    there = env.provider.client.environment
    env.provider.client = replace(env.provider.client, environment=replace(there, revocation_endpoint=None))
    grant = await env.connect()
    await asyncio.sleep(1000)
    refresh = asyncio.ensure_future(env.manager.get_fresh(grant))
    await asyncio.sleep(1.5)
    await env.manager.disconnect(grant)
    with pytest.raises(NeedsReconnect):
        await refresh
    await asyncio.sleep(20)
    assert await env.manager.revocation_queue.count() == 0


@in_virtual_time
async def test_token_that_no_key_opens_does_not_keep_others_from_revocation() -> None:
    env = GrantEnv()
    for n in range(3):
        await env.manager.disconnect(await env.connect(sub=f"sub_{n}"))
    first, *_ = [record async for record in env.store.scan("revocation")]
    assert await env.store.reseal(replace(first, body=OTHER_RING.encrypt(b"{}", b"")))  # type: ignore[operator]
    await env.manager.revocation_queue.sweep()
    assert len(env.provider.revoked) == 2
    assert await env.manager.revocation_queue.count() == 1


@in_virtual_time
async def test_late_reader_does_not_bring_a_disconnected_grant_back() -> None:
    """A refresh in flight read the store before the user disconnected, and its response arrives afterwards."""
    env = GrantEnv()
    grant = await env.connect()
    await env.manager.for_owner(OWNER)
    await env.manager.disconnect(grant)
    env.manager._cache.put(grant)
    known = env.manager.get_cached(OWNER)
    assert known is not None
    assert known.grants == ()


@in_virtual_time
async def test_disconnecting_needs_the_store() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.store.down = True
    with pytest.raises(StoreUnavailable):
        await env.manager.disconnect(grant)
    env.store.down = False
    assert len((await env.manager.for_owner(OWNER)).grants) == 1


@in_virtual_time
async def test_new_consent_outlasts_a_short_store_outage() -> None:
    env = GrantEnv()
    env.store.down = True
    asyncio.get_running_loop().call_later(2.0, setattr, env.store, "down", False)
    grant = await env.connect()
    assert (await env.stored(grant)).tokens == grant.tokens
    env.store.down = True
    with pytest.raises(StoreUnavailable):
        await env.connect()


@in_virtual_time
async def test_listener_is_called_once_and_its_exception_affects_no_other() -> None:
    env = GrantEnv()
    grant = await env.connect()
    notified: list[str] = []

    def fail(_: Grant) -> None:
        raise ZeroDivisionError

    env.manager.on_disconnect(fail)
    stop = env.manager.on_disconnect(lambda g: notified.append(g.id))
    await env.manager.disconnect(grant)
    await env.manager.disconnect(grant)
    assert set(notified) == {grant.id}
    stop()
    notified.clear()
    await env.manager.disconnect(await env.connect(sub="sub_2"))
    assert notified == []


@in_virtual_time
async def test_change_at_another_replica_is_seen_within_a_second() -> None:
    env = GrantEnv(managers=2)
    grant = await env.connect()
    here, there = env.managers
    assert len((await there.for_owner(OWNER)).grants) == 1
    await here.disconnect(grant)
    assert there.get_cached(OWNER) is not None
    await asyncio.sleep(1.01)
    assert there.get_cached(OWNER) is None
    assert (await there.for_owner(OWNER)).grants == ()


@in_virtual_time
async def test_read_that_began_before_a_change_does_not_hide_it() -> None:
    env = GrantEnv()
    grant = await env.connect()
    env.store.latency = 0.5
    reading = asyncio.ensure_future(env.manager.for_owner(OWNER))
    await asyncio.sleep(0.7)  # The refresh has read the store, and its response is on the way.
    env.store.latency = 0.0
    await env.manager.disconnect(grant)
    assert (await reading).grants == ()
    known = env.manager.get_cached(OWNER)
    assert known is not None
    assert known.grants == ()


@in_virtual_time
async def test_readers_of_one_owner_share_one_read() -> None:
    env = GrantEnv()
    await env.connect()
    finds = 0

    def count(verb: str, record: object) -> None:
        nonlocal finds
        finds += verb == "find"

    env.store.failing = count
    env.store.latency = 0.1
    await asyncio.gather(*(env.manager.for_owner(OWNER) for _ in range(500)))
    assert finds == 1
