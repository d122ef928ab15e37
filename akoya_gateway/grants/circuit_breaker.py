"""A circuit breaker: consecutive failures block all requests for a pause, after which one request probes."""

from __future__ import annotations

from collections.abc import Callable

from akoya_gateway.clock import Clock, remaining

FIRST_PAUSE = 10.0
"""Approximate seconds for which the breaker blocks requests when it opens. Doubled by each failed probe."""
MAX_PAUSE = 120.0
"""Longest pause in seconds, before jitter."""
_LONGEST = 1.25 * MAX_PAUSE
PROBE_TIMEOUT = 30.0
"""Seconds after which another probe may start if no result was recorded. Otherwise the breaker could stay open forever.
"""


class CircuitBreaker:
    """Opens after `threshold` consecutive failures and closes on the first success.

    `on_change` is called with True when the breaker opens and with False when it closes.
    """

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
        """Whether the breaker is open, including while a probe runs."""
        return self._openings > 0

    def wait(self) -> float:
        """Return the seconds until a request may be sent; 0.0 means now."""
        return remaining(self._until, self._clock(), _LONGEST)

    def enter(self) -> bool:
        """Return True if the caller may send a request.

        After the pause one caller may send a probe. The others are rejected until its result is recorded, or until
        `PROBE_TIMEOUT`.
        """
        if self.wait() > 0.0:
            return False
        if self.is_open:
            self._probing = True
            self._until = self._clock() + PROBE_TIMEOUT
        return True

    def leave(self) -> None:
        """Undo `enter` without a request, so that the next caller may send the probe."""
        if self._probing:
            self._probing, self._until = False, 0.0

    def succeeded(self) -> None:
        """Record that the provider processed a request. Closes the breaker."""
        was_open = self.is_open
        self._failures, self._openings, self._until, self._probing = 0, 0, 0.0, False
        if was_open:
            self._on_change(False)

    def failed(self, retry_after: float = 0.0, *, opens: bool = True) -> None:
        """Record that the provider is down or did not respond.

        Args:
            retry_after: Seconds that the provider asked to wait, or 0.0.
            opens: False if this failure counts but must not open the breaker. A probe is then as in `leave`.
        """
        self._failures += 1
        if not opens:
            self.leave()
            return
        if self._failures < self._threshold or (self.is_open and not self._probing):
            # Requests sent before the breaker opened fail for the same reason and must not lengthen the pause.
            return
        self._openings += 1
        self._probing = False
        pause = min(FIRST_PAUSE * 2.0 ** min(self._openings - 1, 10), MAX_PAUSE) * (0.75 + 0.5 * self._random())
        self._until = self._clock() + max(pause, min(retry_after, MAX_PAUSE))
        if self._openings == 1:
            self._on_change(True)
