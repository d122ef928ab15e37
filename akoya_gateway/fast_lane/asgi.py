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
from akoya_gateway.gateway.exchange import Exchange
from akoya_gateway.gateway.request_id import SCOPE_KEY, value_in
from akoya_gateway.upstream.http.request_head import Body, RequestHead
from akoya_gateway.upstream.reverse_proxy import ProxiedExchange


class AsgiFastLane:
    """ASGI app that tries the fast lane first. `app` is the general path."""

    def __init__(self, lane: FastLane, app: ASGIApp) -> None:
        self.lane = lane
        self.gateway = lane.gateway
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
        reply = Exchange(self.gateway, scope, send, self.gateway.started_at())
        reply.runtime, reply.decision = runtime, admission
        exchange = ProxiedExchange(target.proxy, scope, receive, reply)
        exchange.begin(connection, head, head_only=target.head_only)
        try:
            await exchange.head_or_failure()
        except asyncio.CancelledError:
            exchange.close()
            raise
        complete = exchange.complete
        if complete is None or complete.hidden:
            request = RequestHead(head, Body.NONE, 0, target.head_only, target.idempotent, expects=False)
            await self.gateway.finish(reply, exchange.run(request), receive)
            return
        # As in `finish` and `run`, but without their coroutines, which take 1.7 us.
        exchange.close()
        await send(reply.start_message(complete))
        await send({"type": "http.response.body", "body": exchange.read_buffered()})
