"""A circuit breaker: after some failures in a row nobody asks for a while, then one asks for all."""

from __future__ import annotations

from collections.abc import Callable

from akoya_gateway.clock import Clock

FIRST_PAUSE = 10.0
MAX_PAUSE = 120.0
PROBE_TIMEOUT = 30.0
"""Seconds a probe may take to report. One that never does must not keep the breaker open for good."""


class CircuitBreaker:
    """Opens after `threshold` failures in a row. `on_change` is told True when it opens, False when it closes."""

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        *,
        threshold: int,
        on_change: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._random = random
        self._threshold = threshold
        self._on_change = on_change
        self._failures = 0
        self._openings = 0
        self._until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._openings > 0

    def wait(self) -> float:
        """Seconds until somebody may ask; 0.0: now."""
        return max(self._until - self._clock(), 0.0)

    def enter(self) -> bool:
        """May the caller ask? When the pause is over one caller may, and the others wait for what it learns."""
        if self.wait() > 0.0:
            return False
        if self.is_open:
            self._probing = True
            self._until = self._clock() + PROBE_TIMEOUT
        return True

    def leave(self) -> None:
        """Who entered does not ask after all: the next may."""
        if self._probing:
            self._probing, self._until = False, 0.0

    def succeeded(self) -> None:
        """The provider answered something it must have thought about."""
        was_open = self.is_open
        self._failures, self._openings, self._until, self._probing = 0, 0, 0.0, False
        if was_open:
            self._on_change(False)

    def failed(self, retry_after: float = 0.0) -> None:
        """The provider is down or silent. `retry_after`: seconds it asked for, if it did."""
        self._failures += 1
        if self._failures < self._threshold or (self.is_open and not self._probing):
            # Failures of requests that left before it opened are the same trouble, no reason for a longer pause.
            return
        self._openings += 1
        self._probing = False
        pause = min(FIRST_PAUSE * 2.0 ** min(self._openings - 1, 10), MAX_PAUSE) * (0.75 + 0.5 * self._random())
        self._until = self._clock() + max(pause, min(retry_after, MAX_PAUSE))
        if self._openings == 1:
            self._on_change(True)
