"""Fetches and caches the gateway's JWK Set."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from akoya_verify.keys import Key, jwks_keys
from akoya_verify.result import NotVerified

MAX_SET_BYTES = 262_144

Fetch = Callable[[str], bytes]
"""Fetches the document at a URL. Raises OSError or `http.client.HTTPException` on failure."""


class RemoteKeys:
    """The keys of a JWK Set URL, by ID. Thread-safe.

    - A set is fresh for `max_age` seconds. After that its keys are still used while one thread refreshes the set in the
      background. If that fails, they stay in use until the set is `stale` seconds old (stale-if-error).
    - An unknown key ID causes an immediate fetch, at most one every `throttle` seconds for all callers.
    - A cached key that does not verify a signature does the same, because a key can be replaced under the same ID.
    - Concurrent callers share one fetch.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age: float = 300.0,
        stale: float = 86_400.0,
        throttle: float = 10.0,
        timeout: float = 5.0,
        allow_plain_http: bool = False,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the key source. Does not fetch.

        Args:
            url: Must be https, or http on loopback: an attacker who can change the keys can sign requests.
            max_age: Seconds until a set is refreshed.
            stale: Seconds until a set is no longer used.
            throttle: Minimum seconds between two fetches.
            timeout: Seconds for connecting and for each read.
            allow_plain_http: Allows http on a trusted network.
            fetch: Replaces the built-in HTTP client.
            clock: Returns monotonic seconds.

        Raises:
            ValueError: The URL is plain http and not loopback.
        """
        if not (allow_plain_http or is_safe_url(url)):
            raise ValueError(f"{url}: fetch keys over https (or say allow_plain_http=True)")
        self._url = url
        self._max_age = max_age
        self._stale = stale
        self._throttle = throttle
        self._fetch = fetch or _fetcher(timeout)
        self._clock = clock
        self._keys: Mapping[str, Key] = MappingProxyType({})
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._refreshing = threading.Lock()

    def get(self, key_id: str, /) -> Key | None:
        """Return the key with this ID, or None (see `KeySource.get`). May block for a fetch. `peek` does not."""
        cached = self.peek(key_id)
        if cached is not None:
            return cached
        asked_at = self._clock()
        with self._refreshing:
            # A caller that waited for another caller's fetch uses its result.
            if self._tried_at < asked_at and asked_at - self._tried_at >= self._throttle:
                self._refresh()
        cached = self._usable(key_id)
        if cached is None and self._clock() - self._fetched_at >= self._stale:
            raise NotVerified("keys-unavailable", f"no usable key set from {self._url}")
        return cached

    def peek(self, key_id: str, /) -> Key | None:
        """Return the key if it is cached. Does not block, but may start a refresh in the background."""
        cached = self._usable(key_id)
        now = self._clock()
        overdue = now - self._fetched_at >= self._max_age and now - self._tried_at >= self._throttle
        if cached is not None and overdue and self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh_and_release, name="akoya-keys", daemon=True).start()
        return cached

    def may_renew(self) -> bool:
        """Return whether `renewed` would block, to fetch or to wait for a fetch."""
        return self._refreshing.locked() or self._may_fetch()

    def _may_fetch(self) -> bool:
        return self._clock() - self._tried_at >= self._throttle

    def renewed(self, key: Key, /) -> Key | None:
        """Return a key that has replaced `key` under the same ID, or None.

        Fetches the set first, but at most once in `throttle` seconds.
        """
        with self._refreshing:
            if self._may_fetch():
                self._refresh()
        cached = self._usable(key.id)
        return None if cached is key else cached

    def _usable(self, key_id: str) -> Key | None:
        return self._keys.get(key_id) if self._clock() - self._fetched_at < self._stale else None

    def _refresh_and_release(self) -> None:
        try:
            self._refresh()
        finally:
            self._refreshing.release()

    def _refresh(self) -> None:
        """Fetch the set, or keep the old one if that fails. The caller holds `_refreshing`."""
        self._tried_at = self._clock()
        try:
            keys = jwks_keys(self._fetch(self._url))
        except (OSError, HTTPException, ValueError, RecursionError):
            return
        self._keys = MappingProxyType(keys)
        self._fetched_at = self._clock()


def is_safe_url(url: str) -> bool:
    """Return whether a URL is https, or http on loopback."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    if host == "localhost":
        return parts.scheme == "http"
    try:
        return parts.scheme == "http" and ip_address(host).is_loopback
    except ValueError:
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirects: the key set must be at the configured URL."""


def _fetcher(timeout: float) -> Fetch:
    opener = urllib.request.build_opener(_NoRedirect)

    def fetch(url: str) -> bytes:
        request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})  # noqa: S310
        with opener.open(request, timeout=timeout) as response:
            document: bytes = response.read(MAX_SET_BYTES + 1)
        if len(document) > MAX_SET_BYTES:
            raise ValueError("the key set is too large")
        return document

    return fetch
