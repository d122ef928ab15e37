"""The fast lane for ASGI servers: forwards a simple request from its scope directly to an upstream connection.

It does for any ASGI server what `fast_lane.uvicorn_protocol` does below ASGI. It handles requests without a body whose
session is cached and whose grant is fresh. Headers are parsed once (`request_cache`), the decision is cached
(`admission.decision_cache`), and the request is written to an idle connection of the pool. All other requests take the
general path (`gateway`), which decides again from the start. Responses and errors are the general path's own.
`tests/fast_lane/` compares the paths byte by byte; `docs/performance.md` has the gain.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.fast_lane.request_cache import CachedTarget
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.request_id import SCOPE_KEY, value_in
from akoya_gateway.gateway.response_filter import ResponseFilter
from akoya_gateway.gateway.response_policy import rejected_token
from akoya_gateway.upstream.errors import ClientGone, ClosedEarly
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
        found = self.lane.parse_scope(scope) if scope["type"] == "http" else None
        dispatch = None if found is None else self.lane.dispatch(*found, scope.get(SCOPE_KEY))
        if found is None or dispatch is None:
            await self._app(scope, receive, send)
            return
        target = found[0]
        runtime, admission, connection, id_line, head = dispatch
        scope[SCOPE_KEY] = value_in(id_line)
        reply = ResponseFilter(self.gateway, scope, send, admission, self.gateway.started_at())
        exchange = ProxiedExchange(target.proxy, scope, receive, reply if admission.owner is not None else None)
        stream = exchange.begin(connection, head, head_only=target.head_only)
        try:
            await stream.first_event()
        except asyncio.CancelledError:
            exchange.clean_up()
            raise
        complete = stream.complete
        if complete is None or (complete.hidden and rejected_token(complete.hidden) is not None):
            dated = reply.send = self.date_header.wrap_send(send)
            forwarded = self._respond(target, exchange, stream, reply, scope)
            await self.gateway.finish(runtime, reply, forwarded, dated)
            if scope.get("akoya.again"):
                await self._app(scope, receive, send)
            return
        exchange.clean_up()
        headers = complete.visible_headers
        headers += (VIA_HEADER, reply.request_id_header)
        if not complete.has_date:
            headers.append(self.date_header.header())
        reply.record_response(complete.status)
        await send({"type": "http.response.start", "status": complete.status, "headers": headers})
        await send({"type": "http.response.body", "body": stream.read_buffered()})

    async def _respond(
        self,
        target: CachedTarget,
        exchange: ProxiedExchange,
        stream: ResponseStream,
        reply: ResponseFilter,
        scope: Scope,
    ) -> None:
        """Send a response that did not arrive in one piece or that rejects a token. Raises its error if it fails.

        Sets `akoya.again` in the scope if the request must be handled again.
        """
        try:
            await stream.wait_head()
            await exchange.respond(reply)
        except ClientGone:
            return
        except ClosedEarly as error:
            if reply.started or not stream.connection.may_retry(error, idempotent=target.idempotent):
                raise
            # The upstream closed the idle connection just as the request was written. The general path handles the
            # request again, on a new connection: not here, because an error in the new response would be handled as one
            # of this exchange, and the watcher of this exchange would receive the client's messages.
            scope["akoya.again"] = True
        finally:
            exchange.clean_up()
