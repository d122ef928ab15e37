"""When each owner was last active, for `Akoya-Last-Access`: kept in the store, written in the background.

Akoya's v3 data APIs require the time (`x-akoya-last-access`). A request of a user is itself the latest activity, so its
header needs no read. The record is for background jobs, which read it at the token endpoint: it survives restarts and
has the latest value of all replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from itertools import islice
from typing import Any

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.errors import StoreUnavailable, UndecryptableRecord
from akoya_gateway.log import logger
from akoya_gateway.sessions.random_tokens import digest
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.encryption import DamagedRecord
from akoya_gateway.tasks import cancel_and_wait, keep_running

KIND = "last_access"
FORMAT = 1

PERIOD = 60
"""Seconds to which the time is rounded down, so that the headers of an owner are prepared and stored once a minute."""

MAX_OWNERS = 50_000
"""Maximum number of owners whose last recorded time is cached."""

MAX_PENDING = 50_000
"""Maximum number of owners whose time waits to be written. If the store is down for long, the oldest are dropped."""

BATCH = 16
"""Number of records written concurrently: SQLite commits them together."""

GATHERING = 1.0
"""Seconds to wait for further owners before writing, so that they share a batch."""

RETRY_PAUSE = 5.0
"""Seconds to wait after a write failed."""

MAX_CONFLICTS = 5
"""Number of lost compare-and-set races for one owner's record after which this replica gives up."""

log = logger("akoya_gateway.sessions")


def rounded(owner: str, now: float) -> int:
    """Return the start of the owner's current period, in Unix seconds.

    Periods begin at a different second for each owner, so that the headers of all owners do not change at once.
    """
    return int(now) - (int(now) - zlib.crc32(owner.encode("utf-8", "surrogatepass"))) % PERIOD


class LastAccess:
    """Records and returns when owners were last active.

    Args:
        store: Where the records are kept.
        lifetime: Seconds for which a record is kept.
    """

    def __init__(self, store: EncryptedStore, lifetime: float) -> None:
        self._store = store
        self._lifetime = lifetime
        self._recorded: BoundedCache[str, int] = BoundedCache(MAX_OWNERS)
        self._pending: dict[str, int] = {}
        self._versions: BoundedCache[str, int] = BoundedCache(MAX_OWNERS)
        """The version of the record that was last written here: the next write needs no read."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start writing in the background."""
        self._task = asyncio.create_task(keep_running("last access", self._run), name="last access")

    async def stop(self, timeout: float = 5.0) -> None:
        """Write what is pending, for at most `timeout` seconds, and stop."""
        await cancel_and_wait(self._task)
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(timeout):
                while self._pending:
                    await self._write_batch()

    def record(self, owner: str, now: float) -> int:
        """Record that the owner is active and return the rounded time. Does no I/O."""
        at = rounded(owner, now)
        if at > self._recorded.get(owner, 0):
            self._recorded.store(owner, at)
            self._pending.pop(owner, None)
            self._pending[owner] = at
            if len(self._pending) > MAX_PENDING:
                del self._pending[next(iter(self._pending))]
            self._wake.set()
        return at

    async def get(self, owner: str) -> int | None:
        """Return when the owner was last active, in Unix seconds, or None if it is not known.

        Raises `StoreUnavailable`.
        """
        here = self._recorded.get(owner)
        with contextlib.suppress(UndecryptableRecord, DamagedRecord):
            record = await self._store.get(KIND, _key(owner))
            stored = None if record is None else _decode(record.body)
            return max((at for at in (here, stored) if at is not None), default=None)
        return here

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHERING)
            self._wake.clear()
            while self._pending:
                try:
                    await self._write_batch()
                except StoreUnavailable as error:
                    log.warning("last access not written", error=error.detail, pending=len(self._pending))
                    await asyncio.sleep(RETRY_PAUSE)

    async def _write_batch(self) -> None:
        """Write the oldest pending times. Raises `StoreUnavailable`; a time that was not written stays pending."""
        batch = dict(islice(self._pending.items(), BATCH))
        outcomes = await asyncio.gather(*(self._write(*one) for one in batch.items()), return_exceptions=True)
        for (owner, at), outcome in zip(batch.items(), outcomes, strict=True):
            # A time that failed for another reason than the store would fail again.
            if not isinstance(outcome, StoreUnavailable) and self._pending.get(owner) == at:
                del self._pending[owner]
        failures = [outcome for outcome in outcomes if outcome is not None]
        if failures:
            raise failures[0]

    async def _write(self, owner: str, at: int) -> None:
        """Write the time unless the record has a later one."""
        key = _key(owner)
        body = json.dumps({"format": FORMAT, "at": at}, separators=(",", ":")).encode()
        version = self._versions.get(owner, 0)
        if version and await self._put(owner, Record(KIND, key, body, version + 1, expires_at=at + self._lifetime)):
            return
        for _ in range(MAX_CONFLICTS):
            version = 0
            try:
                record = await self._store.get(KIND, key)
            except (UndecryptableRecord, DamagedRecord):
                # It cannot be read any more, and this time is later than any that it may contain.
                await self._store.delete(KIND, key)
                continue
            if record is not None:
                version = record.version
                stored = _decode(record.body)
                if stored is not None and stored >= at:
                    return
            if await self._put(owner, Record(KIND, key, body, version + 1, expires_at=at + self._lifetime)):
                return

    async def _put(self, owner: str, record: Record) -> bool:
        written = await self._store.put(record)
        self._versions.store(owner, record.version if written else 0)
        return written


def _key(owner: str) -> str:
    return digest("akoya-gateway last access", owner)


def _decode(body: bytes) -> int | None:
    """Return the time, or None if the record cannot be decoded or was written by a newer release."""
    try:
        document: Any = json.loads(body)
        return int(document["at"]) if document["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        return None
