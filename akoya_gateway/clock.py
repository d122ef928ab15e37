"""The type of the clock that is passed to code that depends on the time, and waits by a clock that may be set back."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""A function that returns Unix time in seconds: `time.time` except in tests."""


def remaining(until: float, now: float, longest: float) -> float:
    """Return the seconds until `until`, or 0.0 if it is past, or more than `longest` seconds ahead.

    No wait is started with more than `longest` seconds, so a longer one was started while the clock was ahead. Without
    this limit, it would last until the corrected clock has made up for the difference, which may take days.
    """
    return until - now if now < until <= now + longest else 0.0
