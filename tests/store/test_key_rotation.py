"""Key ring rotation: everything ends up under the first key, nothing is lost, and no client is disturbed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from akoya_gateway.cli.rotate_store import summary
from akoya_gateway.config.model import EncryptionKey, key_id
from akoya_gateway.store import EncryptedStore, Keyring, Record, Store
from akoya_gateway.store.key_rotation import Progress, rotate

OLD, NEW, LOST = (EncryptionKey(key_id(bytes([n]) * 32), bytes([n]) * 32) for n in (1, 2, 3))


async def fill(store: EncryptedStore, number: int, kind: str = "grant") -> None:
    records = [Record(kind, f"{kind}-{n:04}", b"plain %d" % n, group=f"o{n % 5}") for n in range(number)]
    assert all(await asyncio.gather(*[store.put(record) for record in records]))


async def run(store: EncryptedStore) -> list[Progress]:
    return [progress async for progress in rotate(store)]


async def test_rotated_store_is_readable_with_the_new_key_alone(store: Store) -> None:
    await fill(EncryptedStore(store, Keyring([OLD])), 150)
    await fill(EncryptedStore(store, Keyring([OLD])), 20, "session")
    steps = await run(EncryptedStore(store, Keyring([NEW, OLD])))
    assert [p.total for p in steps] == [170] * len(steps)
    assert [p.done for p in steps] == sorted(p.done for p in steps)
    assert steps[-1] == Progress(170, 170, resealed=170)
    assert steps[-1].complete
    alone = EncryptedStore(store, Keyring([NEW]))
    bodies = {r.key: r.body async for r in alone.scan("grant")}
    assert bodies == {f"grant-{n:04}": b"plain %d" % n for n in range(150)}
    assert await alone.count("session") == len([r async for r in alone.scan("session")]) == 20
    assert (await alone.get("grant", "grant-0000")).version == 1  # type: ignore[union-attr]


async def test_interrupted_rotation_continues(store: Store) -> None:
    await fill(EncryptedStore(store, Keyring([OLD])), 200)
    encrypted_store = EncryptedStore(store, Keyring([NEW, OLD]))
    first = await anext(rotate(encrypted_store))
    assert 0 < first.resealed < 200
    again = await run(encrypted_store)
    assert again[-1].resealed == 200 - first.resealed
    assert (await run(encrypted_store))[-1] == Progress(200, 200)


async def test_changes_meanwhile_are_kept(store: Store) -> None:
    old, encrypted_store = EncryptedStore(store, Keyring([OLD])), EncryptedStore(store, Keyring([NEW, OLD]))
    await fill(old, 150)

    async def change() -> None:
        for n in range(150):
            assert await old.put(Record("grant", f"grant-{n:04}", b"changed", 2, f"o{n % 5}"))

    steps, _ = await asyncio.gather(run(encrypted_store), change())
    assert steps[-1].complete
    assert {(r.version, r.body) async for r in encrypted_store.scan("grant")} == {(2, b"changed")}


async def test_record_that_cannot_be_re_encrypted_is_counted_and_kept(store: Store) -> None:
    await fill(EncryptedStore(store, Keyring([OLD])), 10)
    await fill(EncryptedStore(store, Keyring([LOST])), 3, "session")
    damaged = await store.get("grant", "grant-0003")
    assert damaged is not None
    spoiled = replace(damaged, body=damaged.body[:-1] + bytes([damaged.body[-1] ^ 1]))
    assert await store.reseal(spoiled)
    last = (await run(EncryptedStore(store, Keyring([NEW, OLD]))))[-1]
    assert (last.done, last.resealed, last.damaged, last.missing) == (13, 9, 1, ((LOST.id, 3),))
    assert not last.complete
    assert await store.get("grant", "grant-0003") == spoiled
    report = "\n".join(summary(last, NEW.id))
    assert LOST.id in report
    assert "may be removed" not in report


async def test_empty_store_is_done_at_once(store: Store) -> None:
    assert await run(EncryptedStore(store, Keyring([NEW]))) == [Progress(0, 0)]
