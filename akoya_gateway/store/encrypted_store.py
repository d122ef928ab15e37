"""The store that the rest of the gateway uses: the same methods, with plaintext bodies.

All access goes through it, so no caller can forget to encrypt.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from akoya_gateway.errors import UndecryptableRecord
from akoya_gateway.log import logger
from akoya_gateway.store.base import Record, Store, StoreSize
from akoya_gateway.store.encryption import DamagedRecord, Keyring

log = logger("akoya_gateway.store")

T = TypeVar("T")

TIMED_OPERATIONS = ("count", "delete", "find", "get", "put", "take")
"""The operations whose duration is observed. The durations of scans and of waiting for changes would mean nothing."""


NOTE_SECONDS = 600.0
"""Seconds for which a missing key is noted after a record needed it."""
MAX_NOTES = 5
"""Maximum number of missing keys that are noted."""


class EncryptedStore:
    """Wraps a `Store` and encrypts bodies on write and decrypts them on read.

    Takes and returns `Record`s with plaintext bodies. Raises what the store raises, and `UndecryptableRecord` or
    `DamagedRecord` for a body that cannot be decrypted.
    """

    __slots__ = ("_failed_at", "_observe", "keyring", "store")

    def __init__(self, store: Store, keyring: Keyring, observe: Callable[[str, float], None] | None = None) -> None:
        """Wrap `store`. `observe` is called with the operation and its seconds after each call, also a failed one."""
        self.store = store
        self.keyring = keyring
        self._observe = observe
        self._failed_at: dict[str, float] = {}
        """When a record last needed each of the missing keys, in monotonic seconds."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The keys that records needed lately and that are missing, for /readyz.

        They do not make the process unready: if the key was lost, it could never become ready again.
        """
        since = time.monotonic() - NOTE_SECONDS
        return tuple(
            f"store: {reason}, but a record was encrypted with it: put the key back, and reload"
            for reason, at in self._failed_at.items()
            if at > since
        )

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        if self._observe is None:
            return await call
        began = time.perf_counter()
        try:
            return await call
        finally:
            self._observe(operation, time.perf_counter() - began)

    async def open(self) -> None:
        await self.store.open()

    async def close(self) -> None:
        await self.store.close()

    async def check(self) -> None:
        await self.store.check()

    async def get(self, kind: str, key: str) -> Record | None:
        return self._decrypt_all(await self._timed("get", self.store.get(kind, key)))

    async def find(self, kind: str, group: str) -> tuple[Record, ...]:
        found = await self._timed("find", self.store.find(kind, group))
        return tuple([self._decrypt(record) for record in found])

    async def put(self, record: Record) -> bool:
        return await self._timed("put", self.store.put(self._encrypt(record)))

    async def delete(self, kind: str, key: str, version: int | None = None) -> bool:
        return await self._timed("delete", self.store.delete(kind, key, version))

    async def take(self, kind: str, key: str) -> Record | None:
        return self._decrypt_all(await self._timed("take", self.store.take(kind, key)))

    async def changed(self, kind: str, key: str, version: int, timeout: float) -> Record | None:
        return self._decrypt_all(await self.store.changed(kind, key, version, timeout))

    async def count(self, kind: str, group: str | None = None) -> int:
        return await self._timed("count", self.store.count(kind, group))

    async def size(self) -> StoreSize | None:
        return await self.store.size()

    async def kinds(self) -> tuple[str, ...]:
        return await self.store.kinds()

    async def scan(self, kind: str) -> AsyncIterator[Record]:
        """Yield the records that can be decrypted, and log how many could not.

        One bad record must not hide the others, so it is skipped.
        """
        shut: Counter[str] = Counter()
        async for record in self.store.scan(kind):
            try:
                opened = self._decrypt(record)
            except (UndecryptableRecord, DamagedRecord) as error:
                shut[error.detail] += 1
            else:
                yield opened
        for why, records in shut.items():
            log.error("unreadable records skipped", kind=kind, records=records, error=why)

    async def reseal(self, sealed: Record) -> bool:
        """Re-encrypt a record with the first key.

        Args:
            sealed: The record as the underlying store returned it, with its body still encrypted.

        Returns:
            True if the record is now encrypted with the first key. False if it was changed or removed meanwhile; a
            writer that changed it has already encrypted it again.
        """
        plain = self._decrypt(sealed)
        return await self.store.reseal(self._encrypt(plain))

    def _encrypt(self, record: Record) -> Record:
        return replace(record, body=self.keyring.encrypt(record.body, context(record)))

    def _decrypt(self, record: Record) -> Record:
        try:
            return replace(record, body=self.keyring.decrypt(record.body, context(record)))
        except UndecryptableRecord as missing:
            if len(self._failed_at) >= MAX_NOTES:
                self._failed_at.clear()
            self._failed_at[missing.detail] = time.monotonic()
            raise

    def _decrypt_all(self, record: Record | None) -> Record | None:
        return None if record is None else self._decrypt(record)


def context(record: Record) -> bytes:
    """Return the associated data that a body is bound to: kind, key and group.

    The group is included so that a record cannot be decrypted if an attacker with access to the store moves it to
    another owner's group.
    """
    parts = (record.kind.encode(), record.key.encode(), record.group.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
