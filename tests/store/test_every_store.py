"""What every store must do: one suite for memory, SQLite and Redis in all its deployment modes."""

from __future__ import annotations

import asyncio

import pytest

from akoya_gateway.store import Record, Store
from tests.store.conftest import FakeClock


def record(key: str = "k1", **changes: object) -> Record:
    fields: dict[str, object] = {"kind": "grant", "key": key, "body": b"sealed", "version": 1, "group": "owner-1"}
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


async def test_record_is_returned_as_it_was_put(store: Store, clock: FakeClock) -> None:
    given = record(body=bytes(range(256)), expires_at=clock() + 100.125)
    assert await store.put(given) is True
    assert await store.get("grant", "k1") == given


async def test_record_that_is_not_there_is_none(store: Store) -> None:
    assert await store.get("grant", "nothing") is None
    assert await store.take("grant", "nothing") is None
    assert await store.delete("grant", "nothing") is False
    assert await store.find("grant", "nobody") == ()
    assert await store.count("grant") == 0
    assert await store.count("grant", "nobody") == 0


async def test_body_of_a_megabyte_and_an_empty_one_are_kept(store: Store) -> None:
    big = bytes(range(256)) * 4096
    assert await store.put(record("big", body=big))
    assert await store.put(record("empty", body=b""))
    found = {r.key: r.body for r in await store.find("grant", "owner-1")}
    assert found == {"big": big, "empty": b""}


async def test_kinds_with_the_same_key_are_apart(store: Store) -> None:
    assert await store.put(record(body=b"a grant"))
    assert await store.put(record(kind="session", body=b"a session"))
    assert (await store.take("session", "k1")).body == b"a session"  # type: ignore[union-attr]
    assert (await store.get("grant", "k1")).body == b"a grant"  # type: ignore[union-attr]


async def test_creating_what_is_there_is_refused(store: Store) -> None:
    assert await store.put(record(body=b"first"))
    assert await store.put(record(body=b"second", group="owner-2")) is False
    assert (await store.get("grant", "k1")).body == b"first"  # type: ignore[union-attr]
    assert await store.find("grant", "owner-2") == ()


@pytest.mark.parametrize("version", [2, 3, 5])
async def test_only_the_next_version_replaces(store: Store, version: int) -> None:
    for n in (1, 2, 3):
        assert await store.put(record(body=b"v%d" % n, version=n))
    assert await store.put(record(body=b"wrong", version=version)) is False
    assert await store.get("grant", "k1") == record(body=b"v3", version=3)
    assert await store.put(record(body=b"v4", version=4)) is True


async def test_replacing_what_is_not_there_is_refused(store: Store) -> None:
    assert await store.put(record(version=2)) is False
    assert await store.get("grant", "k1") is None
    assert await store.find("grant", "owner-1") == ()
    assert await store.count("grant") == 0


async def test_of_a_hundred_puts_of_one_version_exactly_one_succeeds(store: Store) -> None:
    for version in (1, 2):
        puts = [store.put(record(body=b"%d" % n, version=version)) for n in range(100)]
        outcomes = await asyncio.gather(*puts)
        assert outcomes.count(True) == 1
        kept = await store.get("grant", "k1")
        assert kept is not None
        assert (kept.version, kept.body) == (version, b"%d" % outcomes.index(True))


async def test_of_a_hundred_takes_exactly_one_gets_it(store: Store) -> None:
    assert await store.put(record())
    got = await asyncio.gather(*[store.take("grant", "k1") for _ in range(100)])
    assert [r for r in got if r is not None] == [record()]
    assert await store.get("grant", "k1") is None
    assert await store.count("grant") == 0


async def test_delete_at_a_version_spares_any_other(store: Store) -> None:
    assert await store.put(record())
    assert await store.put(record(version=2))
    assert await store.delete("grant", "k1", 1) is False
    assert await store.delete("grant", "k1", 2) is True
    assert await store.delete("grant", "k1") is False
    assert await store.put(record()) is True, "versions restart after a delete"


async def test_resealing_changes_the_body_and_nothing_else(store: Store, clock: FakeClock) -> None:
    kept = record(version=2, expires_at=clock() + 50)
    assert await store.put(record())
    assert await store.put(kept)
    assert await store.reseal(record(body=b"stale", version=1)) is False
    assert await store.reseal(record("other", body=b"absent")) is False
    assert await store.reseal(record(body=b"resealed", version=2, group="ignored", expires_at=None)) is True
    assert await store.get("grant", "k1") == record(body=b"resealed", version=2, expires_at=kept.expires_at)
    assert await store.put(record(version=3)) is True, "the holder of version 2 is not disturbed"


