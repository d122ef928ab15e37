"""The fast lane for ASGI servers: forwards a simple request from its scope directly to an upstream connection.

It does for any ASGI server what `fast_lane.uvicorn_protocol` does below ASGI. It handles requests without a body whose
session is cached and whose grant is fresh. Headers are parsed once (`request_cache`), the decision is cached
(`admission.decision_cache`), and the request is written to an idle connection of the pool. All other requests take the
general path (`gateway`), which decides again from the start. `tests/fast_lane/` compares the paths byte by byte;
`docs/performance.md` has the gain.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from akoya_gateway.access.request import Headers
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.exchange import FastExchange
from akoya_gateway.fast_lane.interfaces import LaneServices
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.request_id import SCOPE_KEY, value_in
from akoya_gateway.gateway.response_filter import ResponseFilter
from akoya_gateway.gateway.response_policy import rejected_token
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.signing.header_names import REQUEST_ID
from akoya_gateway.upstream.errors import ClientGone
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.response_head import ResponseHead
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead
from akoya_gateway.upstream.http.response_stream import ResponseStream
from akoya_gateway.upstream.reverse_proxy import VIA_HEADER, ProxiedExchange


class AsgiFastLane:
    """ASGI app that tries the fast lane first. `app` is the general path."""

    def __init__(self, lane: FastLane, app: ASGIApp, date_header: DateHeader) -> None:
        self.lane = lane
        self.gateway = lane.gateway
        self.date_header = date_header
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (exchange := self._dispatch(scope, receive, send)) is not None:
            try:
                answer = await exchange.response
            except asyncio.CancelledError:
                exchange.abandon()
                raise
            if answer is not None:
                headers = answer.visible_headers
                headers += (VIA_HEADER, (REQUEST_ID, scope[SCOPE_KEY]))
                if not answer.has_date:
                    headers.append(self.date_header.header())
                exchange.record_response(answer.status)
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                await send({"type": "http.response.body", "body": exchange.body})
                return
            if await exchange.resume():
                return
        await self._app(scope, receive, send)

    def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> AsgiExchange | None:
        found = self.lane.parse_scope(scope)
        if found is None:
            return None
        return self.lane.dispatch(*found, AsgiExchange, (scope, receive, send), scope.get(SCOPE_KEY))


class AsgiExchange(FastExchange[tuple[Scope, Receive, Send]]):
    """One proxied request.

    It is the upstream connection's `ResponseHandler` until something other than a complete, simple response arrives.
    Then it continues as a `ProxiedExchange`, as on the general path.
    """

    body = b""
    _failure: GatewayError | None = None
    _proxied: ProxiedExchange | None = None
    _stream: ResponseStream
    _finished = False

    def __init__(
        self,
        client: tuple[Scope, Receive, Send],
        lane: LaneServices,
        runtime: Runtime,
        target: CachedTarget,
        headers: CachedHeaders,
        admission: Admitted,
        connection: Connection,
        id_line: bytes,
    ) -> None:
        super().__init__(client, lane, runtime, target, headers, admission, connection, id_line)
        client[0][SCOPE_KEY] = value_in(id_line)
        self.response: asyncio.Future[CachedResponseHead | None] = target.pool.new_future()
        """The head of a complete, simple response, whose content is in `body`. None if `resume` must be called."""

    def abandon(self) -> None:
        """Abandon the exchange: the caller no longer waits for the response.

        A connection that is back in the pool is not aborted, because another request may be using it.
        """
        if self._proxied is not None:
            self._proxied.clean_up()
        elif not self._finished:
            self._connection.abort()

    async def resume(self) -> bool:
        """Finish a response that was not complete and simple, or handle its failure.

        Returns False if the general path must handle the request from the start.
        """
        scope, receive, send = self._client
        if self._proxied is None:
            assert self._failure is not None
            return await self._fail(self._failure, scope, receive, send)
        try:
            await self._stream.wait_head()
            await self._respond(self._proxied, scope, send)
        except ClientGone:
            return True
        except GatewayError as error:
            if self._proxied.started:
                # The response has already started. Re-raise so that the server aborts the connection and the client
                # sees a truncated response.
                raise
            return await self._fail(error, scope, receive, send)
        finally:
            self._proxied.clean_up()
        return True

    # -- upstream.http.interfaces.ResponseHandler

    def on_complete_response(self, head: CachedResponseHead, body: bytes) -> None:
        self._finished = True
        if head.hidden and rejected_token(head.hidden) is not None:
            self._to_stream().on_complete_response(head, body)
        elif not self.response.done():
            self.body = body
            self.response.set_result(head)

    def on_head(self, status: int, head: ResponseHead) -> None:
        self._to_stream().on_head(status, head)

    def on_body(self, chunk: bytes) -> None:
        """Never called: a response with a separate head is handled by the `ProxiedExchange`."""

    def on_trailers(self, headers: Headers) -> None:
        """Never called."""

    def on_end(self) -> None:
        """Never called."""

    def on_failure(self, error: GatewayError) -> None:
        self._finished = True
        self._failure = error
        self._wake()

    def on_tick(self) -> None:
        """Continue as a `ProxiedExchange`, which watches for a client disconnect, because the response takes longer."""
        self._to_stream().on_tick()

    # -- internals

    def _to_stream(self) -> ResponseStream:
        self._proxied = ProxiedExchange(self._target.proxy, *self._client)
        stream = self._stream = self._proxied.adopt(self._connection)
        self._wake()
        return stream

    def _wake(self) -> None:
        if not self.response.done():
            self.response.set_result(None)

    async def _respond(self, exchange: ProxiedExchange, scope: Scope, send: Send) -> None:
        gateway, dated, admission = self._lane.gateway, self._lane.date_header.wrap_send(send), self._admission
        reply = ResponseFilter(gateway, scope, dated, admission, self._started_at, self.request)
        if admission.owner is not None:
            exchange.listen(reply)
        try:
            await exchange.respond(reply)
        finally:
            reply.finish()
        for grant in admission.rejected_grants(reply.token_rejected):
            await self._runtime.grants.report_stale(grant)

    async def _fail(self, error: GatewayError, scope: Scope, receive: Receive, send: Send) -> bool:
        app = self._error_app(error)
        if app is None:
            scope["akoya.again"] = True
            return False
        await app(scope, receive, send)
        return True
