"""Replay protection: remembers nonces, so that a captured request cannot be sent again."""

from __future__ import annotations

import threading
from collections import OrderedDict

from akoya_verify.result import NotVerified


class ReplayCache:
    """Remembers up to `capacity` nonces until their signatures have expired. Thread-safe.

    The cache belongs to one process. With several workers, use a shared cache with the same `admit` method.

    If the cache is full of nonces that have not expired, requests are rejected, because evicting a nonce would allow a
    replay. Set `capacity` to at least the requests per second times `signing.expires`.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, nonce: str | None, until: float, now: float) -> None:
        """Remember `nonce` until `until`.

        Raises:
            NotVerified: The nonce is missing or was used before, or the cache is full.
        """
        if not nonce:
            raise NotVerified("no-nonce", "the signature has no nonce")
        with self._lock:
            self._forget(now)
            if nonce in self._seen:
                raise NotVerified("replayed", "this signature was used before")
            if len(self._seen) >= self._capacity:
                raise NotVerified("replay-cache-full", f"{self._capacity} signatures are alive; raise `capacity`")
            self._seen[nonce] = until

    def _forget(self, now: float) -> None:
        # All signatures of one gateway have the same lifetime, so the first entries expire first.
        while self._seen:
            nonce, until = next(iter(self._seen.items()))
            if until > now:
                return
            del self._seen[nonce]
