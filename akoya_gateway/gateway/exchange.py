"""One request to the gateway, and the ASGI `send` for its response, which is the app's or the gateway's own.

Removes hidden headers from the app's response, adds the request ID, reports the response when it starts, and closes
event streams and WebSockets that are no longer admitted.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from akoya_gateway.access.request import LoggedFields, RequestInfo
from akoya_gateway.admission.decision import Admission, Admitted
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.connection_monitor import ConnectionMonitor, MonitoredConnection
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.request_id import SCOPE_KEY
from akoya_gateway.gateway.response_abort import abort_response
from akoya_gateway.gateway.response_observer import RequestObserver
from akoya_gateway.gateway.response_policy import ResponsePolicy, rejected_token
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.observability.access_log import LoggedRequest
from akoya_gateway.responses.response import Response
from akoya_gateway.signing.header_names import REQUEST_ID
from akoya_gateway.upstream.client_send import ClientSend
from akoya_gateway.upstream.errors import StreamCancelled
from akoya_gateway.upstream.http.forwarded_headers import VIA_HEADER
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead

REFUSED = 403
"""The status that ASGI servers send when a WebSocket is closed before it was accepted."""

_BODY = "http.response.body"
_START = "http.response.start"
_REFUSAL = "websocket.http.response.start"
_CLOSE = "websocket.close"


class ExchangeHost(Protocol):
    """What an `Exchange` needs of the gateway."""

    connections: ConnectionMonitor
    response_policy: ResponsePolicy
    date_header: DateHeader | None

    observer: RequestObserver | None

    def request_of(self, scope: Scope) -> RequestInfo: ...

    def request_id(self, scope: Scope) -> bytes: ...

    def record_response(self, request: LoggedRequest, status: int, rule: str, began: float, outcome: str) -> None: ...


class Exchange(ClientSend):
    """One request. Calling it sends a message of the app's response, and `send_own` one of the gateway's own.

    Like a WebSocket, an event stream can outlive the decision that admitted it, so it is monitored in the same way.
    """

    started = False
    is_open_ended = False
    """True for an event stream that can be ended at any place, because its length was not announced."""
    runtime: Runtime | None = None
    """The runtime that admitted the request."""
    decision: Admission | None = None
    """The decision; None before it is made, and for the gateway's own routes."""
    token_rejected: bytes | None
    """The value of `Akoya-Token-Rejected` in the app's response."""
    error: GatewayError | None = None
    """The error to report as the outcome."""
    logged: LoggedRequest | None = None
    """The request to report instead of this one: for forward-auth, the original request."""
    monitored: MonitoredConnection | None
    _request: RequestInfo | None = None

    def __init__(self, gateway: ExchangeHost, scope: Scope, send: Send, began: float) -> None:
        """Initialize the exchange.

        Args:
            gateway: The gateway that handles the request.
            scope: The ASGI scope of the request.
            send: The server's `send`.
            began: The start time, for `ExchangeHost.record_response`.
        """
        self._gateway = gateway
        self._scope = scope
        self.server_send = send
        self.began = began
        self.cancelled = False
        self.monitored = None
        self.token_rejected = None
        self.request_id_header = (REQUEST_ID, scope.get(SCOPE_KEY) or gateway.request_id(scope))
        """The header line that the app and the client get."""

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

    # -- the app's response

    def __call__(self, message: Message) -> Awaitable[None]:
        """Filter a message and return the awaitable that sends it.

        Not a coroutine itself, which saves one coroutine per message.
        """
        kind = message["type"]
        if kind == _START:
            message = self._edited_start(message)
        elif self.cancelled:
            raise StreamCancelled("the bank connection of this stream has ended")
        elif kind != _BODY:
            message = self._edited_other(kind, message)
        elif self.monitored is not None and not message.get("more_body"):
            # The app may continue after its response, for example with a background task.
            self.unmonitor()
        return self.server_send(message)

    def _edited_start(self, message: Message) -> Message:
        """Return a start message as the client gets it."""
        gateway = self._gateway
        headers, stream, self.token_rejected = gateway.response_policy.edit(message.get("headers", ()))
        self.started = True
        if gateway.observer is not None:
            self.record_response(message.get("status", 101))
        is_http = message["type"] == _START
        if stream and is_http and isinstance(self.decision, Admitted) and self.decision.owner is not None:
            self.monitor()
            self.is_open_ended = not any(name.lower() == b"content-length" for name, _ in headers)
        headers.append(self.request_id_header)
        if gateway.date_header is not None and is_http:
            gateway.date_header.add_to(headers)
        # A copy, because an app may send its own message again.
        edited = {**message}
        edited["headers"] = headers
        return edited

    def start_message(self, head: CachedResponseHead) -> Message:
        headers = head.visible_headers
        headers += (VIA_HEADER, self.request_id_header)
        if not head.has_date and self._gateway.date_header is not None:
            headers.append(self._gateway.date_header.header())
        if head.hidden:
            self.token_rejected = rejected_token(head.hidden)
        self.record_response(head.status)
        return {"type": _START, "status": head.status, "headers": headers}

    def _edited_other(self, kind: str, message: Message) -> Message:
        """Return trailers or a WebSocket message as the client gets it."""
        if kind in ("websocket.accept", _REFUSAL):
            return self._edited_start(message)
        if kind == "http.response.trailers":
            headers, _, rejected = self._gateway.response_policy.edit(message.get("headers", ()))
            self.token_rejected = rejected or self.token_rejected
            return {**message, "headers": headers}
        if kind == _CLOSE and not self.started:
            self.record_response(REFUSED)
        return message

    # -- the gateway's own response

    async def respond(self, response: Response, receive: Receive) -> None:
        """Send the gateway's own response.

        A WebSocket is refused before its handshake is accepted. The client gets the HTTP response if the server
        supports that, and a plain 403 otherwise.
        """
        if self._scope["type"] != "websocket":
            await response.send(self.send_own, head=self._scope["method"] == "HEAD")
            return
        # If the WebSocket was admitted, the app has received this message already.
        if not isinstance(self.decision, Admitted) and (await receive())["type"] != "websocket.connect":
            return
        if "websocket.http.response" in (self._scope.get("extensions") or {}):
            await self.send_own({"type": _REFUSAL, "status": response.status_code, "headers": response.raw_headers})
            await self.send_own({"type": "websocket.http.response.body", "body": response.body})
        else:
            await self.send_own({"type": _CLOSE, "code": 1008})

    async def send_own(self, message: Message) -> None:
        """Send a message of the gateway's own response. Its start gets the request ID."""
        if message["type"] in (_START, _REFUSAL):
            headers = [*message["headers"], self.request_id_header]
            if self._gateway.date_header is not None and message["type"] == _START:
                self._gateway.date_header.add_to(headers)
            message = {**message, "headers": headers}
            self.record_response(message["status"])
        elif message["type"] == _CLOSE:
            self.record_response(REFUSED)
        await self.server_send(message)

    # -- both kinds of response

    def record_response(self, status: int) -> None:
        """Report that the response has started."""
        self.started = True
        if self._gateway.observer is None:
            return
        decision, outcome = self.decision, "own"
        if decision is not None:
            outcome = "passed" if isinstance(decision, Admitted) else decision.reason
        if self.error is not None:
            outcome = self.error.code
        rule = "-" if decision is None or decision.rule is None else decision.rule.label
        self._gateway.record_response(self.logged or self, status, rule, self.began, outcome)

    def monitor(self) -> None:
        """Close the connection when the request is no longer admitted."""
        self.monitored = MonitoredConnection(self.request, self._close)
        self._gateway.connections.add(self.monitored)

    def unmonitor(self) -> None:
        """Stop monitoring the connection; called when the response is complete, or the app has finished."""
        if self.monitored is not None:
            self._gateway.connections.remove(self.monitored)
            self.monitored = None

    def receive_from(self, receive: Receive) -> Receive:
        """Return a `receive` for the app of a WebSocket that does not call the server's after a refused handshake.

        Granian's worker exits if an app receives its first message after the refusal.
        """
        is_first = True

        async def receive_unless_refused() -> Message:
            nonlocal is_first
            connects, is_first = is_first, False
            if self.cancelled and self.error is not None:
                return {"type": "websocket.connect"} if connects else {"type": "websocket.disconnect", "code": 1006}
            return await receive()

        return receive_unless_refused

    async def finish(self) -> None:
        """End a cancelled response, and report tokens that Akoya rejected. Called when the app has finished.

        Raises `StreamCancelled` if only an exception makes the server abort the connection.
        """
        if self.cancelled and self._scope["type"] != "websocket":
            if self.is_open_ended:
                # The client loses nothing: an event stream has no last event, and an incomplete event is discarded
                # (HTML section 9.2.6).
                await self.server_send({"type": _BODY, "body": b"", "more_body": False})
            elif not abort_response(self.server_send):
                raise StreamCancelled
        await self._report_rejected()

    async def _close(self, code: int) -> None:
        if self.monitored is None:
            # The response was completed during the check.
            return
        if self._scope["type"] != "websocket":
            self.cancel()
            return
        self.cancelled = True
        if not self.started:
            # The handshake is refused. The app may still accept it, which then raises `StreamCancelled`.
            self.error = StreamCancelled()
            self.record_response(REFUSED)
        try:
            await self.server_send({"type": _CLOSE, "code": code, "reason": "the bank connection has ended"})
        finally:
            if self.on_cancel is not None:
                self.on_cancel()

    async def _report_rejected(self) -> None:
        """Report the tokens that Akoya rejected, according to the app's response."""
        if self.token_rejected is not None and self.runtime is not None and isinstance(self.decision, Admitted):
            for grant in self.decision.rejected_grants(self.token_rejected):
                await self.runtime.grants.report_stale(grant)


def is_disconnect(error: BaseException) -> bool:
    """Return True if an app raised this because `send` said that the client has disconnected.

    Frameworks replace the error that they get from `send`, or put it into a group.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(each) for each in error.exceptions)
    return isinstance(error, StreamCancelled | ClientDisconnect | WebSocketDisconnect)
