"""The gateway's key set, fetched and kept."""

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

from akoya_gateway.verify.keys import Key, jwks_keys
from akoya_gateway.verify.result import NotVerified

MAX_SET_BYTES = 262_144

Fetch = Callable[[str], bytes]
"""Gets the document at the URL. Raises OSError or `http.client.HTTPException` when it cannot."""


class RemoteKeys:
    """The keys of a JWK Set URL, by id; safe between threads.

    - A set is fresh for `max_age` seconds. A key that is known but no longer fresh is used while one thread fetches the
      set anew in the background; when that fails it stays in use for `stale` seconds (stale-while-error).
    - An unknown key id fetches at once, but no more often than every `throttle` seconds, whoever asks.
    - So does a known key id whose key does not verify: a key can be replaced under its id.
    - Any number of callers share one fetch.
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
        """Raises ValueError for a plain http URL that is not loopback: who can change the keys can sign. A network
        that is trusted all the same is named by `allow_plain_http`."""
        if not (allow_plain_http or _is_safe(url)):
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
        """See `KeySource.get`. May wait for a fetch; see `peek`."""
        cached = self.peek(key_id)
        if cached is not None:
            return cached
        asked_at = self._clock()
        with self._refreshing:
            # Whoever waited here finds what the flight before brought.
            if self._tried_at < asked_at and asked_at - self._tried_at >= self._throttle:
                self._refresh()
        cached = self._usable(key_id)
        if cached is None and self._clock() - self._fetched_at >= self._stale:
            raise NotVerified("keys-unavailable", f"no usable key set from {self._url}")
        return cached

    def peek(self, key_id: str, /) -> Key | None:
        """The key if it is at hand; never waits, but may start a fetch in the background."""
        cached = self._usable(key_id)
        now = self._clock()
        overdue = now - self._fetched_at >= self._max_age and now - self._tried_at >= self._throttle
        if cached is not None and overdue and self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh_and_release, name="akoya-keys", daemon=True).start()
        return cached

    def may_renew(self) -> bool:
        """Whether `renewed` would fetch now, or wait for a fetch."""
        return self._refreshing.locked() or self._may_fetch()

    def _may_fetch(self) -> bool:
        return self._clock() - self._tried_at >= self._throttle

    def renewed(self, key: Key, /) -> Key | None:
        """Another key of the same id, after at most one fetch in `throttle` seconds; None if there is none."""
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
        """Called with the flight held. What cannot be fetched or read leaves the old set in place."""
        self._tried_at = self._clock()
        try:
            keys = jwks_keys(self._fetch(self._url))
        except (OSError, HTTPException, ValueError, RecursionError):
            return
        self._keys = MappingProxyType(keys)
        self._fetched_at = self._clock()


def _is_safe(url: str) -> bool:
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
        """A key set is where it is said to be."""


def _fetcher(timeout: float) -> Fetch:
    opener = urllib.request.build_opener(_NoRedirect)

    def fetch(url: str) -> bytes:
        request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})  # noqa: S310
        with opener.open(request, timeout=timeout) as answer:
            document: bytes = answer.read(MAX_SET_BYTES + 1)
        if len(document) > MAX_SET_BYTES:
            raise ValueError("the key set is too large")
        return document

    return fetch
