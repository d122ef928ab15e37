"""Paces requests after a provider has responded with 429 (too many requests): one at a time, at a given rate.

Without a 429 there is no pacing, because only the provider knows its limit. After one, unpaced requests would all be
retried at the same time, and the provider would spend most of its time rejecting them.
"""

from __future__ import annotations

from akoya_gateway.clock import Clock

PACING_SECONDS = 60.0
"""Seconds after the last 429 during which requests are paced. Pacing continues while reserved turns remain."""


class RequestPacer:
    """Paces the requests of this process to one environment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0
        self._next = 0.0
        self._seen = 0.0

    def on_rate_limited(self) -> None:
        """Start or extend the pacing after a 429 response."""
        self._until = self._clock() + PACING_SECONDS

    def reserve(self, rate: float) -> float:
        """Reserve a turn at `rate` requests a second, and return the seconds until it; 0.0 means now.

        A turn that is not used is not given back.
        """
        now = self._clock()
        if now < self._seen:  # the clock was set back
            self._until = self._next = 0.0
        self._seen = now
        if now >= max(self._until, self._next):
            return 0.0
        mine = max(self._next, now)
        self._next = mine + 1.0 / rate
        return mine - now
