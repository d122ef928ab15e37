"""What owners hold, remembered for a moment, so that a request needs no store.

Staleness: an entry is believed for `valid` seconds (1 by default). What this process changes is seen in it at once;
what another replica changes is seen after `valid` seconds at the latest. The worst of that: a grant disconnected at
one replica is passed on for that second by another. A refresh elsewhere does no harm: the old bearer lives on.
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
    """What an owner holds, read a moment ago. Whoever keeps it sees what changes in this process: `grants` is replaced,
    and it holds no longer once the cache has let go of it."""

    grants: OwnerGrants
    disconnected: dict[str, int] = field(default_factory=dict)
    """Disconnected since it was read: id -> version, or a flight that read the store before brings it back."""


@dataclass(slots=True)
class _Load:
    task: asyncio.Task[OwnerGrants]
    is_outdated: bool = False
    """Something changed here while it read: what it read may be older."""


class GrantCache:
    """A bounded LRU of owners. `on_grants_seen` is told of each owner's grants when they are read or changed."""

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

    def cached_entry(self, owner: str) -> CachedGrants | None:
        """What is known of the owner without looking: None says to look (`for_owner`)."""
        entry, now = self._entries.get(owner), self._clock()
        if entry is None or not entry.is_valid(now, self._valid):
            return None
        if entry.needs_refresh(now):
            self._start_load(owner)
        self._entries.move_to_end(owner)
        return entry

    def get_cached(self, owner: str) -> OwnerGrants | None:
        """As `cached_entry`."""
        entry = self.cached_entry(owner)
        return None if entry is None else entry.grants

    async def for_owner(self, owner: str) -> OwnerGrants:
        """From the cache or the book; callers for one owner share one read. Raises what the book raises."""
        cached = self.get_cached(owner)
        return cached if cached is not None else await self.load(owner)

    async def load(self, owner: str) -> OwnerGrants:
        """From the book, whatever is remembered."""
        # Shielded: one caller going away must not take the answer from the others.
        return await asyncio.shield(self._start_load(owner).task)

    def _start_load(self, owner: str) -> _Load:
        load = self._loads.get(owner)
        if load is None:
            load = self._loads[owner] = _Load(asyncio.ensure_future(self._read(owner)))
            load.task.add_done_callback(_retrieve_exception)
        return load

    def put(self, grant: Grant) -> None:
        """This process has made the grant durable; a revoked one is not there any more."""
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
        """The grant, or a later version of it that this process knows of."""
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
    """Where nobody waited for it, a failure is nobody's: who asks once the entry is too old reads for himself."""
    if not task.cancelled():
        task.exception()
