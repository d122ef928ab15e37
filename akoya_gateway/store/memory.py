"""In-memory store for development and tests: one process, one event loop, nothing persisted."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from akoya_gateway.clock import Clock
from akoya_gateway.store.base import Record
from akoya_gateway.store.change_notifier import ChangeNotifier, Name, wait_until_changed


class MemoryStore:
    """The store of `memory://`.

    Operations are atomic because none of them awaits between reading and writing.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._records: dict[str, dict[str, Record]] = {}
        self._groups: dict[Name, set[str]] = {}
        self._ends: list[tuple[float, str, str]] = []
        self._changes = ChangeNotifier()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._changes.notify_all()

    async def check(self) -> None:
        pass

    async def size(self) -> None:
        """Return None: there is no limit but the memory of the process."""

    async def get(self, kind: str, key: str) -> Record | None:
        return self._live(kind, key)

    async def find(self, kind: str, group: str) -> tuple[Record, ...]:
        self._purge()
        keys = sorted(self._groups.get((kind, group), ()) if group else ())
        return tuple(self._records[kind][key] for key in keys)

    async def put(self, record: Record) -> bool:
        self._purge()
        present = self._live(record.kind, record.key)
        if record.version != (1 if present is None else present.version + 1):
            return False
        self._remove(present)
        self._records.setdefault(record.kind, {})[record.key] = record
        self._groups.setdefault((record.kind, record.group), set()).add(record.key)
        if record.expires_at is not None:
            heapq.heappush(self._ends, (record.expires_at, record.kind, record.key))
        self._changes.notify((record.kind, record.key))
        return True

    async def reseal(self, record: Record) -> bool:
        present = self._live(record.kind, record.key)
        if present is None or present.version != record.version:
            return False
        self._records[record.kind][record.key] = replace(present, body=record.body)
        return True

    async def delete(self, kind: str, key: str, version: int | None = None) -> bool:
        present = self._live(kind, key)
        if present is None or version not in {None, present.version}:
            return False
        self._remove(present)
        self._changes.notify((kind, key))
        return True

    async def take(self, kind: str, key: str) -> Record | None:
        present = self._live(kind, key)
        if present is not None:
            self._remove(present)
            self._changes.notify((kind, key))
        return present

    async def changed(self, kind: str, key: str, version: int, timeout: float) -> Record | None:
        with self._changes.subscribe((kind, key)) as bell:
            return await wait_until_changed(
                self.get, bell, (kind, key), version=version, timeout=timeout, clock=self._clock
            )

    async def count(self, kind: str, group: str | None = None) -> int:
        self._purge()
        if group is None:
            return len(self._records.get(kind, ()))
        return len(self._groups.get((kind, group), ())) if group else 0

    async def kinds(self) -> tuple[str, ...]:
        self._purge()
        return tuple(sorted(kind for kind, records in self._records.items() if records))

    async def scan(self, kind: str) -> AsyncIterator[Record]:
        for key in tuple(self._records.get(kind, ())):
            record = self._live(kind, key)
            if record is not None:
                yield record

    def _live(self, kind: str, key: str) -> Record | None:
        record = self._records.get(kind, {}).get(key)
        return None if record is None or self._ended(record) else record

    def _ended(self, record: Record) -> bool:
        return record.expires_at is not None and record.expires_at <= self._clock()

    def _remove(self, record: Record | None) -> None:
        if record is None:
            return
        del self._records[record.kind][record.key]
        group = self._groups[record.kind, record.group]
        group.remove(record.key)
        if not group:
            del self._groups[record.kind, record.group]

    def _purge(self) -> None:
        """Remove expired records.

        A record may have been replaced by one that expires later, so the current record is checked again.
        """
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, kind, key = heapq.heappop(self._ends)
            record = self._records.get(kind, {}).get(key)
            if record is not None and self._ended(record):
                self._remove(record)
