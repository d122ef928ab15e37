"""Lists grants for operators: owner, connector, state and times, without tokens. Results are streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from akoya_gateway.errors import UndecryptableRecord
from akoya_gateway.grants.grant import Grant, GrantState, public_id, to_record_id
from akoya_gateway.grants.refresh_policy import remedy
from akoya_gateway.grants.repository import KIND, group_of
from akoya_gateway.grants.serialization import UnreadableGrant, decode
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore, context
from akoya_gateway.store.encryption import DamagedRecord


@dataclass(frozen=True, slots=True)
class GrantSummary:
    """Summary of one grant. Times are Unix seconds."""

    id: str
    owner: str
    environment: str
    client: str
    connector: str
    state: GrantState
    reason: str | None
    connected_at: float
    refreshed_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class GrantDetails(GrantSummary):
    """The details of one grant, for `grants show`.

    `who` is the party that has to act, and `what` is the instruction. `lease` is the holder, start and expiry of the
    current lease, or None.
    """

    sub: str
    consent_id: str | None
    scope: tuple[str, ...]
    has_refresh_token: bool
    version: int
    failures: int
    unknowns: int
    retry_at: float
    lease: tuple[str, float, float] | None
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that cannot be read, and why.

    Its key is not in the key ring, it is damaged, or it was written by a newer release.
    """

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class GrantFilter:
    """Selects grants. None matches any value.

    Disconnected grants, of which only a tombstone is left, match only if `state` is `REVOKED`.
    """

    owner: str | None = None
    connector: str | None = None
    state: GrantState | None = None
    environment: str | None = None

    def matches(self, grant: Grant) -> bool:
        """Return True if the filter selects the grant."""
        key = grant.key
        return (
            self.owner in (None, key.owner)
            and self.connector in (None, key.connector)
            and self.environment in (None, key.environment)
            and (grant.state is self.state if self.state else grant.state is not GrantState.REVOKED)
        )


async def list_grants(store: EncryptedStore, filter_: GrantFilter) -> AsyncIterator[GrantSummary | UnreadableRecord]:
    """Yield the selected grants in no particular order.

    An unreadable record is yielded as an `UnreadableRecord` and does not stop the listing.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    async for record in _records(store, filter_.owner):
        try:
            grant = _decode(store, record)
        except (UndecryptableRecord, DamagedRecord, UnreadableGrant) as error:
            yield UnreadableRecord(public_id(record.key), error.detail)
        else:
            if filter_.matches(grant):
                yield GrantSummary(**_summary(grant))


async def get_details(store: EncryptedStore, grant_id: str) -> GrantDetails | None:
    """Return the details of a grant, or None if there is no such record. Accepts both forms of its ID.

    Raises:
        StoreUnavailable: The store cannot be read.
        UndecryptableRecord: The key of the record is not in the key ring.
        DamagedRecord: The record is damaged.
        UnreadableGrant: The record was written by a newer release or is not a grant.
    """
    record = await store.store.get(KIND, to_record_id(grant_id))
    if record is None:
        return None
    grant = _decode(store, record)
    advised, lease = remedy(grant.state, grant.reason), grant.lease
    return GrantDetails(
        **_summary(grant),
        sub=grant.key.sub,
        consent_id=grant.tokens.consent_id,
        scope=grant.tokens.scope,
        has_refresh_token=grant.tokens.refresh_token is not None,
        version=grant.version,
        failures=grant.failures,
        unknowns=grant.unknowns,
        retry_at=grant.retry_at,
        lease=None if lease is None else (lease.holder, lease.started_at, lease.expires_at),
        who=advised.who.value,
        what=advised.what,
    )


async def find_ids(store: EncryptedStore, prefix: str) -> tuple[str, ...]:
    """Return the IDs of the grants whose ID, in one of its forms, begins with `prefix`. Decrypts nothing.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    exact = await store.store.get(KIND, to_record_id(prefix))
    if exact is not None:
        return (public_id(exact.key),)
    found = []
    async for record in store.store.scan(KIND):
        shown = public_id(record.key)
        if shown.startswith(prefix) or record.key.startswith(prefix):
            found.append(shown)
    return tuple(sorted(found))


async def _records(store: EncryptedStore, owner: str | None) -> AsyncIterator[Record]:
    """Yield the encrypted records, of one owner or of all."""
    if owner is not None:
        for record in await store.store.find(KIND, group_of(owner)):
            yield record
        return
    async for record in store.store.scan(KIND):
        yield record


def _decode(store: EncryptedStore, record: Record) -> Grant:
    plain = replace(record, body=store.keyring.decrypt(record.body, context(record)))
    return decode(plain.body, plain.version)


def _summary(grant: Grant) -> dict[str, Any]:
    key = grant.key
    return {
        "id": grant.public_id,
        "owner": key.owner,
        "environment": key.environment,
        "client": key.client,
        "connector": key.connector,
        "state": grant.state,
        "reason": grant.reason,
        "connected_at": grant.connected_at,
        "refreshed_at": grant.refreshed_at,
        "expires_at": grant.tokens.expires_at,
    }
