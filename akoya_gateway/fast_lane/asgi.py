"""The plain case on ASGI: straight from the scope to the upstream's connection.

What the fast lane does below ASGI, for any other ASGI server: a request without a body, of a known session with a fresh
grant, is judged header by header, each judged once (`plain_requests`), admitted as long as that stands (`standing`),
and written to an idle connection of the pool. Whatever is not plain goes the general way (`gateway`), which decides
again from the start. `tests/fast_lane/` holds the ways side by side, byte by byte; `docs/performance.md` has the gain.
"""

from __future__ import annotations

import asyncio

from akoya_gateway.access.request import Ask, Headers
from akoya_gateway.admission.decision_cache import Standing
from akoya_gateway.admission.gate import Admitted
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.fast_lane.request_cache import Line, Sender, head
from akoya_gateway.gateway.date_header import Dates
from akoya_gateway.gateway.lifespan import App, Receive, Scope, Send
from akoya_gateway.gateway.response_filter import Reply
from akoya_gateway.upstream.errors import ClientGone, ClosedEarly
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.response_head import ResponseHead
from akoya_gateway.upstream.http.response_head_cache import PlainHead
from akoya_gateway.upstream.http.response_stream import Exchange
from akoya_gateway.upstream.reverse_proxy import VIA_HEADER, Transfer


class Straight:
    """An ASGI app around `app`, the general way."""

    def __init__(self, lane: FastLane, app: App, dates: Dates) -> None:
        self.lane = lane
        self.gateway = lane.gateway
        self.dates = dates
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (crossing := self._set_out(scope, receive, send)) is not None:
            try:
                answer = await crossing.arrived
            except asyncio.CancelledError:
                crossing.abandon()
                raise
            if answer is not None:
                headers = answer.headers
                headers.append(VIA_HEADER)
                if not answer.dated:
                    headers.append(self.dates.header())
                self.gateway.answered(crossing, answer.status, crossing.admission.rule.label, crossing.began)
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                await send({"type": "http.response.body", "body": crossing.body})
                return
            if await crossing.go_on():
                return
        await self._app(scope, receive, send)

    def _set_out(self, scope: Scope, receive: Receive, send: Send) -> Crossing | None:
        lane = self.lane
        found = lane.find_scope(scope)
        if found is None:
            return None
        line, sender = found
        admitted = lane.admit(line, sender)
        if admitted is None:
            return None
        connection = line.pool.take()
        if connection is None:
            return None
        admission, ours = admitted
        crossing = Crossing(self, line, sender, admission, connection, (scope, receive, send))
        connection.start(head(line, sender, ours), crossing, head_only=line.head_only)
        return crossing


class Crossing:
    """One request on its way: the upstream's `sink.Sink` until something comes that is more than a whole plain answer.
    Then it becomes a `Transfer`, as on the general way."""

    __slots__ = (
        "_asgi",
        "_connection",
        "_exchange",
        "_failure",
        "_line",
        "_over",
        "_sender",
        "_straight",
        "_transfer",
        "admission",
        "arrived",
        "began",
        "body",
    )

    def __init__(
        self,
        straight: Straight,
        line: Line,
        sender: Sender,
        admission: Standing | Admitted,
        connection: Connection,
        asgi: tuple[Scope, Receive, Send],
    ) -> None:
        self._straight = straight
        self._line = line
        self._sender = sender
        self._connection = connection
        self._asgi = asgi
        self._failure: GatewayError | None = None
        self._transfer: Transfer | None = None
        self._over = False
        self.admission = admission
        self.began = straight.gateway.began()
        self.arrived: asyncio.Future[PlainHead | None] = line.pool.new_future()
        """The head of a whole plain answer, whose `body` is there too. None: `go_on`."""
        self.body = b""

    @property
    def ask(self) -> Ask:
        return self._straight.lane.ask(self._line, self._sender)

    def abandon(self) -> None:
        """Whoever waited for it does not any more. A connection that is back in the pool may be somebody else's."""
        if self._transfer is not None:
            self._transfer.clean_up()
        elif not self._over:
            self._connection.abort()

    async def go_on(self) -> bool:
        """What is left to be done. False: nothing has happened, the general way starts over."""
        scope, receive, send = self._asgi
        if self._transfer is None:
            assert self._failure is not None
            return await self._fail(self._failure, scope, receive, send)
        try:
            await self._exchange.until_head()
            await self._respond(self._transfer, scope, send)
        except ClientGone:
            return True
        except GatewayError as error:
            if self._transfer.started:
                # Too late for an answer: the server closes the connection, and nobody takes the torso for a whole.
                raise
            return await self._fail(error, scope, receive, send)
        finally:
            self._transfer.clean_up()
        return True

    # -- upstream.http.interfaces.Sink

    def on_answer(self, head: PlainHead, body: bytes) -> None:
        self._over = True
        if head.special:
            self._become().on_answer(head, body)
        elif not self.arrived.done():
            self.body = body
            self.arrived.set_result(head)

    def on_head(self, status: int, head: ResponseHead) -> None:
        self._become().on_head(status, head)

    def on_body(self, chunk: bytes) -> None:
        """Never: whatever has a head of its own is the transfer's."""

    def on_trailers(self, headers: Headers) -> None:
        """Never."""

    def on_end(self) -> None:
        """Never."""

    def on_failure(self, error: GatewayError) -> None:
        self._over = True
        self._failure = error
        self._wake()

    def on_writable(self) -> None:
        return

    def on_tick(self) -> None:
        """It takes longer: from now on somebody looks whether the client is still there."""
        self._become().on_tick()

    # -- inside

    def _become(self) -> Exchange:
        self._transfer = Transfer(self._line.proxy, *self._asgi)
        exchange = self._exchange = self._transfer.adopt(self._connection)
        self._wake()
        return exchange

    def _wake(self) -> None:
        if not self.arrived.done():
            self.arrived.set_result(None)

    async def _respond(self, transfer: Transfer, scope: Scope, send: Send) -> None:
        straight = self._straight
        reply = Reply(straight.gateway, scope, straight.dates.onto(send), self.admission, self.began, self.ask)
        if self.admission.owner is not None:
            transfer.listen(reply)
        try:
            await transfer.respond(reply)
        finally:
            reply.over()
        if reply.token_rejected and self.admission.grant is not None:
            await straight.gateway.engine.keeper.report_stale(self.admission.grant)

    async def _fail(self, error: GatewayError, scope: Scope, receive: Receive, send: Send) -> bool:
        again = self._line.idempotent and self._connection.served > 1
        if isinstance(error, ClosedEarly) and error.untouched and again:
            # It may have been closing just as we wrote.
            scope["akoya.again"] = True
            return False
        failing = self._straight.lane.failing(error, self.admission.rule.label, self.began)
        await failing(scope, receive, send)
        return True
