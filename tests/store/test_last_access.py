"""The last access of an owner: rounded to a minute, kept in every store, the latest of all replicas."""

from __future__ import annotations

from typing import Any

import pytest

from akoya_gateway.config.model import EncryptionKey, key_id
from akoya_gateway.sessions.last_access import KIND, MAX_PENDING, PERIOD, LastAccess, rounded
from akoya_gateway.store import EncryptedStore, Keyring, Store
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import RING, FlakyStore
from tests.support.waiting import until_async

NOW = 1_800_000_000.0
LIFETIME = 86_400.0


def replica(store: Any, ring: Keyring = RING) -> LastAccess:
    return LastAccess(EncryptedStore(store, ring), LIFETIME)


def test_rounded_time_changes_once_a_minute_and_at_another_second_for_each_owner() -> None:
    changes: set[int] = set()
    for number in range(200):
        owner = f"own_{number}"
        times = [rounded(owner, NOW + second) for second in range(3 * PERIOD)]
        assert all(0 <= NOW + second - at < PERIOD for second, at in enumerate(times))
        first, second, *_ = (second for second in range(1, 3 * PERIOD) if times[second] != times[second - 1])
        assert second - first == PERIOD
        changes.add(first)
    assert len(changes) > PERIOD / 2, "the owners' headers must not all change in the same second"


async def test_last_access_is_found_by_another_process_after_the_first_has_stopped(store: Store) -> None:
    first = replica(store)
    first.start()
    at = first.record("owner", NOW)
    assert at == rounded("owner", NOW)
    assert await first.get("owner") == at
    await first.stop()
    later = replica(store)
    assert await later.get("owner") == at
    assert await later.get("somebody else") is None


async def test_latest_access_of_two_replicas_is_kept_in_either_order(store: Store) -> None:
    ahead, behind = replica(store), replica(store)
    for name, order in (("a", (ahead, behind)), ("b", (behind, ahead))):
        ahead.record(name, NOW + 300)
        behind.record(name, NOW)
        for one in order:
            await one.stop()
        assert await replica(store).get(name) == rounded(name, NOW + 300)
        assert await behind.get(name) == rounded(name, NOW + 300)


async def test_last_access_is_written_once_in_a_minute(store: Store) -> None:
    one = replica(store)
    start = rounded("owner", NOW)
    for second in range(PERIOD):
        one.record("owner", start + second)
        await one.stop()
    (record,) = [found async for found in store.scan(KIND)]
    assert record.version == 1
    assert record.expires_at == start + LIFETIME


@pytest.fixture
def flaky() -> FlakyStore:
    return FlakyStore(MemoryStore(lambda: NOW))


async def test_failed_write_is_repeated_and_raises_nothing(flaky: FlakyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("akoya_gateway.sessions.last_access.RETRY_PAUSE", 0.01)
    tries: list[str] = []

    def fail(verb: str, record: object) -> str | None:
        tries.append(verb)
        return "before" if verb == "put" else None

    flaky.failing = fail
    one = replica(flaky)
    one.start()
    assert one.record("owner", NOW) == rounded("owner", NOW)
    await until_async(lambda: tries.count("put") >= 3)
    flaky.failing = lambda verb, record: None
    await until_async(lambda: bool(flaky.writes))
    assert await replica(flaky).get("owner") == rounded("owner", NOW)
    await one.stop()


async def test_stop_does_not_wait_for_a_store_that_is_down(flaky: FlakyStore) -> None:
    flaky.down = True
    one = replica(flaky)
    one.record("owner", NOW)
    await one.stop(timeout=30)
    assert not flaky.writes


async def test_pending_owners_are_bounded(flaky: FlakyStore) -> None:
    one = replica(flaky)
    for number in range(MAX_PENDING + 10):
        one.record(str(number), NOW)
    assert len(one._pending) == MAX_PENDING
    assert "0" not in one._pending


async def test_record_of_a_lost_key_is_replaced(flaky: FlakyStore) -> None:
    old = replica(flaky, Keyring([EncryptionKey(key_id(b"o" * 32), b"o" * 32)]))
    old.record("owner", NOW)
    await old.stop()
    new = replica(flaky)
    assert await new.get("owner") is None
    new.record("owner", NOW + 60)
    await new.stop()
    assert await replica(flaky).get("owner") == rounded("owner", NOW + 60)


async def test_write_of_a_later_minute_needs_no_read_unless_another_replica_wrote_meanwhile(flaky: FlakyStore) -> None:
    calls: list[str] = []

    def note(verb: str, record: object) -> None:
        calls.append(verb)

    flaky.failing = note
    one, another = replica(flaky), replica(flaky)
    for minute, expected in enumerate((["get", "put"], ["put"], ["put"])):
        calls.clear()
        one.record("owner", NOW + minute * PERIOD)
        await one.stop()
        assert calls == expected
    another.record("owner", NOW + 10 * PERIOD)
    await another.stop()
    calls.clear()
    one.record("owner", NOW + 5 * PERIOD)
    await one.stop()
    assert calls == ["put", "get"], "the later time of the other replica stays"
    assert await replica(flaky).get("owner") == rounded("owner", NOW + 10 * PERIOD)
