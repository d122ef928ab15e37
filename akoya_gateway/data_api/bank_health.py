"""Which banks do not answer, as seen by the calls of this process. For the operator and the connections page."""

from __future__ import annotations

from datetime import UTC, datetime

from akoya_gateway.clock import Clock

DOWN_AFTER = 3
"""Number of calls in a row without a usable response after which a bank counts as not answering."""
FORGET_AFTER = 900.0
"""Seconds after the last failed call after which nothing is known about a bank any more."""


class BankHealth:
    """Counts consecutive failed calls by connector."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float, float]] = {}
        """The number of failures in a row, and the times of the first and the last."""

    def failed(self, connector: str) -> None:
        """Record a call without a usable response of the bank."""
        now = self._clock()
        count, first, last = self._failures.get(connector, (0, now, now))
        if now - last > FORGET_AFTER:
            count, first = 0, now
        self._failures[connector] = (count + 1, first, now)

    def answered(self, connector: str) -> None:
        """Record a response of the bank, also one that is an error of the request."""
        self._failures.pop(connector, None)

    def is_down(self, connector: str) -> bool:
        """Return True if the bank does not answer."""
        count, _, last = self._failures.get(connector, (0, 0.0, 0.0))
        return count >= DOWN_AFTER and self._clock() - last <= FORGET_AFTER

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each bank that does not answer, for `/readyz`."""
        return tuple(
            f"connector {name}: the bank has not answered since {_time(first)}; its connections are kept"
            for name, (_, first, _) in sorted(self._failures.items())
            if self.is_down(name)
        )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
