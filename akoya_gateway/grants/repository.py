"""Typed access to the grants in the encrypted store. Every write is a compare-and-set on the grant's version."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants
from akoya_gateway.grants.serialization import UnreadableGrant, decode, encode
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore

KIND = "grant"

TOMBSTONE_LIFETIME = 86400.0
"""Seconds for which the tombstone of a revoked grant is kept, so that a late writer finds it."""


class GrantRepository:
    """Reads and writes grants.

    Every method raises `errors.StoreUnavailable`. Methods that read also raise `UndecryptableRecord` and
    `UnreadableGrant`.
    """

    __slots__ = ("_store",)

    def __init__(self, store: EncryptedStore) -> None:
        self._store = store

    async def for_owner(self, owner: str) -> OwnerGrants:
        """Return the owner's grants without revoked ones, most recently connected first."""
        records = await self._store.find(KIND, group_of(owner))
        grants = [grant for grant in map(_grant, records) if grant.state is not GrantState.REVOKED]
        grants.sort(key=lambda grant: (-grant.connected_at, grant.id))
        return OwnerGrants(owner, tuple(grants))

    async def get(self, grant_id: str) -> Grant | None:
        """Return the grant, or None. A revoked grant is returned while its tombstone is kept."""
        record = await self._store.get(KIND, grant_id)
        return None if record is None else _grant(record)

    async def write(self, grant: Grant, *, after: int, now: float = 0.0) -> Grant | None:
        """Write the grant in place of version `after`, and return it with its new version.

        The write is durable when this returns.

        Args:
            grant: The grant to write.
            after: The version to replace; 0 if the record must not exist yet.
            now: Used for a revoked grant only: its tombstone expires `TOMBSTONE_LIFETIME` seconds later.

        Returns:
            The written grant, or None if the record in the store has another version.
        """
        written = replace(grant, version=after + 1)
        ends = now + TOMBSTONE_LIFETIME if grant.state is GrantState.REVOKED else None
        record = Record(KIND, grant.id, encode(written), written.version, group_of(grant.key.owner), ends)
        return written if await self._store.put(record) else None

    async def wait_for_change(self, grant: Grant, timeout: float) -> Grant | None:
        """Wait at most `timeout` seconds for another version of `grant`, and return what the store then contains."""
        record = await self._store.changed(KIND, grant.id, grant.version, timeout)
        return None if record is None else _grant(record)

    async def scan(self) -> AsyncIterator[Grant]:
        """Yield all readable grants of all owners, without revoked ones and in no particular order."""
        async for record in self._store.scan(KIND):
            with contextlib.suppress(UnreadableGrant):  # Written by a newer release, which handles it.
                grant = _grant(record)
                if grant.state is not GrantState.REVOKED:
                    yield grant

    async def purge_tombstones(self, now: float) -> None:
        """Delete the tombstones of revoked grants that are past half of their lifetime.

        Only tombstones have an expiry time. In Redis, an expired record stays in its owner's index until that owner is
        next looked up, which never happens for most of these owners.
        """
        async for record in self._store.store.scan(KIND):
            if record.expires_at is not None and record.expires_at - now < TOMBSTONE_LIFETIME / 2:
                await self._store.delete(KIND, record.key, record.version)


def group_of(owner: str) -> str:
    """Return the digest of the owner that the store uses as the group. The owner itself may be a user name."""
    digest = hashlib.sha256(b"akoya-gateway owner\0" + owner.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def _grant(record: Record) -> Grant:
    return decode(record.body, record.version)
