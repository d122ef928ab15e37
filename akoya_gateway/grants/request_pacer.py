"""Taking turns, once a provider has said that it is asked too often (429): one after the other, at the given rate.

As long as nobody complains there is no queue: the limit is the provider's to know. Without one after a complaint all
who were refused come again together, and refusing is most of what the provider then does.
"""

from __future__ import annotations

from akoya_gateway.clock import Clock

PACING_SECONDS = 60.0
"""Seconds since the last complaint for which turns are taken, and until nobody is left in the queue."""


class RequestPacer:
    """The queue of this process before one environment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0
        self._next = 0.0

    def on_rate_limited(self) -> None:
        """The provider refused somebody for asking too often."""
        self._until = self._clock() + PACING_SECONDS

    def reserve(self, rate: float) -> float:
        """Seconds until the caller may ask, `rate` callers a second; 0.0: now. The turn is theirs, used or not."""
        now = self._clock()
        if now >= max(self._until, self._next):
            return 0.0
        mine = max(self._next, now)
        self._next = mine + 1.0 / rate
        return mine - now
