"""The plain case on ASGI: straight from the scope to the upstream's connection.

What the fast lane does below ASGI, for any other ASGI server: a request without a body, of a known session with a fresh
grant, is judged header by header, each judged once (`plain_requests`), admitted as long as that stands (`standing`),
and written to an idle connection of the pool. Whatever is not plain goes the general way (`gateway`), which decides
again from the start. `tests/fast_lane/` holds the ways side by side, byte by byte; `docs/performance.md` has the gain.
"""

from __future__ import annotations

import asyncio

from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.decision_cache import CachedDecision
from akoya_gateway.admission.gate import Admitted
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget, head
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.lifespan import App, Receive, Scope, Send
from akoya_gateway.gateway.response_filter import ResponseFilter
from akoya_gateway.upstream.errors import ClientGone, ClosedEarly
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.response_head import ResponseHead
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead
from akoya_gateway.upstream.http.response_stream import ResponseStream
from akoya_gateway.upstream.reverse_proxy import VIA_HEADER, ProxiedExchange


class AsgiFastLane:
    """An ASGI app around `app`, the general way."""

    def __init__(self, lane: FastLane, app: App, date_header: DateHeader) -> None:
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
                headers = answer.headers
                headers.append(VIA_HEADER)
                if not answer.has_date:
                    headers.append(self.date_header.header())
                self.gateway.record_response(
                    exchange, answer.status, exchange.admission.rule.label, exchange.started_at
                )
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                await send({"type": "http.response.body", "body": exchange.body})
                return
            if await exchange.resume():
                return
        await self._app(scope, receive, send)

    def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> AsgiExchange | None:
        lane = self.lane
        found = lane.parse_scope(scope)
        if found is None:
            return None
        target, headers = found
        admitted = lane.admit(target, headers)
        if admitted is None:
            return None
        connection = target.pool.get_nowait()
        if connection is None:
            return None
        admission, injected = admitted
        exchange = AsgiExchange(self, target, headers, admission, connection, (scope, receive, send))
        connection.start(head(target, headers, injected), exchange, head_only=target.head_only)
        return exchange


class AsgiExchange:
    """One request on its way: the upstream's `interfaces.ResponseHandler` until something comes that is more than a
    whole plain answer. Then it becomes a `ProxiedExchange`, as on the general way."""

    __slots__ = (
        "_asgi",
        "_connection",
        "_exchange",
        "_failure",
        "_fast_lane",
        "_finished",
        "_headers",
        "_proxied",
        "_target",
        "admission",
        "body",
        "response",
        "started_at",
    )

    def __init__(
        self,
        straight: AsgiFastLane,
        target: CachedTarget,
        headers: CachedHeaders,
        admission: CachedDecision | Admitted,
        connection: Connection,
        asgi: tuple[Scope, Receive, Send],
    ) -> None:
        self._fast_lane = straight
        self._target = target
        self._headers = headers
        self._connection = connection
        self._asgi = asgi
        self._failure: GatewayError | None = None
        self._proxied: ProxiedExchange | None = None
        self._finished = False
        self.admission = admission
        self.started_at = straight.gateway.started_at()
        self.response: asyncio.Future[CachedResponseHead | None] = target.pool.new_future()
        """The head of a whole plain answer, whose `body` is there too. None: `resume`."""
        self.body = b""

    @property
    def request(self) -> RequestInfo:
        return self._fast_lane.lane.request(self._target, self._headers)

    def abandon(self) -> None:
        """Whoever waited for it does not any more. A connection that is back in the pool may be somebody else's."""
        if self._proxied is not None:
            self._proxied.clean_up()
        elif not self._finished:
            self._connection.abort()

    async def resume(self) -> bool:
        """What is left to be done. False: nothing has happened, the general way starts over."""
        scope, receive, send = self._asgi
        if self._proxied is None:
            assert self._failure is not None
            return await self._fail(self._failure, scope, receive, send)
        try:
            await self._exchange.wait_head()
            await self._respond(self._proxied, scope, send)
        except ClientGone:
            return True
        except GatewayError as error:
            if self._proxied.started:
                # Too late for an answer: the server closes the connection, and nobody takes the torso for a whole.
                raise
            return await self._fail(error, scope, receive, send)
        finally:
            self._proxied.clean_up()
        return True

    # -- upstream.http.interfaces.Sink

    def on_complete_response(self, head: CachedResponseHead, body: bytes) -> None:
        self._finished = True
        if head.special:
            self._to_stream().on_complete_response(head, body)
        elif not self.response.done():
            self.body = body
            self.response.set_result(head)

    def on_head(self, status: int, head: ResponseHead) -> None:
        self._to_stream().on_head(status, head)

    def on_body(self, chunk: bytes) -> None:
        """Never: whatever has a head of its own is the transfer's."""

    def on_trailers(self, headers: Headers) -> None:
        """Never."""

    def on_end(self) -> None:
        """Never."""

    def on_failure(self, error: GatewayError) -> None:
        self._finished = True
        self._failure = error
        self._wake()

    def on_writable(self) -> None:
        return

    def on_tick(self) -> None:
        """It takes longer: from now on somebody looks whether the client is still there."""
        self._to_stream().on_tick()

    # -- inside

    def _to_stream(self) -> ResponseStream:
        self._proxied = ProxiedExchange(self._target.proxy, *self._asgi)
        stream = self._exchange = self._proxied.adopt(self._connection)
        self._wake()
        return stream

    def _wake(self) -> None:
        if not self.response.done():
            self.response.set_result(None)

    async def _respond(self, exchange: ProxiedExchange, scope: Scope, send: Send) -> None:
        straight = self._fast_lane
        reply = ResponseFilter(
            straight.gateway, scope, straight.date_header.wrap_send(send), self.admission, self.started_at, self.request
        )
        if self.admission.owner is not None:
            exchange.listen(reply)
        try:
            await exchange.respond(reply)
        finally:
            reply.finish()
        if reply.token_rejected and self.admission.grant is not None:
            await straight.gateway.runtime.grants.report_stale(self.admission.grant)

    async def _fail(self, error: GatewayError, scope: Scope, receive: Receive, send: Send) -> bool:
        again = self._target.idempotent and self._connection.request_count > 1
        if isinstance(error, ClosedEarly) and error.no_response_bytes and again:
            # It may have been closing just as we wrote.
            scope["akoya.again"] = True
            return False
        failing = self._fast_lane.lane.failing(error, self.admission.rule.label, self.started_at)
        await failing(scope, receive, send)
        return True
