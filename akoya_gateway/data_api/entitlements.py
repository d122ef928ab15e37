"""Remembers for a while which data a grant does not include, so that not every call for it refreshes the grant.

Code 602 means "token expired" and "not entitled" (docs/akoya.md section 6). A call for data that the consent does not
include is rejected with every token, and each refresh would spend a refresh token.
"""

from __future__ import annotations

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.clock import Clock

FIRST_PAUSE = 60.0
"""Seconds for which a grant is not refreshed again because of the same product. Doubled each time."""
MAX_ENTRIES = 10_000


class Entitlements:
    """Products that a fresh token was rejected for, by grant. `longest` is the longest pause in seconds."""

    def __init__(self, clock: Clock, longest: float) -> None:
        self._clock = clock
        self._longest = max(longest, FIRST_PAUSE)
        self._rejected: BoundedCache[tuple[str, str], tuple[float, float]] = BoundedCache(MAX_ENTRIES)

    def is_rejected(self, grant: str, product: str) -> bool:
        """Return True if a fresh token of the grant was rejected a short time ago."""
        found = self._rejected.get((grant, product))
        return found is not None and self._clock() < found[0]

    def reject(self, grant: str, product: str) -> None:
        """Record that a fresh token of the grant was rejected."""
        found = self._rejected.get((grant, product))
        pause = FIRST_PAUSE if found is None else min(found[1] * 2, self._longest)
        self._rejected.store((grant, product), (self._clock() + pause, pause))

    def accept(self, grant: str, product: str) -> None:
        """Record that a token of the grant was accepted."""
        self._rejected.pop((grant, product), None)
