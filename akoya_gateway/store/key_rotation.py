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
from akoya_gateway.store.encrypted_store import Vault
from akoya_gateway.store.encryption import DamagedRecord

PAGE = 64
"""Records at a time: enough that SQLite commits them together."""
TRIES = 20


class Outcome(Enum):
    RESEALED = "resealed"
    FINE = "under the first key already"
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


async def rotate(vault: Vault) -> AsyncIterator[Progress]:
    """Seal every record under the ring's first key, page by page; yields after each page, and at least once.

    Raises `StoreUnavailable`; start again when the store is back.
    """
    kinds = await vault.kinds()
    total = sum([await vault.count(kind) for kind in kinds])
    tally: Counter[Outcome | str] = Counter()
    done = 0
    for kind in kinds:
        async for page in _pages(vault, kind):
            tally.update(await asyncio.gather(*[_reseal(vault, record) for record in page]))
            done += len(page)
            yield _progress(done, total, tally)
    yield _progress(done, total, tally)


async def _pages(vault: Vault, kind: str) -> AsyncIterator[list[Record]]:
    page: list[Record] = []
    async for record in vault.store.scan(kind):
        page.append(record)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


async def _reseal(vault: Vault, record: Record) -> Outcome | str:
    """The outcome, or the id of the key that is missing."""
    present: Record | None = record
    for attempt in count():
        if present is None:
            return Outcome.GONE
        try:
            if not vault.ring.needs_resealing(present.body):
                return Outcome.FINE
            if await vault.reseal(present):
                return Outcome.RESEALED
        except UndecryptableRecord as missing:
            return missing.key_id
        except DamagedRecord:
            return Outcome.DAMAGED
        if attempt == TRIES:
            break
        # Somebody was first, perhaps a gateway that has not read the new ring yet.
        present = await vault.store.get(record.kind, record.key)
    return Outcome.BUSY


def _progress(done: int, total: int, tally: Counter[Outcome | str]) -> Progress:
    return Progress(
        done,
        max(done, total),
        resealed=tally[Outcome.RESEALED],
        damaged=tally[Outcome.DAMAGED],
        busy=tally[Outcome.BUSY],
        missing=tuple(sorted((key, n) for key, n in tally.items() if isinstance(key, str))),
    )
