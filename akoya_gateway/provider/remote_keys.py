"""The provider's public keys: fetched when needed, by one request for all waiting callers, and cached.

The design follows go-oidc's remote key set (`oidc/jwks.go`): a cache, a shared fetch in flight, an injected clock.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from akoya_gateway.clock import Clock, remaining
from akoya_gateway.oauth.jwks import MAX_DOCUMENT_BYTES, KeySet, UnreadableKeys, read_keys
from akoya_gateway.provider.transport import FetchFailed, get

DEFAULT_AGE = 3600.0
"""Seconds for which keys are fresh if the server does not say."""
MIN_AGE = 60.0
MAX_AGE = 86_400.0
MAX_STALE = 86_400.0
"""Seconds for which stale keys are used while the server is unreachable."""
RETRY_STALE = 30.0
RETRY_EMPTY = 1.0
FORCED_REFRESH_INTERVAL = 10.0
"""Minimum seconds between two fetches that are caused by a token that no key verifies.

The sender of a token must not be able to control the traffic to the server.
"""

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})\"?(?:$|[\s,])", re.IGNORECASE)


class KeysUnavailable(Exception):
    """No keys are available. The text does not quote the server and may be logged."""


@dataclass(frozen=True, slots=True)
class _Cached:
    keys: KeySet
    fresh_until: float


class RemoteKeySet:
    """The keys of one `jwks_uri`. Use it within one event loop, and `close` it.

    Args:
        uri: The `jwks_uri`.
        http: The HTTP client.
        clock: Used for the age of the keys.
        timeout: Seconds for one fetch.
        on_failure: Called after each fetch that failed.

    Raises:
        ValueError: The URI is neither https nor on a loopback address.
    """

    def __init__(
        self,
        uri: str,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        timeout: float = 5.0,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        if not _is_safe(uri):
            raise ValueError("jwks_uri must be https, or http on a loopback address")
        self.timeout = timeout
        self._uri = uri
        self._http = http
        self._clock = clock
        self._on_failure = on_failure
        self._cached: _Cached | None = None
        self._failure = "the provider's keys have not been fetched"
        self._retry_at = 0.0
        self._forced_at = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def current(self) -> KeySet:
        """Return the keys, from the cache while they are fresh. If fetching fails, stale keys are used for up to a day.

        Raises:
            KeysUnavailable: There are no usable keys.
        """
        now = self._clock()
        if self._cached is not None and remaining(self._cached.fresh_until, now, MAX_AGE):
            return self._cached.keys
        if not remaining(self._retry_at, now, RETRY_STALE):
            await self._fetch_once()
            now = self._clock()
        if self._cached is None or now >= self._cached.fresh_until + MAX_STALE:
            raise KeysUnavailable(self._failure)
        return self._cached.keys

    async def refresh(self) -> KeySet:
        """Fetch the keys because none of them verifies a token, at most once in 10 seconds, and return them.

        If a fetch is not allowed yet, or it fails, the cached keys are returned.

        Raises:
            KeysUnavailable: No keys are cached.
        """
        now = self._clock()
        if (
            self._fetch is not None or abs(now - self._forced_at) >= FORCED_REFRESH_INTERVAL
        ):  # the clock may be set back
            self._forced_at = now
            await self._fetch_once()
        if self._cached is None:
            raise KeysUnavailable(self._failure)
        return self._cached.keys

    async def close(self) -> None:
        """Cancel a fetch in flight; its waiters get the cached keys, or `KeysUnavailable`."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])

    async def _fetch_once(self) -> None:
        """Wait for the fetch in flight, or for a new one. Cancelling one waiter does not affect the others."""
        if self._fetch is None:
            self._fetch = asyncio.create_task(self._run(), name="akoya-gateway keys")
            self._fetch.add_done_callback(self._on_fetched)
        await asyncio.wait([self._fetch])

    def _on_fetched(self, fetch: asyncio.Task[None]) -> None:
        self._fetch = None
        if not fetch.cancelled() and (fault := fetch.exception()) is not None:
            self._failed(f"the provider's keys could not be read ({type(fault).__name__})")

    async def _run(self) -> None:
        try:
            document = await get(self._http, self._uri, MAX_DOCUMENT_BYTES, self.timeout)
            keys = read_keys(document.body)
        except (FetchFailed, UnreadableKeys) as fault:
            self._failed(f"the provider's keys are unavailable: {fault}")
            return
        self._cached = _Cached(keys, self._clock() + max_age(document.cache_control))
        self._retry_at = 0.0

    def _failed(self, detail: str) -> None:
        self._failure = detail
        self._on_failure()
        self._retry_at = self._clock() + (RETRY_EMPTY if self._cached is None else RETRY_STALE)


def max_age(cache_control: str) -> float:
    """Return the seconds for which keys are fresh by `Cache-Control` (RFC 9111 section 5.2.2): a minute to a day."""
    directives = {part.strip().lower() for part in cache_control.split(",")}
    if directives & {"no-store", "no-cache"}:
        return MIN_AGE
    found = _MAX_AGE.search(cache_control)
    return DEFAULT_AGE if found is None else min(max(float(found[1]), MIN_AGE), MAX_AGE)


def _is_safe(uri: str) -> bool:
    parts = urlsplit(uri)
    if parts.scheme == "https":
        return bool(parts.hostname)
    if parts.scheme != "http" or not parts.hostname:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
