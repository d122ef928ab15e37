"""A provider that refuses one of several client registrations: only the grants of that client are affected."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from akoya_gateway.config.model import Tokens
from akoya_gateway.grants import Grant, GrantManager
from akoya_gateway.grants.errors import RegistrationFault
from akoya_gateway.oauth.outcomes import ClientRejected
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import OWNER, RING, Provider, bearer
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
