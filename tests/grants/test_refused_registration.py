"""A provider that refuses one of several client registrations: only the grants of that client are affected."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from akoya_gateway.config.model import Tokens
from akoya_gateway.grants import Grant, GrantManager
from akoya_gateway.grants.errors import RegistrationFault
from akoya_gateway.grants.observer import NullGrantObserver
from akoya_gateway.grants.provider_health import ProviderHealth
from akoya_gateway.oauth.outcomes import ClientRejected, ProviderDown, Refused
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import OWNER, RING, GrantEnv, Provider, bearer, client
from tests.support.virtual_time import clock, in_virtual_time

CLIENTS = {"refused": "one", "same environment": "one", "other environment": "two"}
"""The environments of the clients."""


def providers() -> dict[str, Provider]:
    made = {}
    for name, environment in CLIENTS.items():
        made[name] = provider = Provider(clock)
        there = replace(provider.client.environment, name=environment)
        provider.client = replace(provider.client, name=name, environment=there)
    return made


def replica(store: EncryptedStore, providers: dict[str, Provider], holder: str) -> GrantManager:
    tokens = Tokens(background=False)
    return GrantManager(store, providers, tokens, clock=clock, random=lambda: 0.5, holder=holder)


async def refreshed(manager: GrantManager, name: str) -> Grant:
    (grant,) = (await manager.for_owner(OWNER)).for_connector(name)
    return await manager.get_fresh(grant)


@in_virtual_time
async def test_refused_registration_affects_only_its_client_and_ends_with_a_reload() -> None:
    store, clients = EncryptedStore(MemoryStore(clock), RING), providers()
    first, second = (replica(store, clients, holder) for holder in ("first", "second"))
    for name, provider in clients.items():
        await first.connect(OWNER, provider.client, name, provider.consent())
    clients["refused"].faults = [ClientRejected("invalid_client")] * 100
    await asyncio.sleep(1000)
    for manager in (first, second):
        # The second replica sends no request: the grant is on hold, and its record says why.
        with pytest.raises(RegistrationFault):
            await refreshed(manager, "refused")
        for name in ("same environment", "other environment"):
            assert bearer(await refreshed(manager, name)) == "bearer-2"
    assert sum(clients["refused"].uses.values()) == 1
    (note,) = first.notes
    assert note.startswith("clients.refused: the provider returns invalid_client")
    clients["refused"].faults.clear()
    await asyncio.sleep(0.5)
    reloaded = replica(store, clients, "first, reloaded")
    assert reloaded.notes == ()
    assert bearer(await refreshed(reloaded, "refused")) == "bearer-2"


@in_virtual_time
async def test_each_cause_of_a_rejection_is_reported_once_until_the_next_success() -> None:
    health = ProviderHealth(clock, lambda: 0.5, NullGrantObserver())
    outcomes = {
        "invalid_client": True,
        "status_401": True,
        "unauthorized_client": True,
    }
    for _ in range(2):
        for error, is_first in outcomes.items():
            for expected in (is_first, False, False):
                problem = health.record_outcome(client, ClientRejected(error), "g1")
                assert (problem is not None) is expected
                assert health.notes[0].startswith(f"clients.demo-app: the provider returns {error};")
        outcomes = dict.fromkeys(outcomes, False)
    health.record_outcome(client, Refused("invalid_grant"), "g2")
    assert health.notes == ()
    assert health.record_outcome(client, ClientRejected("invalid_client"), "g1") is not None


@in_virtual_time
async def test_rejected_code_exchange_is_a_note_and_holds_back_no_refresh() -> None:
    """The code exchange may have another client authentication than the refresh (`dialect.code_auth`)."""
    health = ProviderHealth(clock, lambda: 0.5, NullGrantObserver())
    assert health.record_exchange(client, ClientRejected("invalid_grant")) is None, "a code of another client"
    assert not health.notes
    assert health.record_exchange(client, ClientRejected("invalid_client")) is not None
    assert health.record_exchange(client, ClientRejected("invalid_client")) is None
    (note,) = health.notes
    assert note.startswith("clients.demo-app: the provider returns invalid_client when users connect a bank")
    assert health.wait(client, "mikomo") == 0.0
    health.record_exchange(client, ProviderDown("no connection"))
    assert len(health.notes) == 1
    health.record_exchange(client, Refused("invalid_grant"))
    assert not health.notes, "the provider has accepted the client"


@in_virtual_time
async def test_rejected_revocation_is_a_note_until_it_succeeds() -> None:
    env = GrantEnv()
    env.provider.revocation_faults = [ClientRejected("invalid_client")] * 3
    env.manager.start()
    grant = await env.connect()
    await env.manager.disconnect(grant)
    await asyncio.sleep(1)
    (note,) = env.manager.notes
    assert note.startswith("clients.demo-app: the revocation endpoint returns invalid_client")
    other = await env.connect(sub="sub_2")
    await asyncio.sleep(880)
    assert bearer(await env.manager.get_fresh(other)) == "bearer-3"
    while env.manager.notes:
        await asyncio.sleep(60)
    assert env.provider.revoked == ["refresh-1"]
