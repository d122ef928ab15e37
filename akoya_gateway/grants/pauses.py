"""How long a grant waits between two uses of a refresh token, by what came of the last one. Pure."""

from __future__ import annotations

from akoya_gateway.grants.grant import Lease, Reuse

UNKNOWN_OUTCOME_PAUSE = 30.0
"""Seconds between a use whose outcome is unknown and the next use of the same token."""

MAX_UNKNOWN_OUTCOMES = 8
"""Uses of one token without a known outcome, after which the grant ends."""

MAX_BACK_OFF = 900.0

UNTRUSTED_PAUSE, UNTRUSTED_GROWTH = 5.0, 1.5
"""Seconds after the first untrusted response, and what each further one multiplies them by. A fault of D seconds is
over for the user about D/2 seconds after it has been corrected, and after the longest back-off at the latest.
"""

MAX_LEASE = 60.0
"""Seconds a grant waits after the provider was down or refused our registration. Short, because the circuit breakers
(`health`) keep the requests few, and a grant should not wait long once all is well again.
"""

REUSE_PART = 0.75
"""Part of the grace in which reuses begin; the rest is for the way of the last one."""
REUSE_PAUSE = 2.0
"""Seconds between two reuses. The first one comes at once."""


def back_off(failures: int, first: float, jitter: float, growth: float = 2.0) -> float:
    """Seconds: `first`, times `growth` for each further failure, at most `MAX_BACK_OFF`; half of it by `jitter`."""
    whole = min(first * growth ** min(failures - 1, 30), MAX_BACK_OFF)
    return whole * (0.5 + 0.5 * jitter)


def quarantine(unknowns: int, jitter: float) -> float:
    """Whole quarantine first, jitter on top: the distance is what keeps two uses from being in flight together."""
    return (
        UNKNOWN_OUTCOME_PAUSE
        + back_off(unknowns, UNKNOWN_OUTCOME_PAUSE, jitter)
        - back_off(1, UNKNOWN_OUTCOME_PAUSE, 0.0)
    )


def next_reuse(last: Reuse | None, lease: Lease | None, grace: float, now: float, jitter: float) -> Reuse | None:
    """Return when a token of unknown fate may be used again within the provider's grace, None if that is over.

    `last`: as planned after the use before this one, None for the first. The grace is counted from the start of the
    first use, which the provider cannot have acted upon earlier.
    """
    if last is not None:
        again = Reuse(now + back_off(1, REUSE_PAUSE, jitter), last.until)
    elif lease is not None:
        again = Reuse(now, lease.started_at + REUSE_PART * grace)
    else:
        return None
    return again if again.at < again.until else None
