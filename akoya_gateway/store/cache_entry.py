"""How long what was read of the store is gone by, and when it is read again: before that ends.

Whoever keeps asking never waits. Read again only once it is too old, a session in heavy use would have everything
that arrives meanwhile wait for the store, once a second: one in a hundred requests at 12,000 a second.
"""

from __future__ import annotations

from dataclasses import dataclass

VALID_SECONDS = 1.0
"""Seconds."""
REFRESH_FRACTION = 0.8
"""The part of them after which the next to ask has it read again, and goes by what there is."""


@dataclass(slots=True, eq=False)
class CacheEntry:
    """Read a moment ago. Whoever keeps it may go by it until `refresh_at` and then asks again where it came from, which
    may let it go on until `valid_until`. Both are in the past once it holds no longer."""

    valid_until: float
    refresh_at: float

    def is_valid(self, now: float, valid: float) -> bool:
        """`valid`: what it was given. More than that is left when the clock was set back."""
        return 0.0 < self.valid_until - now <= valid

    def needs_refresh(self, now: float) -> bool:
        """True once."""
        if now < self.refresh_at:
            return False
        self.refresh_at = self.valid_until
        return True

    def expire(self) -> None:
        self.valid_until = self.refresh_at = float("-inf")
