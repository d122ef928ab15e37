"""The store interface: only the operations that grants, sessions and attempts need.

A store keeps `Record`s: an opaque, already encrypted `body` under (`kind`, `key`), with a `version` for
compare-and-set, a `group` to list by, and an expiry. The store does not depend on HTTP, OAuth or encryption. Every
operation that must be atomic is a single call. Memory, SQLite and Redis pass the same test suite (`tests/store/`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One stored record.

    `kind` is one of a few lower-case words. `key` and `group` are digests or random IDs, never names.

    A record with the empty group belongs to no group: it is found only by its key, by `scan` and by `count` of its
    kind. `version` starts at 1 and grows by 1 with every `put`. `expires_at` is Unix seconds or None. No method returns
    an expired record; the store purges it some time later.
    """

    kind: str
    key: str
    body: bytes = field(repr=False)
    version: int = 1
    group: str = ""
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoreSize:
    """How full a store is, in bytes."""

    used: int
    limit: int
    """The maximum size."""


class Store(Protocol):
    """The storage operations.

    Every method raises `errors.StoreUnavailable` if the store is unreachable, locked, full or corrupt. The outcome of
    the call is then unknown: a `put` that raised may or may not have been applied.
    """

    async def open(self) -> None:
        """Connect and create whatever is missing. Called once.

        Raises an exception if the store is permanently unusable.
        """

    async def close(self) -> None:
        """Close the store and release its resources."""
        ...

    async def check(self) -> None:
        """Do one cheap round trip that proves that reads and writes work; used by `/readyz`."""

    async def get(self, kind: str, key: str) -> Record | None:
        """Return the live record, or None."""
        ...

    async def find(self, kind: str, group: str) -> tuple[Record, ...]:
        """Return all live records of the group, ordered by key."""

    async def put(self, record: Record) -> bool:
        """Write the record by compare-and-set; it is durable when this returns True.

        `record.version` is the version to write. 1 creates the record and fails if a live one exists. n > 1 replaces
        exactly version n - 1.

        Returns:
            False if another writer was first; nothing was changed.
        """

    async def reseal(self, record: Record) -> bool:
        """Replace the body of exactly `record.version` and leave the version, group and expiry unchanged.

        Only for key rotation: the plaintext stays the same, so callers that hold this version need not be notified.
        """

    async def delete(self, kind: str, key: str, version: int | None = None) -> bool:
        """Delete the record, only at `version` if given. Return True if this call deleted it."""

    async def take(self, kind: str, key: str) -> Record | None:
        """Get and delete the record in one step: of any number of concurrent callers exactly one gets it."""

    async def changed(self, kind: str, key: str, version: int, timeout: float) -> Record | None:
        """Wait until the record is gone or has another version, and return its current state.

        Returns after `timeout` seconds in any case. Does not poll within one process; across processes it reads at most
        a few times a second.
        """

    async def count(self, kind: str, group: str | None = None) -> int:
        """Return the number of live records of the kind, or of one group of it."""

    async def kinds(self) -> tuple[str, ...]:
        """Return every kind that has records, sorted. Maintenance only: it may read the whole store."""

    async def size(self) -> StoreSize | None:
        """Return the size of the store, or None if it has no limit or does not report its size."""

    def scan(self, kind: str) -> AsyncIterator[Record]:
        """Yield every live record of a kind, in no particular order.

        Changes made during the scan may or may not be included.
        """
        ...
