"""Counts the grants in the store by environment, connector, state and token, and all records by kind, for metrics.

Counting reads and decrypts every grant, so one process counts for all that share the store. It claims the count with a
record that expires, and stores the result for the others to read.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from akoya_gateway.clock import Clock
from akoya_gateway.errors import UndecryptableRecord
from akoya_gateway.grants.grant import GrantState
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.encryption import DamagedRecord

KIND = "chore"
GRANTS, SESSIONS = "grant", "session"
RECORD_KINDS = ("attempt", "forwarding", GRANTS, "last_access", "login_names", "revocation", SESSIONS)
"""Kinds of the records that are created for users, including those of packages that this one does not import."""
RESULT, CLAIM = "inventory", "counting"
"""Keys of the records: the last result, and the claim of the process that counts."""

COUNT_INTERVAL = 300.0
"""Minimum seconds from one count to the next."""
MAX_SHARE = 20.0
"""Minimum pause after a count, as a multiple of the time that the count took."""
SOON = COUNT_INTERVAL
"""A token `ends_soon` if it expires within this many seconds, that is, before the next count."""
TOKENS = ("valid", "ends_soon", "expired")
"""The states of the tokens of grants that can be refreshed. An expired token is refreshed when its user comes back."""
CLAIM_SECONDS = 600.0
"""Seconds after which another process counts if the one with the claim has exited."""

BATCH, PAUSE = 100, 0.02
"""Number of grants counted without a pause (about 5 ms of CPU time), and the length of each pause in seconds."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The result of a count. `counted_at` is Unix seconds, and `seconds` is how long it took."""

    counted_at: float
    seconds: float
    grants: Mapping[tuple[str, str, str], int]
    """Number of grants by environment, connector and state. Combinations without a grant are left out."""
    tokens: Mapping[tuple[str, str, str], int]
    """Number of grants with tokens by environment, connector and one of `TOKENS`."""
    records: Mapping[str, int]
    """Number of records by kind."""


async def current_inventory(store: EncryptedStore, clock: Clock) -> Inventory | None:
    """Return the last inventory, or a new one if the last is too old. None while another process makes the first.

    Raises:
        GatewayError: The store is unavailable, for example.
    """
    try:
        record = await store.get(KIND, RESULT)
    except (UndecryptableRecord, DamagedRecord):
        # The key that encrypted the result is missing. The record never expires, so no process would count again.
        await store.delete(KIND, RESULT)
        record = None
    last = None if record is None else _decode(record)
    now = clock()
    # If the clock was set back, the last count seems to lie in the future. Count again.
    if last is not None and 0 <= now - last.counted_at < max(COUNT_INTERVAL, MAX_SHARE * last.seconds):
        return last
    if not await store.put(Record(KIND, CLAIM, b"{}", expires_at=now + CLAIM_SECONDS)):
        return last
    try:
        inventory = await _count(store, now)
        await store.put(Record(KIND, RESULT, _encode(inventory), 1 if record is None else record.version + 1))
    finally:
        await store.delete(KIND, CLAIM)
    return inventory


async def _count(store: EncryptedStore, now: float) -> Inventory:
    began = time.monotonic()
    records = {kind: await store.count(kind) for kind in RECORD_KINDS}
    found: Counter[tuple[str, str, str]] = Counter()
    tokens: Counter[tuple[str, str, str]] = Counter()
    seen = 0
    async for grant in GrantRepository(store).scan():
        found[grant.key.environment, grant.key.connector, str(grant.state)] += 1
        if grant.state is not GrantState.NEEDS_RECONNECT:
            left = grant.tokens.expires_at - now
            token = "expired" if left <= 0 else "ends_soon" if left < SOON else "valid"
            tokens[grant.key.environment, grant.key.connector, token] += 1
        seen += 1
        if seen % BATCH == 0:
            await asyncio.sleep(PAUSE)
    return Inventory(now, time.monotonic() - began, found, tokens, records)


def _encode(inventory: Inventory) -> bytes:
    document = {
        "counted_at": inventory.counted_at,
        "seconds": inventory.seconds,
        "grants": [[*key, count] for key, count in inventory.grants.items()],
        "tokens": [[*key, count] for key, count in inventory.tokens.items()],
        "records": dict(inventory.records),
    }
    return json.dumps(document).encode()


def _decode(record: Record) -> Inventory | None:
    """Return the inventory of a record, or None if another release wrote it."""
    try:
        document = json.loads(record.body)
        grants, tokens = (
            {(environment, connector, value): n for environment, connector, value, n in document[name]}
            for name in ("grants", "tokens")
        )
        return Inventory(document["counted_at"], document["seconds"], grants, tokens, document["records"])
    except (ValueError, KeyError, TypeError):
        return None
