"""Everything under the first key: what has to be done before an old key may leave the ring.

It can be stopped at any moment and started again: what is under the first key already is passed over at the cost of
reading it. The gateway may run meanwhile. A record that changes under our hands keeps the change (`Store.reseal`).
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
"""Records at a time: enough that SQLite commits them together."""
MAX_TRIES = 20


class RotationResult(Enum):
    RESEALED = "resealed"
    CURRENT = "under the first key already"
    GONE = "removed meanwhile"
    DAMAGED = "damaged"
    BUSY = "changed whenever we looked"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` records were looked at (`total` was counted at the start, so `done` may pass it).

    `missing` says how many records need which key that is not in the ring.
    """

    done: int
    total: int
    resealed: int = 0
    damaged: int = 0
    busy: int = 0
    missing: tuple[tuple[str, int], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything that was looked at is under the first key now."""
        return not (self.damaged or self.busy or self.missing)


async def rotate(store: EncryptedStore) -> AsyncIterator[Progress]:
    """Seal every record under the ring's first key, page by page; yields after each page, and at least once.

    Raises `StoreUnavailable`; start again when the store is back.
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
    """The outcome, or the id of the key that is missing."""
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
        # Somebody was first, perhaps a gateway that has not read the new ring yet.
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
