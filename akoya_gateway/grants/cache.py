"""A short-lived cache of each owner's grants, so that most requests need no store access.

An entry is valid for `valid` seconds (1 by default). Changes made by this process are visible at once, changes made by
another replica after `valid` seconds at the latest. The worst effect is that the tokens of a grant disconnected at one
replica are still passed on by another for that second. A refresh by another replica does no harm, because the old
bearer remains valid.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from akoya_gateway.clock import Clock
from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.store.cache_entry import REFRESH_FRACTION, VALID_SECONDS, CacheEntry


@dataclass(slots=True, eq=False)
class CachedGrants(CacheEntry):
    """A cache entry: one owner's grants. Callers may keep it.

    The cache replaces `grants` when this process changes one of them, and expires the entry when it evicts or replaces
    it.
    """

    grants: OwnerGrants
    disconnected: dict[str, int] = field(default_factory=dict)
    """Versions of the grants disconnected since the entry was read, by ID.

    Without this, a refresh that had read the store earlier could put such a grant back.
    """


@dataclass(slots=True)
class _Load:
    task: asyncio.Task[OwnerGrants]
    is_outdated: bool = False
    """Whether this process changed a grant of the owner during the read, so that the result may be stale."""


class GrantCache:
    """An LRU cache of at most `max_entries` owners.

    `on_grants_seen` is called with an owner's grants when they are read or changed.
    """

    def __init__(
        self,
        repository: GrantRepository,
        clock: Clock,
        *,
        valid: float = VALID_SECONDS,
        max_entries: int = 20_000,
        on_grants_seen: Callable[[OwnerGrants], None] = lambda _: None,
    ) -> None:
        self._repository = repository
        self._clock = clock
        self._valid = valid
        self._max_entries = max_entries
        self._on_grants_seen = on_grants_seen
        self._entries: OrderedDict[str, CachedGrants] = OrderedDict()
        self._loads: dict[str, _Load] = {}

    def __len__(self) -> int:
        """Return the number of owners in the cache."""
        return len(self._entries)

    def cached_entry(self, owner: str) -> CachedGrants | None:
        """Return the valid cache entry of the owner, or None. Does not block; on None, call `for_owner`.

        Starts a refresh in the background if the entry is about to expire.
        """
        entry, now = self._entries.get(owner), self._clock()
        if entry is None or not entry.is_valid(now, self._valid):
            return None
        if entry.needs_refresh(now):
            self._start_load(owner)
        self._entries.move_to_end(owner)
        return entry

    def get_cached(self, owner: str) -> OwnerGrants | None:
        """Return the cached grants of the owner, or None. See `cached_entry`."""
        entry = self.cached_entry(owner)
        return None if entry is None else entry.grants

    async def for_owner(self, owner: str) -> OwnerGrants:
        """Return the owner's grants from the cache or the repository.

        Concurrent callers for one owner share one read. Raises what `GrantRepository.for_owner` raises.
        """
        cached = self.get_cached(owner)
        return cached if cached is not None else await self.load(owner)

    async def load(self, owner: str) -> OwnerGrants:
        """Return the owner's grants from the repository, regardless of the cache."""
        # Shielded: cancelling one caller must not cancel the read that others share.
        return await asyncio.shield(self._start_load(owner).task)

    def _start_load(self, owner: str) -> _Load:
        load = self._loads.get(owner)
        if load is None:
            load = self._loads[owner] = _Load(asyncio.ensure_future(self._read(owner)))
            load.task.add_done_callback(_retrieve_exception)
        return load

    def put(self, grant: Grant) -> None:
        """Update the cache with a grant as it is in the store, unless the cache has a newer version.

        A revoked grant is removed from the owner's entry.
        """
        owner = grant.key.owner
        load = self._loads.get(owner)
        if load is not None:
            load.is_outdated = True
        entry = self._entries.get(owner)
        if entry is None:
            return
        cached = next((other for other in entry.grants.grants if other.id == grant.id), None)
        if cached is not None and cached.version > grant.version:
            return
        if entry.disconnected.get(grant.id, 0) >= grant.version:
            return
        others = [other for other in entry.grants.grants if other.id != grant.id]
        if grant.state is GrantState.REVOKED:
            entry.disconnected[grant.id] = grant.version
        else:
            others.append(grant)
            others.sort(key=lambda each: (-each.connected_at, each.id))
        entry.grants = OwnerGrants(owner, tuple(others))
        self._on_grants_seen(entry.grants)

    def newest(self, grant: Grant) -> Grant:
        """Return the cached version of the grant if it is newer than `grant`, otherwise `grant`."""
        entry = self._entries.get(grant.key.owner)
        for cached in entry.grants.grants if entry is not None else ():
            if cached.id == grant.id and cached.version > grant.version:
                return cached
        return grant

    async def _read(self, owner: str) -> OwnerGrants:
        load = self._loads[owner]
        try:
            while True:
                load.is_outdated = False
                grants = await self._repository.for_owner(owner)
                if not load.is_outdated:
                    self._store(grants)
                    return grants
        finally:
            if self._loads.get(owner) is load:
                del self._loads[owner]

    def _store(self, grants: OwnerGrants) -> None:
        before = self._entries.get(grants.owner)
        if before is not None:
            before.expire()
        now = self._clock()
        self._entries[grants.owner] = CachedGrants(now + self._valid, now + REFRESH_FRACTION * self._valid, grants)
        self._entries.move_to_end(grants.owner)
        while len(self._entries) > self._max_entries:
            _, oldest = self._entries.popitem(last=False)
            oldest.expire()
        self._on_grants_seen(grants)


def _retrieve_exception(task: asyncio.Task[OwnerGrants]) -> None:
    """Retrieve the exception so that asyncio does not log it when no caller waits. The next caller retries the read."""
    if not task.cancelled():
        task.exception()
