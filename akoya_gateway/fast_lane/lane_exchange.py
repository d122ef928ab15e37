"""One proxied request of the fast lane: writes the upstream's response to the client's connection."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from akoya_gateway.access.request import Headers, LoggedFields, RequestInfo
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.lane import Dispatch, FastLane
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget
from akoya_gateway.gateway.connection_monitor import MonitoredConnection
from akoya_gateway.gateway.request_id import SCOPE_KEY, value_in
from akoya_gateway.gateway.response_policy import rejected_token
from akoya_gateway.upstream.http.forwarded_headers import VIA
from akoya_gateway.upstream.http.interfaces import ResponseHandler
from akoya_gateway.upstream.http.response_head import ResponseHead
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead

_VIA_LINE = b"via: " + VIA + b"\r\n"


class ClientConnection(Protocol):
    """The client's connection, as used by its exchanges."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState

    def make_scope(self, headers: Headers) -> Scope: ...

    def detach(self) -> None: ...

    def on_response_sent(self) -> None: ...

    def fall_back(self, exchange: LaneExchange, app: ASGIApp | None, *, retry: bool) -> None: ...

    def run_in_background(self, work: Coroutine[Any, Any, object]) -> None: ...


_NULL_EVENT = asyncio.Event()
"""An event that uvicorn's request cycle requires. Nothing waits for it here."""


