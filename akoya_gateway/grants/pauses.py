"""Back-off times between two uses of a refresh token, by the outcome of the last one. Pure functions."""

from __future__ import annotations

from akoya_gateway.grants.grant import Lease, Reuse

UNKNOWN_OUTCOME_PAUSE = 30.0
"""Minimum seconds between a use whose outcome is unknown and the next use of the same token."""

MAX_UNKNOWN_OUTCOMES = 8
"""Number of uses of one token with an unknown outcome after which the grant ends."""

MAX_UNUSABLE_RESPONSES = 4
"""Number up to which uses count towards `MAX_UNKNOWN_OUTCOMES` if a response was received that says nothing."""

MAX_BACK_OFF = 900.0
"""Longest back-off in seconds."""

MAX_HOLD = 1800.0
"""Maximum seconds of any pause. A longer wait was started while the clock of some replica was ahead."""

MAX_CLOCK_SKEW = 60.0
"""Seconds by which the clocks of replicas may differ without cutting pauses short."""

MAX_LEASE_AHEAD = 3600.0
"""As `MAX_HOLD`, for a lease. Longer, because if a lease ends while its replica is alive, the outcome is in doubt."""

UNTRUSTED_PAUSE, UNTRUSTED_GROWTH = 5.0, 1.5
"""Pause in seconds after the first untrusted response, and the factor for each further one.

After a fault that lasted D seconds is fixed, the user waits about D/2 seconds, and at most the longest back-off.
"""

MAX_GRANT_BACK_OFF = 60.0
"""Longest own back-off of a grant, in seconds, after the provider was down or rejected the client registration.

A longer `Retry-After` takes precedence. The limit is short because the circuit breakers (`provider_health`) already
limit the requests, and a grant should not wait long once the provider has recovered.
"""

REUSE_FRACTION = 0.75
"""The part of the grace period in which a reuse may start. The rest is a margin for the last request to arrive."""
REUSE_PAUSE = 2.0
"""Longest pause in seconds between two reuses. The first reuse is immediate."""


def back_off(failures: int, first: float, jitter: float, growth: float = 2.0) -> float:
    """Return an exponential back-off in seconds, at most `MAX_BACK_OFF`.

    The pause after the first failure is `first`; each further failure multiplies it by `growth`. `jitter` (0 to 1)
    scales the result between one half and the whole.
    """
    whole = min(first * growth ** min(failures - 1, 30), MAX_BACK_OFF)
    return whole * (0.5 + 0.5 * jitter)


def quarantine(unknowns: int, jitter: float) -> float:
    """Return the seconds to wait after an unknown outcome, at least `UNKNOWN_OUTCOME_PAUSE`.

    Jitter only adds to that minimum, because the pause ensures that two uses are not in flight at the same time.
    """
    return (
        UNKNOWN_OUTCOME_PAUSE
        + back_off(unknowns, UNKNOWN_OUTCOME_PAUSE, jitter)
        - back_off(1, UNKNOWN_OUTCOME_PAUSE, 0.0)
    )


def next_reuse(last: Reuse | None, lease: Lease | None, grace: float, now: float, jitter: float) -> Reuse | None:
    """Return when a token with an unknown outcome may be used again within the grace period, or None if that is over.

    The grace period is counted from the start of the first use, because the provider cannot have acted earlier.

    Args:
        last: The `Reuse` planned after the previous use, or None after the first use.
        lease: The lease of the first use.
        grace: The provider's grace period in seconds.
        now: The current time.
        jitter: A random number in [0, 1).
    """
    if last is not None:
        again = Reuse(now + back_off(1, REUSE_PAUSE, jitter), last.until)
    elif lease is not None:
        again = Reuse(now, lease.started_at + REUSE_FRACTION * grace)
    else:
        return None
    return again if again.at < again.until else None
