"""The interface for reports about requests."""

from __future__ import annotations

from typing import Protocol

from akoya_gateway.observability.access_log import LoggedRequest


class RequestObserver(Protocol):
    """Called once for every request, when its response starts, and again if it is truncated. Must not raise.

    `began` and `now` are the Unix times of the beginning of the request and of its response, in seconds.
    """

    def on_response(
        self, request: LoggedRequest, status: int, rule: str, outcome: str, began: float, now: float
    ) -> None: ...

    def on_truncated(self, rule: str, problem: str) -> None:
        """The upstream failed after its response had started. `problem` is the code of the error."""
        ...
