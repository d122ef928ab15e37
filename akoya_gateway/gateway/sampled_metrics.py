"""Metrics that are sampled at each scrape: pools, signing keys, grants in the store, revocations.

None of this runs per request. The functions read the objects of the active configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.upstream_router import UpstreamRouter
from akoya_gateway.grants.grant import GrantState
from akoya_gateway.grants.inventory import SESSIONS, TOKENS, Inventory, current_inventory
from akoya_gateway.observability.metrics import MAX_LABEL_SETS, Metrics
from akoya_gateway.signing.keys import LoadedKey
from akoya_gateway.store.base import StoreSize
from akoya_gateway.upstream.http.connection_pool import ConnectionPool

FIRST_COUNT_AFTER = 10.0
"""Seconds to wait after the start before counting grants, so that a restart serves requests first."""
COUNT_POLL = 60.0
"""Seconds between two reads of the last count, which another process may have made."""

Series = Iterator[tuple[tuple[str, ...], float]]


class SampledMetrics:
    """Registers the functions that sample a gateway, and keeps the count of its grants up to date."""

    def __init__(self, metrics: Metrics, gateway: Gateway, router: UpstreamRouter | None) -> None:
        self._gateway = gateway
        self._router = router
        self._inventory: Inventory | None = None
        self._size: StoreSize | None = None
        metrics.sample("grants_in_use", self._cached_owners)
        metrics.sample("grants", self._grants)
        metrics.sample("grant_tokens", self._tokens)
        metrics.sample("sessions", self._sessions)
        metrics.sample("store_records", self._records)
        metrics.sample("store_bytes", self._store_bytes)
        metrics.sample("store_max_bytes", self._store_max_bytes)
        metrics.sample("grants_counted_timestamp_seconds", self._counted_at)
        metrics.sample("revocations_waiting", self._revocations)
        metrics.sample("signing_key_start_timestamp_seconds", self._key_starts)
        metrics.sample("signing_key_end_timestamp_seconds", self._key_ends)
        metrics.sample("signing_key_signs", self._key_signs)
        metrics.sample("upstream_connections", self._connections)
        metrics.sample("upstream_connections_max", self._pool_sizes)
        metrics.sample("upstream_requests_waiting", self._waiting)
        metrics.sample("upstream_address_resting", self._resting)

    async def count_forever(self) -> None:
        """Count the grants in the background, or read what another process has counted, until cancelled."""
        await asyncio.sleep(FIRST_COUNT_AFTER)
        while True:
            await self.count()
            await asyncio.sleep(COUNT_POLL)

    async def count(self) -> None:
        """Count the grants, or read the last count. While the store is unavailable the last count is kept."""
        runtime = self._gateway.current_runtime
        if runtime is None:
            return
        try:
            self._size = await runtime.encrypted_store.size()
            self._inventory = await current_inventory(runtime.encrypted_store, runtime.clock) or self._inventory
        except GatewayError:
            # Requests and /readyz report the failure, and a metric shows the age of the count.
            return

    def _cached_owners(self) -> Series:
        runtime = self._gateway.current_runtime
        yield (), 0 if runtime is None else runtime.grants.cached_owners

    def _grants(self) -> Series:
        if self._inventory is not None:
            states = [str(state) for state in GrantState if state is not GrantState.REVOKED]
            yield from {**self._zeros(states), **self._inventory.grants}.items()

    def _tokens(self) -> Series:
        if self._inventory is not None:
            yield from {**self._zeros(TOKENS), **self._inventory.tokens}.items()

    def _zeros(self, values: Sequence[str]) -> dict[tuple[str, str, str], int]:
        """Return 0 for each connector and value, as in `entrypoints.known_series`."""
        runtime = self._gateway.current_runtime
        connectors = () if runtime is None else runtime.config.connectors.values()
        known = [(one.client.environment.name, one.key, value) for one in connectors for value in values]
        return dict.fromkeys(known if len(known) <= MAX_LABEL_SETS // 2 else (), 0)

    def _sessions(self) -> Series:
        if self._inventory is not None:
            yield (), self._inventory.records[SESSIONS]

    def _records(self) -> Series:
        if self._inventory is not None:
            yield from (((kind,), count) for kind, count in self._inventory.records.items())

    def _store_bytes(self) -> Series:
        if self._size is not None:
            yield (), self._size.used

    def _store_max_bytes(self) -> Series:
        if self._size is not None:
            yield (), self._size.limit

    def _counted_at(self) -> Series:
        if self._inventory is not None:
            yield (), self._inventory.counted_at

    def _revocations(self) -> Series:
        runtime = self._gateway.current_runtime
        yield (), 0 if runtime is None else runtime.grants.revocation_queue.waiting

    def _key_starts(self) -> Series:
        for key in self._keys():
            if key.not_before is not None:
                yield (key.id,), key.not_before

    def _key_ends(self) -> Series:
        for key in self._keys():
            yield (key.id,), float("inf") if key.not_after is None else key.not_after

    def _key_signs(self) -> Series:
        runtime = self._gateway.current_runtime
        if runtime is not None:
            signing = runtime.signing_keys.signing(runtime.clock())
            yield from (((key.id,), float(key is signing)) for key in self._keys())

    def _keys(self) -> tuple[LoadedKey, ...]:
        runtime = self._gateway.current_runtime
        return () if runtime is None else runtime.signing_keys.keys

    def _pools(self) -> Iterator[tuple[str, ConnectionPool]]:
        for pool in () if self._router is None else self._router.pools:
            yield pool.upstream.address, pool

    def _connections(self) -> Series:
        for name, pool in self._pools():
            yield (name, "in_use"), pool.size - pool.idle
            yield (name, "idle"), pool.idle

    def _pool_sizes(self) -> Series:
        for name, pool in self._pools():
            yield (name,), pool.upstream.pool

    def _waiting(self) -> Series:
        for name, pool in self._pools():
            yield (name,), pool.waiting

    def _resting(self) -> Series:
        for name, pool in self._pools():
            for origin, resting in pool.resting():
                yield (name, origin), float(resting)
