"""The app's answer on its way back to the client: our own names taken out, ended from outside where it is a stream."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.decision_cache import CachedDecision
from akoya_gateway.admission.gate import Admitted
from akoya_gateway.gateway.connection_monitor import ConnectionMonitor, MonitoredConnection
from akoya_gateway.gateway.hidden import SUSPECT, Hides
from akoya_gateway.gateway.lifespan import Message, Scope, Send
from akoya_gateway.gateway.response_observer import HasRequest
from akoya_gateway.upstream.errors import StreamCancelled
from akoya_gateway.upstream.stream_cancellation import StreamCancellation

TOKEN_REJECTED = b"akoya-token-rejected"
"""A response header by which the app says that Akoya did not take the token (401, code 602): it is refreshed."""

_EVENT_STREAM = b"text/event-stream"
_START_MESSAGES = ("http.response.start", "websocket.accept")
_HEADER_MESSAGES = ("http.response.trailers", "websocket.http.response.start")


def is_event_stream(headers: Headers) -> bool:
    """Whether the response is one that goes on and on (WHATWG HTML, server-sent events)."""
    for name, value in headers:
        if name == b"content-type":
            return value[:17].lower() == _EVENT_STREAM
    return False


class ExchangeHost(Protocol):
    """Where the request was let in: the gateway."""

    connections: ConnectionMonitor
    hides: Hides

    def request_of(self, scope: Scope) -> RequestInfo: ...

    def record_response(self, exchange: HasRequest, status: int, rule: str, began: float) -> None: ...


class ResponseFilter(StreamCancellation):
    """ASGI's `send` for the app that a request was passed on to. An event stream outlives the decision that let it in,
    as a WebSocket does: it is looked after the same way, and ended here, as an `StreamCancellation`."""

    __slots__ = (
        "_gateway",
        "_monitored",
        "_request",
        "_scope",
        "_send",
        "admission",
        "began",
        "started",
        "token_rejected",
    )

    def __init__(
        self,
        gateway: ExchangeHost,
        scope: Scope,
        send: Send,
        admission: Admitted | CachedDecision,
        began: float,
        request: RequestInfo | None = None,
    ) -> None:
        """`request`: the request that `scope` is, if somebody has read it. `began`: when it did, for
        `ExchangeHost.record_response`."""
        self.cancelled = None
        self._listeners = []
        self._gateway = gateway
        self._scope = scope
        self._send = send
        self.began = began
        self._request = request
        self._monitored: MonitoredConnection | None = None
        self.admission = admission
        self.started = False
        self.token_rejected = False

    @property
    def request(self) -> RequestInfo:
        if self._request is None:
            self._request = self._gateway.request_of(self._scope)
        return self._request

    def __call__(self, message: Message) -> Awaitable[None]:
        """Not a coroutine itself: one less to be stepped through for every message."""
        kind = message["type"]
        if kind in _START_MESSAGES:
            message = self._begin(kind, message)
        elif self.cancelled is not None:
            raise StreamCancelled("the bank connection of this stream has ended")
        elif kind in _HEADER_MESSAGES:
            message = self._filtered(message)
        return self._send(message)

    def _begin(self, kind: str, message: Message) -> Message:
        """The message as the client is to get it. One look at each header, since every answer has some."""
        self.started = True
        self._gateway.record_response(self, message.get("status", 101), self.admission.rule.label, self.began)
        stream = injected = False
        headers = message.get("headers", ())
        if type(headers) is not list:
            # Any iterable will do for ASGI, and some can be gone through once only.
            message = {**message, "headers": (headers := list(headers))}
        for name, value in headers:
            if name == b"content-type":
                stream |= value[:17].lower() == _EVENT_STREAM
            elif name[:3] in SUSPECT and self._gateway.hides(name, value):
                injected = True
        if stream and kind == "http.response.start" and self.admission.owner is not None:
            self._monitored = MonitoredConnection(self.request, self._scope["path"], self._close)
            self._gateway.connections.add(self._monitored)
        return self._filtered(message) if injected else message

    def finish(self) -> None:
        """The app is done."""
        if self._monitored is not None:
            self._gateway.connections.remove(self._monitored)

    async def _close(self, code: int) -> None:
        self.cancel(code)

    def _filtered(self, message: Message) -> Message:
        headers: Headers = list(message.get("headers", ()))
        self.token_rejected |= any(name.lower() == TOKEN_REJECTED for name, _ in headers)
        hides = self._gateway.hides
        return {**message, "headers": [pair for pair in headers if pair[0][:3] not in SUSPECT or not hides(*pair)]}