class LaneExchange(ResponseHandler):
    """One proxied request in the fast lane, which writes the response to the client's connection.

    For uvicorn it is the connection's current cycle, with the attributes uvicorn uses (`response_complete`,
    `disconnected`, `keep_alive`, ...). Attributes that most exchanges never set are defaults of the class, because an
    exchange is created for each request.
    """

    started = more_body = disconnected = response_complete = False
    keep_alive = True
    body = b""
    message_event = _NULL_EVENT
    _chunked = False
    _monitored: MonitoredConnection | None = None
    _request: RequestInfo | None = None

    def __init__(
        self,
        client: ClientConnection,
        lane: FastLane,
        target: CachedTarget,
        headers: CachedHeaders,
        dispatch: Dispatch,
    ) -> None:
        """Send the request. `client` gets the response."""
        self._client = client
        self._lane = lane
        self._target = target
        self._headers = headers
        self._runtime, self._admission, self._connection, self._id_line, head = dispatch
        self._started_at = lane.gateway.started_at()
        self._connection.start(head, self, head_only=target.head_only)

    @property
    def request(self) -> RequestInfo:
        """The `RequestInfo` of this request, built on first use."""
        if self._request is None:
            self._request = self._lane.request(self._target, self._headers, value_in(self._id_line).decode())
        return self._request

    def logged_fields(self) -> LoggedFields:
        """Return the fields of the access log."""
        target = self._target.target
        return target.raw_path, target.method, value_in(self._id_line)

    def client_gone(self) -> None:
        """Abort the upstream connection, because the client disconnected."""
        if not self.response_complete:
            self.disconnected = True
            self.response_complete = True
            self._forget()
            self._connection.abort()

    def resume(self) -> None:
        """Resume reading from the upstream, because the client reads again."""
        if not self.response_complete:
            self._connection.resume_reading()

    # -- ResponseHandler; trailers are ignored, because uvicorn cannot send them, so neither path does

    def on_complete_response(self, head: CachedResponseHead, body: bytes) -> None:
        client = self._client
        if client.server_state.default_headers:
            self.on_head(head.status, head.head)
            if body:
                # Not `on_body`: the connection is back in its pool and must not be paused.
                self._write(body)
            self.on_end()
            return
        date = b"" if head.has_date else b"%b: %b\r\n" % self._lane.date_header.header()
        client.transport.write(
            b"".join((STATUS_LINE[head.status], head.wire, _VIA_LINE, self._id_line, date, b"\r\n", body))
        )
        self._record(head.status)
        self.response_complete = True
        if self._monitored is not None:
            self._forget()
        if head.hidden and (rejected := rejected_token(head.hidden)) is not None:
            self._report_rejected_token(rejected)
        client.on_response_sent()

    def on_head(self, status: int, head: ResponseHead) -> None:
        self.started = True
        client = self._client
        if client.server_state.default_headers:
            # Default headers are set while the server is draining.
            self.keep_alive = False
        headers, stream, rejected = self._lane.gateway.response_policy.edit(head.headers)
        client.transport.write(self._written(status, headers))
        if stream:
            self._connection.disable_read_timeout()
        self._record(status)
        if rejected is not None:
            self._report_rejected_token(rejected)

    def on_body(self, chunk: bytes) -> None:
        self._write(chunk)
        if self._client.flow.write_paused:
            self._connection.pause_reading()

    def on_end(self) -> None:
        if self._chunked:
            self._client.transport.write(b"0\r\n\r\n")
        self.response_complete = True
        self._forget()
        if not self.keep_alive:
            self._client.detach()
        self._client.on_response_sent()

    def on_failure(self, error: GatewayError) -> None:
        self._forget()
        self.response_complete = True
        if self.started:
            # Close the connection so that a truncated response is not mistaken for a complete one.
            self._client.detach()
            self._lane.gateway.report_truncated(error, self, self._admission)
            return
        if self._connection.may_retry(error, idempotent=self._target.idempotent):
            # The upstream closed the idle connection just as the request was written. The general path handles the
            # request again, on a new connection.
            self._client.fall_back(self, None, retry=True)
        else:
            app = self._lane.failing(error, self._admission, self._started_at)
            self._client.fall_back(self, app, retry=False)

    def scope(self) -> Scope:
        """Return the ASGI scope of this request, as uvicorn would have built it."""
        target = self._target.target
        scope = self._client.make_scope(self._headers.headers)
        scope["method"] = target.method
        scope["path"] = unquote(target.raw_path.decode("ascii"))
        scope["raw_path"] = target.raw_path
        scope["query_string"] = self._target.query
        scope[SCOPE_KEY] = value_in(self._id_line)
        return scope

    def on_tick(self) -> None:
        """Monitor the admission from now on, because the response takes longer (a download or a stream)."""
        if self._monitored is None and self._admission.owner is not None:
            self._monitored = MonitoredConnection(self.request, self._cut)
            self._lane.gateway.connections.add(self._monitored)

    # -- internals

    def _record(self, status: int) -> None:
        """Report that the response has started."""
        self._lane.gateway.record_response(self, status, self._admission.rule.label, self._started_at)

    def _write(self, chunk: bytes) -> None:
        """Write a chunk of the body."""
        self._client.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    def _written(self, status: int, headers: Headers) -> bytes:
        """Return the response head as the client gets it."""
        default_headers = self._client.server_state.default_headers
        lines = [STATUS_LINE[status]]
        lines += [b"%b: %b\r\n" % header for header in default_headers]
        dated = framed = False
        for name, value in headers:
            dated |= name == b"date"
            framed |= name == b"content-length"
            lines.append(b"%b: %b\r\n" % (name, value))
        lines += [_VIA_LINE, self._id_line]
        if not dated:
            lines.append(b"%b: %b\r\n" % self._lane.date_header.header())
        if not self.keep_alive and not default_headers:
            lines.append(b"connection: close\r\n")
        if not framed and not self._target.head_only and status not in (204, 304):
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _report_rejected_token(self, value: bytes) -> None:
        for grant in self._admission.rejected_grants(value):
            self._client.run_in_background(self._runtime.grants.report_stale(grant))

    async def _cut(self, code: int) -> None:
        if self.started:
            self._client.transport.abort()
        else:
            # The request was admitted, and closing the connection before any response would not tell the client why. As
            # on the ASGI path, the response may still arrive. If it takes long, `on_tick` monitors it again and the
            # next check closes it.
            self._monitored = None

    def _forget(self) -> None:
        if self._monitored is not None:
            self._lane.gateway.connections.remove(self._monitored)
            self._monitored = None
