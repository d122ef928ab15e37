"""The store, as small as the grant's life allows.

A store keeps `Record`s: an opaque, already sealed `body` under (`kind`, `key`), with a `version` for
compare-and-set, a `group` to list by, and an end. It knows nothing of HTTP, OAuth or encryption. Whatever must be
atomic is one call. Memory, SQLite and Redis pass one and the same suite (`tests/store/`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """`kind` is one of a handful of lower-case words, `key` and `group` are digests or random ids, never names.

    The empty group is none: such a record is found by its key, by `scan` and by `count` of its kind.
    `version` starts at 1 and grows by 1 with every `put`. `expires_at` is Unix seconds or None; an expired record
    is never returned, by any verb, and is purged some time later.
    """

    kind: str
    key: str
    body: bytes = field(repr=False)
    version: int = 1
    group: str = ""
    expires_at: float | None = None


class Store(Protocol):
    """Every verb raises `errors.StoreUnavailable` when the store cannot be reached, locked out, full or corrupt,
    and then nothing has been promised: a `put` that raised may or may not have happened.
    """

    async def open(self) -> None:
        """Connect, create what is missing. Called once; raises when the store is unusable for good."""

    async def close(self) -> None: ...

    async def check(self) -> None:
        """One cheap round trip that proves reads and writes work; for `/readyz`."""

    async def get(self, kind: str, key: str) -> Record | None: ...

    async def find(self, kind: str, group: str) -> tuple[Record, ...]:
        """All live records of the group, ordered by key."""

    async def put(self, record: Record) -> bool:
        """Compare-and-set, durable when it returns True.

        `record.version` is the version to be written: 1 creates and fails if a live record is there; n > 1
        replaces exactly version n - 1. False: somebody else was first, nothing changed.
        """

    async def reseal(self, record: Record) -> bool:
        """Replace the body of exactly `record.version` and leave the version, group and end as they are. For key
        rotation alone: what the body says is the same, so nobody who holds that version is disturbed.
        """

    async def delete(self, kind: str, key: str, version: int | None = None) -> bool:
        """Remove the record (only at `version`, if given). True if it was there and is gone."""

    async def take(self, kind: str, key: str) -> Record | None:
        """Get and delete in one step: of any number of callers exactly one gets it."""

    async def changed(self, kind: str, key: str, version: int, timeout: float) -> Record | None:
        """Wait until the record's version is no longer `version` (or it is gone), at most `timeout` seconds, and
        return what is there then. Within one process no polling; across processes at most a few reads a second.
        """

    async def count(self, kind: str, group: str | None = None) -> int:
        """How many live records there are of the kind, or of the group."""

    async def kinds(self) -> tuple[str, ...]:
        """Every kind that there are records of, in order. Maintenance only: it may look at the whole store."""

    def scan(self, kind: str) -> AsyncIterator[Record]:
        """Every live record of a kind, streamed, in no order; changes meanwhile may or may not be seen."""
        ...
