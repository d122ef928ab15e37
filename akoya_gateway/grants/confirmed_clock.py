"""Determines whether the wall clock can be trusted for actions that cannot be undone."""

from __future__ import annotations

import asyncio

from akoya_gateway.clock import Clock

TOLERANCE = 3600.0
"""Seconds by which the clock may differ from the confirmed time. NTP corrects a running clock by less."""


class ConfirmedClock:
    """Compares the wall clock with the time that has passed since tokens were last issued.

    Their id_token was valid then: its `exp` was not past, and its `iat` was not in the future. So the clock agreed with
    the provider's. Use it within one event loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset: float | None = None

    def confirm(self) -> None:
        """Record that the provider has just issued tokens that are valid at this time."""
        self._offset = self._difference()

    @property
    def is_confirmed(self) -> bool:
        """True if tokens have been issued to this process, and the clock has not been set since.

        After a suspend it is False until the next tokens, because the event loop's time may stop during a suspend.
        """
        return self._offset is not None and abs(self._difference() - self._offset) < TOLERANCE

    def _difference(self) -> float:
        return self._clock() - asyncio.get_running_loop().time()
