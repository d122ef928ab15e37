"""The type of the clock that code depending on the time is given, and waits by a clock that may be set back."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""A function that returns Unix time in seconds: `time.time` except in tests."""


def remaining(until: float, now: float, longest: float) -> float:
    """Return the seconds until `until`, or 0.0 if it is past, or more than `longest` seconds ahead.

    A wait that is longer than any that is ever begun was begun while the clock was ahead. It would otherwise last until
    the corrected clock has made up for the difference, which may be days.
    """
    return until - now if now < until <= now + longest else 0.0
