"""Logs and counts requests that were refused before they could be parsed, and so are not in the access log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from akoya_gateway.log import logger

INTERVAL = 60.0
"""Seconds between two events of one reason. The limit exists because clients control how often they are refused."""

PARSER_LIMITS = {
    "head too large": "header_bytes",
    "head too slow": "head_seconds",
    "too many header fields": "header_fields",
    "too many pipelined requests": "pipelined_requests",
    "trailers or chunk extensions too large": "trailer_bytes",
}
"""The limits by the reason of a refusal. Requests with another reason were malformed."""

_LOG = logger("akoya_gateway.server")


class RefusalLog:
    """Log at most one event per reason and interval, with the number of requests since the last one."""

    def __init__(
        self,
        log: Any = _LOG,
        clock: Callable[[], float] = time.monotonic,
        count: Callable[..., None] = lambda *_: None,
    ) -> None:
        """Create the log. `count` is `Metrics.increment`, and is called for each refusal."""
        self._log = log
        self._count = count
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, status: int, reason: str) -> None:
        """Count a refused request. `reason` is one of a few fixed texts."""
        limit = PARSER_LIMITS.get(reason)
        self._count(*(("malformed_requests",) if limit is None else ("limit_refusals", limit)))
        count = self._counts.get(reason, 0) + 1
        now = self._clock()
        if now - self._logged_at.get(reason, -INTERVAL) < INTERVAL:
            self._counts[reason] = count
            return
        self._counts[reason] = 0
        self._logged_at[reason] = now
        self._log.info("requests refused", status=status, reason=reason, requests=count)
