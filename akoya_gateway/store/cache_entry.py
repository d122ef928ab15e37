"""How long what was read of the store is gone by, and when it is read again: before that ends.

Whoever keeps asking never waits. Read again only once it is too old, a session in heavy use would have everything
that arrives meanwhile wait for the store, once a second: one in a hundred requests at 12,000 a second.
"""

from __future__ import annotations

from dataclasses import dataclass

VALID = 1.0
"""Seconds."""
LOOK_AGAIN = 0.8
"""The part of them after which the next to ask has it read again, and goes by what there is."""


@dataclass(slots=True, eq=False)
class Known:
    """Read a moment ago. Whoever keeps it may go by it until `look_again` and then asks again where it came from, which
    may let it go on until `valid_until`. Both are in the past once it holds no longer."""

    valid_until: float
    look_again: float

    def holds(self, now: float, valid: float) -> bool:
        """`valid`: what it was given. More than that is left when the clock was set back."""
        return 0.0 < self.valid_until - now <= valid

    def is_to_be_read_again(self, now: float) -> bool:
        """True once."""
        if now < self.look_again:
            return False
        self.look_again = self.valid_until
        return True

    def expire(self) -> None:
        self.valid_until = self.look_again = float("-inf")