async def test_find_lists_the_group_in_the_order_of_keys(store: Store) -> None:
    for key in ("c", "a", "b"):
        assert await store.put(record(key))
    assert await store.put(record("d", group="owner-2"))
    assert await store.put(record("e", kind="session"))
    assert [r.key for r in await store.find("grant", "owner-1")] == ["a", "b", "c"]
    assert await store.count("grant") == 4
    assert await store.count("grant", "owner-1") == 3


async def test_record_that_moves_to_another_group_is_listed_there_alone(store: Store) -> None:
    assert await store.put(record())
    assert await store.put(record(version=2, group="owner-2"))
    assert await store.find("grant", "owner-1") == ()
    assert await store.find("grant", "owner-2") == (record(version=2, group="owner-2"),)
    assert await store.count("grant", "owner-1") == 0


async def test_records_without_a_group_are_kept_counted_and_scanned(store: Store) -> None:
    assert await store.put(record(group=""))
    assert await store.get("grant", "k1") == record(group="")
    assert await store.find("grant", "") == ()
    assert await store.count("grant", "") == 0
    assert await store.count("grant") == 1
    assert [r async for r in store.scan("grant")] == [record(group="")]


async def test_deleted_record_is_not_listed_and_can_be_created_again(store: Store) -> None:
    for _ in range(3):
        assert await store.put(record())
        assert len(await store.find("grant", "owner-1")) == 1
        assert await store.delete("grant", "k1")
        assert await store.find("grant", "owner-1") == ()
        assert await store.count("grant") == await store.count("grant", "owner-1") == 0


async def test_expired_record_is_missing_for_every_operation(store: Store, clock: FakeClock) -> None:
    end = clock() + 60
    for key in ("a", "b"):
        assert await store.put(record(key, expires_at=end))
    clock.now = end - 0.001
    assert len(await store.find("grant", "owner-1")) == 2
    clock.now = end
    assert await store.get("grant", "a") is None
    assert await store.find("grant", "owner-1") == ()
    assert await store.count("grant") == await store.count("grant", "owner-1") == 0
    assert [r async for r in store.scan("grant")] == []
    assert await store.put(record("a", version=2, expires_at=None)) is False
    assert await store.reseal(record("a", body=b"new")) is False
    assert await store.delete("grant", "a") is False
    assert await store.take("grant", "a") is None
    assert await store.put(record("a", body=b"again", expires_at=None)) is True
    assert (await store.get("grant", "a")) == record("a", body=b"again")


async def test_end_moves_with_each_put(store: Store, clock: FakeClock) -> None:
    assert await store.put(record(expires_at=clock() + 10))
    assert await store.put(record(version=2, expires_at=clock() + 100))
    clock.now += 50
    assert (await store.find("grant", "owner-1"))[0].version == 2
    assert await store.put(record(version=3, expires_at=None))
    clock.now += 1000
    assert await store.count("grant", "owner-1") == 1
    assert await store.put(record(version=4, expires_at=clock() + 1))
    clock.now += 2
    assert await store.count("grant") == 0
    assert await store.get("grant", "k1") is None


async def test_record_that_has_ended_when_it_is_put_is_not_there(store: Store, clock: FakeClock) -> None:
    assert await store.put(record(expires_at=clock() - 1)) is True
    assert await store.get("grant", "k1") is None
    assert await store.count("grant") == 0
    assert await store.put(record()) is True


async def test_scan_streams_every_live_record_of_the_kind_once(store: Store, clock: FakeClock) -> None:
    for n in range(450):
        assert await store.put(record(f"k{n:04}", group=f"owner-{n % 7}", body=b"%d" % n))
    assert await store.put(record("ended", expires_at=clock() - 1))
    assert await store.put(record("other", kind="session"))
    seen = sorted([(r.key, r.body) async for r in store.scan("grant")])
    assert seen == [(f"k{n:04}", b"%d" % n) for n in range(450)]


