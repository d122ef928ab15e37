"""Remembers for a while which products a grant does not include, so that calls for them do not refresh it each time.

Code 602 means either "token expired" or "not entitled" (docs/akoya.md section 6). A call for data that the consent
does not include is rejected with every token, and each refresh would spend a refresh token.
"""

from __future__ import annotations

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.clock import Clock

FIRST_PAUSE = 60.0
"""Seconds for which the same product does not refresh the grant again. Doubled after each rejection."""
MAX_ENTRIES = 10_000


class Entitlements:
    """Products for which a fresh token was rejected, by grant. `longest` is the maximum pause in seconds."""

    def __init__(self, clock: Clock, longest: float) -> None:
        self._clock = clock
        self._longest = max(longest, FIRST_PAUSE)
        self._rejected: BoundedCache[tuple[str, str], tuple[float, float]] = BoundedCache(MAX_ENTRIES)

    def is_rejected(self, grant: str, product: str) -> bool:
        """Return True if a fresh token of the grant was recently rejected for the product."""
        found = self._rejected.get((grant, product))
        return found is not None and self._clock() < found[0]

    def reject(self, grant: str, product: str) -> None:
        """Record that a fresh token of the grant was rejected for the product."""
        found = self._rejected.get((grant, product))
        pause = FIRST_PAUSE if found is None else min(found[1] * 2, self._longest)
        self._rejected.store((grant, product), (self._clock() + pause, pause))

    def accept(self, grant: str, product: str) -> None:
        """Record that a token of the grant was accepted for the product."""
        self._rejected.pop((grant, product), None)
