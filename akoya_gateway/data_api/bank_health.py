"""Tracks which banks fail to respond to the calls of this process, for `/readyz` and the connections page."""

from __future__ import annotations

from datetime import UTC, datetime

from akoya_gateway.clock import Clock

DOWN_AFTER = 3
"""Number of consecutive calls without a usable response after which a bank counts as down."""
FORGET_AFTER = 900.0
"""Seconds for which the failures of a bank are remembered after the last of them."""


class BankHealth:
    """Counts consecutive failed calls per connector."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float, float]] = {}
        """By connector: the number of consecutive failures, and the times of the first and the last."""

    def failed(self, connector: str) -> None:
        """Record a call to which the bank returned no usable response."""
        now = self._clock()
        count, first, last = self._failures.get(connector, (0, now, now))
        if now - last > FORGET_AFTER:
            count, first = 0, now
        self._failures[connector] = (count + 1, first, now)

    def record_response(self, connector: str) -> None:
        """Record a response of the bank. An error about the request counts as a response too."""
        self._failures.pop(connector, None)

    def is_down(self, connector: str) -> bool:
        """Return True if the last `DOWN_AFTER` calls or more have failed."""
        count, _, last = self._failures.get(connector, (0, 0.0, 0.0))
        return count >= DOWN_AFTER and self._clock() - last <= FORGET_AFTER

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each bank that is down, for `/readyz`."""
        return tuple(
            f"connector {name}: the bank has not responded since {_time(first)}; its connections are kept"
            for name, (_, first, _) in sorted(self._failures.items())
            if self.is_down(name)
        )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