async def test_scan_continues_while_records_change(store: Store) -> None:
    for n in range(300):
        assert await store.put(record(f"k{n:04}"))
    seen = []
    async for r in store.scan("grant"):
        seen.append(r.key)
        assert await store.delete("grant", r.key)
    assert sorted(seen) == [f"k{n:04}" for n in range(300)]
    assert await store.count("grant") == 0


async def test_kinds_are_those_of_live_records(store: Store, clock: FakeClock) -> None:
    assert await store.kinds() == ()
    assert await store.put(record())
    assert await store.put(record(kind="session"))
    assert await store.put(record(kind="attempt", expires_at=clock() + 10))
    assert await store.kinds() == ("attempt", "grant", "session")
    assert await store.delete("grant", "k1")
    clock.now += 10
    assert await store.kinds() == ("session",)


async def test_changed_returns_at_once_when_it_has_changed_already(store: Store) -> None:
    assert await store.put(record())
    assert await store.put(record(version=2))
    assert await store.changed("grant", "k1", 1, 30) == record(version=2)
    assert await store.changed("grant", "nothing", 1, 30) is None


async def test_changed_returns_what_is_there_when_time_is_up(store: Store) -> None:
    assert await store.put(record())
    assert await store.changed("grant", "k1", 1, 0.05) == record()
    assert await store.changed("grant", "k1", 1, 0) == record()


async def test_changed_wakes_every_waiter_of_that_record(store: Store) -> None:
    assert await store.put(record())
    assert await store.put(record("k2"))
    waiters = [asyncio.create_task(store.changed("grant", "k1", 1, 30)) for _ in range(50)]
    other = asyncio.create_task(store.changed("grant", "k2", 1, 30))
    await asyncio.sleep(0.1)
    assert await store.put(record(body=b"new", version=2))
    assert await asyncio.wait_for(asyncio.gather(*waiters), 60) == [record(body=b"new", version=2)] * 50
    assert not other.done()
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)


@pytest.mark.parametrize("verb", ["delete", "take"])
async def test_changed_returns_when_the_record_is_deleted(store: Store, verb: str) -> None:
    assert await store.put(record())
    waiter = asyncio.create_task(store.changed("grant", "k1", 1, 30))
    await asyncio.sleep(0.05)
    await getattr(store, verb)("grant", "k1")
    assert await asyncio.wait_for(waiter, 60) is None


async def test_changed_is_not_woken_by_resealing(store: Store) -> None:
    assert await store.put(record())
    waiter = asyncio.create_task(store.changed("grant", "k1", 1, 0.8))
    await asyncio.sleep(0.05)
    assert await store.reseal(record(body=b"new"))
    assert await waiter == record(body=b"new")


async def test_changed_returns_after_a_write_of_another_process(
    monkeypatch: pytest.MonkeyPatch, store: Store, another: Store | None
) -> None:
    if another is None:
        pytest.skip("a memory store is not shared")
    # SQLite also reads the record again every two seconds, in case that it misses a change.
    monkeypatch.setattr("akoya_gateway.store.sqlite.REREAD_INTERVAL", 3600.0)
    assert await store.put(record())
    waiter = asyncio.create_task(store.changed("grant", "k1", 1, 30))
    await asyncio.sleep(0.2)
    assert await another.put(record(body=b"new", version=2))
    assert await asyncio.wait_for(waiter, 60) == record(body=b"new", version=2)


async def test_stores_that_share_their_data_race_fairly(store: Store, another: Store | None) -> None:
    if another is None:
        pytest.skip("a memory store is not shared")
    for version in range(1, 11):
        puts = [(store, another)[n % 2].put(record(body=b"%d" % n, version=version)) for n in range(10)]
        assert (await asyncio.gather(*puts)).count(True) == 1
    taken = await asyncio.gather(*[(store, another)[n % 2].take("grant", "k1") for n in range(10)])
    assert len([r for r in taken if r is not None]) == 1


async def test_check_passes_while_all_is_well(store: Store) -> None:
    await store.check()
    await store.check()


async def test_names_with_any_characters_are_kept_apart(store: Store) -> None:
    names = ["a", "a:b", "{a}", "{a}b", "a b", "a'b", "a\\b", "%61", "ä", "*", "a-_="]
    for name in names:
        assert await store.put(record(name, group=f"g{name}", body=name.encode()))
    for name in names:
        assert (await store.get("grant", name)).body == name.encode()  # type: ignore[union-attr]
        assert [r.key for r in await store.find("grant", f"g{name}")] == [name]
