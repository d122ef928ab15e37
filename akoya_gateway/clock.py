"""The type of the clock that is passed to code that depends on the time."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""A function that returns Unix time in seconds: `time.time` except in tests."""
