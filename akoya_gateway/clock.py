"""Time, handed in where it matters."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Returns Unix seconds. `time.time` outside tests."""
