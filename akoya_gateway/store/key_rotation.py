"""Key rotation: re-encrypts every record with the first key, so that an old key may be removed from the ring.

Rotation can be interrupted at any moment and started again; records that are already encrypted with the first key cost
one read each. The gateway may keep running. A record that is changed meanwhile keeps the change (`Store.reseal`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from itertools import count

from akoya_gateway.errors import UndecryptableRecord
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.encryption import DamagedRecord

PAGE_SIZE = 64
"""Records that are re-encrypted concurrently: enough for SQLite to commit them together."""
MAX_TRIES = 20


class RotationResult(Enum):
    """Outcome for one record."""

    RESEALED = "resealed"
    CURRENT = "already under the first key"
    GONE = "removed meanwhile"
    DAMAGED = "damaged"
    BUSY = "changed on every attempt"


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a rotation.

    `done` of `total` records have been processed. `total` is counted at the start, so records that are added meanwhile
    raise it. `missing` pairs the ID of each key that is not in the ring with the number of records that need it.
    """

    done: int
    total: int
    resealed: int = 0
    damaged: int = 0
    busy: int = 0
    missing: tuple[tuple[str, int], ...] = ()

    @property
    def complete(self) -> bool:
        """True if every record processed so far is encrypted with the first key."""
        return not (self.damaged or self.busy or self.missing)


async def rotate(store: EncryptedStore) -> AsyncIterator[Progress]:
    """Re-encrypt every record with the first key, page by page; yield the progress after each page and at the end.

    Raises:
        StoreUnavailable: Start again when the store is back.
    """
    kinds = await store.kinds()
    total = sum([await store.count(kind) for kind in kinds])
    tally: Counter[RotationResult | str] = Counter()
    done = 0
    for kind in kinds:
        async for page in _pages(store, kind):
            tally.update(await asyncio.gather(*[_reseal(store, record) for record in page]))
            done += len(page)
            yield _progress(done, total, tally)
    yield _progress(done, total, tally)


async def _pages(store: EncryptedStore, kind: str) -> AsyncIterator[list[Record]]:
    page: list[Record] = []
    async for record in store.store.scan(kind):
        page.append(record)
        if len(page) == PAGE_SIZE:
            yield page
            page = []
    if page:
        yield page


async def _reseal(store: EncryptedStore, record: Record) -> RotationResult | str:
    """Return the outcome, or the ID of the key that is missing."""
    present: Record | None = record
    for attempt in count():
        if present is None:
            return RotationResult.GONE
        try:
            if not store.keyring.needs_reencryption(present.body):
                return RotationResult.CURRENT
            if await store.reseal(present):
                return RotationResult.RESEALED
        except UndecryptableRecord as missing:
            return missing.key_id
        except DamagedRecord:
            return RotationResult.DAMAGED
        if attempt == MAX_TRIES:
            break
        # Another writer changed the record first, perhaps a gateway that has not loaded the new key ring yet.
        present = await store.store.get(record.kind, record.key)
    return RotationResult.BUSY


def _progress(done: int, total: int, tally: Counter[RotationResult | str]) -> Progress:
    return Progress(
        done,
        max(done, total),
        resealed=tally[RotationResult.RESEALED],
        damaged=tally[RotationResult.DAMAGED],
        busy=tally[RotationResult.BUSY],
        missing=tuple(sorted((key, n) for key, n in tally.items() if isinstance(key, str))),
    )
