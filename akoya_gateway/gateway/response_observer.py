"""Reports requests to an observer when their response starts."""

from __future__ import annotations

from typing import Protocol

from starlette.types import Message, Send

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.admission.decision import Admitted, Denied
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.observability.access_log import LoggedRequest
from akoya_gateway.signing.header_names import REQUEST_ID


class RequestObserver(Protocol):
    """Called once for every request, when its response starts. Must not raise.

    `began` and `now` are the Unix times of the beginning of the request and of its response, in seconds.
    """

    def on_response(
        self, request: LoggedRequest, status: int, rule: str, outcome: str, began: float, now: float
    ) -> None: ...


REFUSED = 403
"""The status that ASGI servers send when a WebSocket is closed before it was accepted."""

_STARTS = ("http.response.start", "websocket.http.response.start")


class ObservedSend:
    """Wraps `send` for the gateway's own response to one request or WebSocket handshake."""

    __slots__ = ("_clock", "_date_header", "_observer", "_outcome", "_request", "_rule", "_send", "_started_at")

    def __init__(
        self,
        request: RequestInfo,
        send: Send,
        watcher: RequestObserver | None,
        date_header: DateHeader | None,
        clock: Clock,
        began: float,
    ) -> None:
        self._request = request
        self._send = send
        self._observer = watcher
        self._date_header = date_header
        self._clock = clock
        self._started_at = began
        self._rule = "-"
        self._outcome = "own"

    def on_original_request(self, original: RequestInfo) -> None:
        """Report the original request instead of the proxy's own; for forward-auth."""
        self._request = original

    def on_decision(self, outcome: Admitted | Denied) -> None:
        """Set the rule and the outcome to report."""
        if isinstance(outcome, Admitted):
            self.on_forwarded(outcome.rule.label)
        else:
            self._rule, self._outcome = outcome.rule.label if outcome.rule else "-", outcome.reason

    def on_forwarded(self, rule: str) -> None:
        """Record that the request was admitted under the rule with this label."""
        self._rule, self._outcome = rule, "passed"

    def on_error(self, error: GatewayError) -> None:
        """Record the error as the outcome to report."""
        self._outcome = error.code

    async def send_own(self, message: Message) -> None:
        """Send a message of the gateway's own response.

        When it starts, add the request ID and `Date`, and report the request.
        """
        if message["type"] in _STARTS:
            headers = [*message["headers"], (REQUEST_ID, self._request.request_id.encode())]
            if self._date_header is not None and message["type"] == "http.response.start":
                self._date_header.add_to(headers)
            message = {**message, "headers": headers}
            self._report(message["status"])
        elif message["type"] == "websocket.close":
            self._report(REFUSED)
        await self._send(message)

    def _report(self, status: int) -> None:
        if self._observer is not None:
            began, now = self._started_at, self._clock()
            self._observer.on_response(self._request, status, self._rule, self._outcome, began, now)
