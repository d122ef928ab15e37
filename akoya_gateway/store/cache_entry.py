"""Cache lifetimes for store reads: valid for 1 s, refreshed in the background after 0.8 s (stale-while-revalidate).

Refreshing before expiry means that a caller of a busy entry does not wait. If entries were only read again after
expiry, all requests of a busy session that arrive during the read would wait for the store once a second. Measured:
one in a hundred requests at 12,000 requests a second.
"""

from __future__ import annotations

from dataclasses import dataclass

VALID_SECONDS = 1.0
"""Seconds for which a cached store read is valid."""
REFRESH_FRACTION = 0.8
"""Fraction of `VALID_SECONDS` after which the next caller starts a background refresh.

That caller still uses the cached value.
"""


@dataclass(slots=True, eq=False)
class CacheEntry:
    """A cached store read with its expiry and refresh times.

    A caller that keeps the entry may use it until `refresh_at`. It must then look it up in the cache again, which may
    allow it to use the entry until `valid_until`. Both times lie in the past once the entry has been expired.
    """

    valid_until: float
    refresh_at: float

    def is_valid(self, now: float, valid: float) -> bool:
        """Return True if the entry is usable at `now`.

        Args:
            now: Unix seconds.
            valid: The lifetime that the entry was given. A remaining lifetime above it means that the clock was set
                back; the entry then counts as expired.
        """
        return 0.0 < self.valid_until - now <= valid

    def needs_refresh(self, now: float) -> bool:
        """Return True once after `refresh_at`, so that only one caller starts the refresh."""
        if now < self.refresh_at:
            return False
        self.refresh_at = self.valid_until
        return True

    def expire(self) -> None:
        """Make the entry unusable from now on."""
        self.valid_until = self.refresh_at = float("-inf")
