"""The grants in the vault, typed. Every write is a compare-and-set on the grant's version."""

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
"""Seconds for which the marker of a revoked grant stays, so that a late writer finds it."""


class GrantRepository:
    """Every verb raises `errors.StoreUnavailable`; those that read also `UndecryptableRecord`, `UnreadableGrant`."""

    __slots__ = ("_store",)

    def __init__(self, store: EncryptedStore) -> None:
        self._store = store

    async def for_owner(self, owner: str) -> OwnerGrants:
        """The owner's grants, most recently connected first; revoked ones are not there any more."""
        records = await self._store.find(KIND, group_of(owner))
        grants = [grant for grant in map(_grant, records) if grant.state is not GrantState.REVOKED]
        grants.sort(key=lambda grant: (-grant.connected_at, grant.id))
        return OwnerGrants(owner, tuple(grants))

    async def get(self, grant_id: str) -> Grant | None:
        """Also one that is revoked, while its marker stays."""
        record = await self._store.get(KIND, grant_id)
        return None if record is None else _grant(record)

    async def write(self, grant: Grant, *, after: int, now: float = 0.0) -> Grant | None:
        """Durable when it returns: the grant with its new version, in place of exactly version `after` (0: none).
        None: somebody else was first. `now` matters for a revoked grant only: its marker ends some time after.
        """
        written = replace(grant, version=after + 1)
        ends = now + TOMBSTONE_LIFETIME if grant.state is GrantState.REVOKED else None
        record = Record(KIND, grant.id, encode(written), written.version, group_of(grant.key.owner), ends)
        return written if await self._store.put(record) else None

    async def wait_for_change(self, grant: Grant, timeout: float) -> Grant | None:
        """Wait until the grant in the store is another than `grant`, at most `timeout` seconds; what is there then."""
        record = await self._store.changed(KIND, grant.id, grant.version, timeout)
        return None if record is None else _grant(record)

    async def scan(self) -> AsyncIterator[Grant]:
        """All grants of all owners that can be read, streamed, in no order; without revoked ones."""
        async for record in self._store.scan(KIND):
            with contextlib.suppress(UnreadableGrant):  # of a newer release, which will look after it
                grant = _grant(record)
                if grant.state is not GrantState.REVOKED:
                    yield grant


    async def purge_tombstones(self, now: float) -> None:
        """Remove the markers of revoked grants (no other grant has an end) that have stood for half their time. What
        ends by itself stays on its owner's list in Redis until somebody looks, and at most of these nobody will.
        """
        async for record in self._store.store.scan(KIND):
            if record.expires_at is not None and record.expires_at - now < TOMBSTONE_LIFETIME / 2:
                await self._store.delete(KIND, record.key, record.version)


def group_of(owner: str) -> str:
    """An owner may be a user's name: the store sees a digest of it."""
    digest = hashlib.sha256(b"akoya-gateway owner\0" + owner.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def _grant(record: Record) -> Grant:
    return decode(record.body, record.version)
