"""The count of grants by state: one process counts for all that share the store."""

from __future__ import annotations

import time

import pytest

from akoya_gateway.grants import inventory
from akoya_gateway.grants.inventory import CLAIM, COUNT_INTERVAL, KIND, RESULT, current_inventory
from akoya_gateway.sessions import session_store
from akoya_gateway.store import EncryptedStore
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


def test_kind_of_sessions_is_that_of_the_session_store() -> None:
    assert inventory.SESSIONS == session_store.KIND


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
    assert (found.counted_at, found.sessions) == (clock.now, 1)


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
