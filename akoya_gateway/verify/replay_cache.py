"""Nonces seen, so that a captured request cannot be sent twice."""

from __future__ import annotations

import threading
from collections import OrderedDict

from akoya_gateway.verify.result import NotVerified


class ReplayCache:
    """Remembers up to `capacity` nonces until their signatures have expired; safe between threads.

    One process, one cache: behind several workers use a shared one with the same `admit`. When it is full of live
    nonces the next request is refused, for forgetting one would let it be replayed: `capacity` is at least requests a
    second times `signing.expires`.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, nonce: str | None, until: float, now: float) -> None:
        """Remember `nonce` until `until`. Raises `NotVerified` when it is missing, known, or there is no room."""
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
        # Signatures of one gateway live equally long, so the oldest are in front.
        while self._seen:
            nonce, until = next(iter(self._seen.items()))
            if until > now:
                return
            del self._seen[nonce]
