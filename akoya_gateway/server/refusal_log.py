"""Log lines about requests that were refused before they could be parsed: they are in no access log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from akoya_gateway.log import logger

INTERVAL = 60.0
"""Seconds between two lines about one status: clients choose how often they are refused."""

_LOG = logger("akoya_gateway.server")


class RefusalLog:
    """Writes at most one line per status and interval, with the number of requests since the last line."""

    def __init__(self, log: Any = _LOG, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._logged_at: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def add(self, status: int, reason: str) -> None:
        """Count a refused request. `reason`: one of few fixed texts."""
        count = self._counts.get(status, 0) + 1
        now = self._clock()
        if now - self._logged_at.get(status, -INTERVAL) < INTERVAL:
            self._counts[status] = count
            return
        self._counts[status] = 0
        self._logged_at[status] = now
        self._log.info("requests refused", status=status, reason=reason, requests=count)
