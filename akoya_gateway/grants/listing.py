"""All grants as an operator sees them: who, where, in which state, how old; no token. Streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from akoya_gateway.errors import UndecryptableRecord
from akoya_gateway.grants.grant import Grant, GrantState
from akoya_gateway.grants.refresh_policy import remedy
from akoya_gateway.grants.repository import KIND, group_of
from akoya_gateway.grants.serialization import UnreadableGrant, decode
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore, context
from akoya_gateway.store.encryption import DamagedRecord


@dataclass(frozen=True, slots=True)
class GrantSummary:
    """One grant. Times are Unix seconds."""

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
    """What `show` adds. `who` must do `what`; `lease` says who is refreshing since when until when."""

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
    """A record that cannot be shown, and why: its key is not in the ring, it is damaged, or of a newer release."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class GrantFilter:
    """Which grants; None is any. Disconnected ones, of which only a marker is left, are there if asked for."""

    owner: str | None = None
    connector: str | None = None
    state: GrantState | None = None
    environment: str | None = None

    def matches(self, grant: Grant) -> bool:
        key = grant.key
        return (
            self.owner in (None, key.owner)
            and self.connector in (None, key.connector)
            and self.environment in (None, key.environment)
            and (grant.state is self.state if self.state else grant.state is not GrantState.REVOKED)
        )


async def list_grants(store: EncryptedStore, filter_: GrantFilter) -> AsyncIterator[GrantSummary | UnreadableRecord]:
    """In no order. Raises `StoreUnavailable`; one bad record does not hide the others."""
    async for record in _records(store, filter_.owner):
        try:
            grant = _decode(store, record)
        except (UndecryptableRecord, DamagedRecord, UnreadableGrant) as error:
            yield UnreadableRecord(record.key, error.detail)
        else:
            if filter_.matches(grant):
                yield GrantSummary(**_summary(grant))


async def get_details(store: EncryptedStore, grant_id: str) -> GrantDetails | None:
    """Raises `StoreUnavailable`, `UndecryptableRecord`, `DamagedRecord`, `UnreadableGrant`."""
    record = await store.store.get(KIND, grant_id)
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


async def _records(store: EncryptedStore, owner: str | None) -> AsyncIterator[Record]:
    """As the store has them, sealed."""
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
        "id": grant.id,
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
