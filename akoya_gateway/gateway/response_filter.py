"""Filters the app's response: removes hidden headers and closes event streams that are no longer admitted."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from starlette.types import Message, Scope, Send

from akoya_gateway.access.request import LoggedFields, RequestInfo
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.gateway.connection_monitor import ConnectionMonitor, MonitoredConnection
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.request_id import SCOPE_KEY
from akoya_gateway.gateway.response_observer import REFUSED
from akoya_gateway.gateway.response_policy import ResponsePolicy, rejected_token
from akoya_gateway.observability.access_log import LoggedRequest
from akoya_gateway.signing.header_names import REQUEST_ID
from akoya_gateway.upstream.client_send import ClientSend
from akoya_gateway.upstream.errors import StreamCancelled
from akoya_gateway.upstream.http.forwarded_headers import VIA_HEADER
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead

_START_MESSAGES = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_TRAILERS = "http.response.trailers"
_CLOSE = "websocket.close"


class ExchangeHost(Protocol):
    """What a `ResponseFilter` needs of the gateway."""

    connections: ConnectionMonitor
    response_policy: ResponsePolicy
    date_header: DateHeader | None

    def request_of(self, scope: Scope) -> RequestInfo: ...

    def request_id(self, scope: Scope) -> bytes: ...

    def record_response(self, request: LoggedRequest, status: int, rule: str, began: float) -> None: ...


class ResponseFilter(ClientSend):
    """ASGI `send` for the app that a request was forwarded to.

    An event stream outlives the decision that admitted it, like a WebSocket. It is monitored in the same way.
    """

    started = False
    is_open_ended = False
    """True for an event stream that can be ended at any place, because its length was not announced."""
    token_rejected: bytes | None = None
    """The value of `Akoya-Token-Rejected` in the app's response."""
    _monitored: MonitoredConnection | None = None

    def __init__(
        self,
        gateway: ExchangeHost,
        scope: Scope,
        send: Send,
        admission: Admitted,
        began: float,
        request: RequestInfo | None = None,
    ) -> None:
        """Initialize the filter.

        Args:
            gateway: The gateway that admitted the request.
            scope: The ASGI scope of the request.
            send: The server's `send`.
            admission: The decision.
            began: The start time, for `ExchangeHost.record_response`.
            request: The parsed `scope`, if it has been parsed already.
        """
        self._gateway = gateway
        self._scope = scope
        self.server_send = send
        self.began = began
        self._request = request
        self.request_id_header = (REQUEST_ID, scope.get(SCOPE_KEY) or gateway.request_id(scope))
        """The header line that the app and the client get."""
        self.admission = admission

    @property
    def request(self) -> RequestInfo:
        """The `RequestInfo` of this request, built on first use."""
        if self._request is None:
            self._request = self._gateway.request_of(self._scope)
        return self._request

    @property
    def raw_path(self) -> bytes:
        """The path as received."""
        return self._scope.get("raw_path") or self.request.raw_path

    def logged_fields(self) -> LoggedFields:
        """Return the fields of the access log."""
        return self.raw_path, self._scope.get("method", "GET"), self.request_id_header[1]

    def __call__(self, message: Message) -> Awaitable[None]:
        """Filter a message and return the awaitable that sends it.

        Not a coroutine itself, which saves one coroutine per message.
        """
        kind = message["type"]
        if kind in _START_MESSAGES:
            message = self._begin(kind, message)
        elif self.cancelled:
            raise StreamCancelled("the bank connection of this stream has ended")
        elif kind == _TRAILERS:
            message = self._edited_trailers(message)
        elif kind == _CLOSE and not self.started:
            self.record_response(REFUSED)
        return self.server_send(message)

    def start_message(self, head: CachedResponseHead) -> Message:
        headers = head.visible_headers
        headers += (VIA_HEADER, self.request_id_header)
        if not head.has_date and self._gateway.date_header is not None:
            headers.append(self._gateway.date_header.header())
        if head.hidden:
            self.token_rejected = rejected_token(head.hidden)
        self.record_response(head.status)
        return {"type": "http.response.start", "status": head.status, "headers": headers}

    def record_response(self, status: int) -> None:
        """Report that the response has started."""
        self.started = True
        self._gateway.record_response(self, status, self.admission.rule.label, self.began)

    def _begin(self, kind: str, message: Message) -> Message:
        """Return the start message as the client gets it.

        Goes through the headers only once, because this runs for every response.
        """
        self.record_response(message.get("status", 101))
        headers, stream, self.token_rejected = self._gateway.response_policy.edit(message.get("headers", ()))
        if stream and kind == "http.response.start" and self.admission.owner is not None:
            self._monitored = MonitoredConnection(self.request, self._close)
            self._gateway.connections.add(self._monitored)
            self.is_open_ended = not any(name.lower() == b"content-length" for name, _ in headers)
        # A new list, because an app may send its own one again.
        headers = [*headers, self.request_id_header]
        if self._gateway.date_header is not None and kind == "http.response.start":
            self._gateway.date_header.add_to(headers)
        return {**message, "headers": headers}

    def finish(self) -> None:
        """Stop monitoring the response; called when the app has finished."""
        if self._monitored is not None:
            self._gateway.connections.remove(self._monitored)

    async def _close(self, code: int) -> None:
        self.cancel()

    def _edited_trailers(self, message: Message) -> Message:
        """Return trailers as the client gets them."""
        headers, _, rejected = self._gateway.response_policy.edit(message.get("headers", ()))
        if rejected is not None:
            self.token_rejected = rejected
        return {**message, "headers": headers}
