"""The count of grants by state: one process counts for all that share the store."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from akoya_gateway.config.model import EncryptionKey, key_id
from akoya_gateway.grants import inventory
from akoya_gateway.grants.inventory import CLAIM, COUNT_INTERVAL, KIND, RESULT, current_inventory
from akoya_gateway.store import EncryptedStore, Keyring
from akoya_gateway.store.base import Record
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import RING, GrantEnv

LIVE = ("sandbox", "mikomo", "live")


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def env(clock: Clock) -> GrantEnv:
    return GrantEnv(clock=clock, store=MemoryStore(clock))


@pytest.fixture
def store(env: GrantEnv) -> EncryptedStore:
    return EncryptedStore(env.store, RING)  # type: ignore[arg-type]


def test_kinds_of_records_are_those_of_the_packages_that_write_them() -> None:
    """Without the bookkeeping of the gateway: claims of a background job, and the calls of a data API."""
    package = Path(inventory.__file__).parents[1]
    kinds = {kind for file in package.rglob("*.py") for kind in re.findall(r'^KIND = "(\w+)"', file.read_text(), re.M)}
    assert {*inventory.RECORD_KINDS} == kinds - {"chore", "data_rate", "pulse"}


async def test_grants_are_counted_by_connector_and_state(
    env: GrantEnv, store: EncryptedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "BATCH", 2)
    grants = [await env.connect(f"sub_{n}") for n in range(3)]
    await env.connect(connector="other")
    await env.manager.disconnect(grants[0])
    assert await store.put(Record(inventory.SESSIONS, "x", b"{}"))
    found = await current_inventory(store, clock)
    assert found is not None
    environment = grants[0].key.environment
    assert found.grants == {(environment, "mikomo", "live"): 2, (environment, "other", "live"): 1}
    assert (found.counted_at, found.records[inventory.SESSIONS], found.records["grant"]) == (clock.now, 1, 4)
    assert found.tokens == {(environment, "mikomo", "valid"): 2, (environment, "other", "valid"): 1}


async def test_tokens_are_counted_by_how_long_they_last(env: GrantEnv, store: EncryptedStore, clock: Clock) -> None:
    """The grant of the emulated provider lasts 900 seconds."""
    grant = await env.connect()
    for seconds, token in ((590, "valid"), (20, "ends_soon"), (300, "expired")):
        clock.now += seconds
        assert await store.delete(KIND, RESULT) or token == "valid"
        found = await current_inventory(store, clock)
        assert found is not None
        assert found.tokens == {(grant.key.environment, "mikomo", token): 1}


async def test_other_processes_read_the_count_until_it_is_old(
    env: GrantEnv, store: EncryptedStore, clock: Clock
) -> None:
    first = await current_inventory(store, clock)
    await env.connect()
    clock.now += COUNT_INTERVAL - 1
    assert await current_inventory(store, clock) == first
    clock.now += 1
    later = await current_inventory(store, clock)
    assert later is not None and sum(later.grants.values()) == 1
    # A clock that was set back must not stop the counting.
    clock.now -= 86_400
    again = await current_inventory(store, clock)
    assert again is not None and again.counted_at == clock.now


async def test_only_one_process_counts_at_a_time(env: GrantEnv, store: EncryptedStore, clock: Clock) -> None:
    assert await store.put(Record(KIND, CLAIM, b"{}", expires_at=clock.now + 600))
    assert await current_inventory(store, clock) is None
    # The process with the claim has exited.
    clock.now += 600
    assert await current_inventory(store, clock) is not None
    assert await store.get(KIND, CLAIM) is None


async def test_result_of_a_newer_release_is_replaced(env: GrantEnv, store: EncryptedStore, clock: Clock) -> None:
    assert await store.put(Record(KIND, RESULT, b'{"format":2}'))
    assert await current_inventory(store, clock) is not None
    assert await current_inventory(store, clock) is not None


async def test_result_of_a_lost_key_does_not_end_the_counting(env: GrantEnv, clock: Clock) -> None:
    await env.connect()
    lost = EncryptedStore(env.store, Keyring([EncryptionKey(key_id(b"o" * 32), b"o" * 32)]))  # type: ignore[arg-type]
    assert await lost.put(Record(KIND, RESULT, b"{}"))
    found = await current_inventory(EncryptedStore(env.store, RING), clock)  # type: ignore[arg-type]
    assert found is not None
    assert list(found.grants.values()) == [1]
