"""Limits how often the app's reports of a rejected bearer start a refresh of the same grant."""

from __future__ import annotations

from collections import OrderedDict

from akoya_gateway.grants.grant import Grant

MIN_PAUSE = 60.0
"""Seconds before a second report of a dead bearer is accepted for the same grant. Doubled by each further report."""

MAX_GRANTS = 10_000


class StaleReports:
    """The latest accepted report of each grant, for at most `MAX_GRANTS` grants.

    Code 602 also means "not entitled" (docs/akoya.md section 6). Therefore only one report of the same bearer is
    accepted, and the required pause before the next report of the same grant grows with each report, up to `max_pause`.
    """

    def __init__(self, max_pause: float) -> None:
        self._max_pause = max(max_pause, MIN_PAUSE)
        self._accepted: OrderedDict[str, tuple[str, float, float]] = OrderedDict()

    def accept(self, grant: Grant, now: float) -> bool:
        """Return whether a report of the grant's current bearer may start a refresh, and remember it if so."""
        # After a failed refresh the same bearer may be reported again, because it has not been replaced.
        token = f"{hash(grant.tokens.bearer)}.{grant.failures}"
        last_token, last_at, pause = self._accepted.get(grant.id, ("", 0.0, 0.0))
        if token == last_token or now < last_at + pause:
            return False
        recent = now < last_at + 2 * self._max_pause
        self._accepted[grant.id] = (token, now, min(pause * 2 if recent and pause else MIN_PAUSE, self._max_pause))
        self._accepted.move_to_end(grant.id)
        while len(self._accepted) > MAX_GRANTS:
            self._accepted.popitem(last=False)
        return True
