"""The reverse proxy: an ordinary ASGI app in front of a pool of connections.

Streams both ways and holds a bounded piece of each body. A request that is answered within one tick of the pool costs
no task and no timer; one that is not gets a task that notices the client leaving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from akoya_gateway.client_headers import ClientHeaders
from akoya_gateway.config.model import Origin
from akoya_gateway.errors import GatewayError
from akoya_gateway.trusted_proxies import TrustedPeer, peer_of
from akoya_gateway.upstream.errors import ClientGone, ClosedEarly, Ended, RefusedRequest
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.connection_pool import Pool
from akoya_gateway.upstream.http.forwarded_headers import VIA, Forwarding
from akoya_gateway.upstream.http.request_head import Body, Outgoing, RequestWriter
from akoya_gateway.upstream.http.response_stream import Exchange
from akoya_gateway.upstream.problem_details import send_problem
from akoya_gateway.upstream.stream_cancellation import Ending
from akoya_gateway.upstream.websocket.proxy import WebSocketRelay

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

VIA_HEADER = (b"via", VIA)


class ReverseProxy:
    """`scope["headers"]`, `raw_path` and `query_string` go to the upstream byte for byte, apart from what RFC 9110
    section 7.6 takes away or adds. `scope["akoya.ending"]` (an `ending.Ending`) may end a stream from outside;
    `scope["akoya.ours"]` says how many of the headers, the last ones, the gateway has made; `scope["akoya.again"]` that
    the request was sent before, on a connection that was just closing.

    Raises RefusedRequest (before anything is sent), UpstreamError (502, 503, 504 before the response has started; after
    that the caller has to cut the client's connection, as servers do when an app raises).
    """

    def __init__(
        self,
        pool: Pool,
        *,
        trusted_proxies: Sequence[TrustedPeer] = (),
        public_url: Origin | None = None,
        client_headers: ClientHeaders | None = None,
        max_body: int = 0,
        answer_errors: bool = False,
    ) -> None:
        """`max_body` in bytes, 0: no limit. `answer_errors`: render problem details here, for use without a caller that
        does."""
        self.pool = pool
        upstream = pool.upstream
        default_host = upstream.origins[0].authority.encode("ascii")
        self.writer = RequestWriter(
            Forwarding(trusted_proxies, public_url), default_host, client_headers, keep_alive=upstream.keep_alive
        )
        self._relay = WebSocketRelay(pool, self.writer)
        self._max_body = max_body
        self._answer_errors = answer_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        else:
            raise ValueError(f"no such scope: {kind}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.pool.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        transfer = Transfer(self, scope, receive, send)
        try:
            await transfer.run()
        except ClientGone:
            return
        except GatewayError as error:
            if not self._answer_errors or transfer.started:
                raise
            await send_problem(send, error)
        finally:
            transfer.clean_up()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._relay(scope, receive, send)
        except GatewayError as error:
            if not self._answer_errors:
                raise
            if "websocket.http.response" in (scope.get("extensions") or ()):
                await send_problem(send, error, kind="websocket.http.response")
            else:
                await send({"type": "websocket.close", "code": 1014})

    def compose(self, scope: Scope) -> Outgoing:
        """The request head for an HTTP scope. Raises RefusedRequest."""
        peer, told = peer_of(scope.get("client"))
        query = scope.get("query_string", b"")
        path: bytes = scope["raw_path"]
        extensions = scope.get("extensions") or ()
        outgoing = self.writer.write(
            scope["method"],
            path + b"?" + query if query else path,
            scope["headers"],
            peer=peer,
            told=told,
            scheme=scope.get("scheme", "http"),
            http_version=scope["http_version"],
            trailers="http.response.trailers" in extensions,
            ours=scope.get("akoya.ours", 0),
        )
        if self._max_body and outgoing.length > self._max_body:
            raise RefusedRequest("the body is too large", status=413, code="body-too-large", title="Too large")
        return outgoing

    def judge_size(self, sent: int) -> None:
        if self._max_body and sent > self._max_body:
            raise RefusedRequest("the body is too large", status=413, code="body-too-large", title="Too large")


class Transfer:
    """One HTTP request on its way through."""

    __slots__ = (
        "_ending",
        "_exchange",
        "_helper",
        "_loop",
        "_proxy",
        "_receive",
        "_scope",
        "_send",
        "_sent",
        "started",
    )

    def __init__(self, proxy: ReverseProxy, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = False
        """The response to the client has begun."""
        self._proxy = proxy
        self._scope = scope
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._exchange: Exchange | None = None
        self._helper: asyncio.Task[None] | None = None
        self._ending: Ending | None = scope.get("akoya.ending")
        self._sent = 0

    async def run(self) -> None:
        outgoing = self._proxy.compose(self._scope)
        body = outgoing.body
        if body is Body.NONE or (body is Body.LENGTH and not outgoing.length):
            await self._without_body(outgoing)
        else:
            await self._with_body(outgoing)
        await self.respond(self._send)

    def adopt(self, connection: Connection) -> Exchange:
        """Go on with a request without a body that somebody else has sent: what comes from now on is to go to the
        exchange."""
        exchange = self._exchange = Exchange(connection, self._loop, self._on_slow)
        connection.hand_to(exchange)
        return exchange

    def listen(self, ending: Ending) -> None:
        """`ending` may end it from now on."""
        self._ending = ending
        ending.listen(self._on_ending)

    def clean_up(self) -> None:
        """Nothing of it stays behind: neither a task nor a connection in an unknown state."""
        if self._helper is not None:
            self._helper.cancel()
        if self._ending is not None:
            self._ending.forget(self._on_ending)
        if self._exchange is not None:
            self._exchange.fail(ClientGone())
            # Each holds the other: without this line every request is work for the garbage collector.
            self._exchange = None

    # -- the request

    async def _without_body(self, outgoing: Outgoing) -> None:
        pool = self._proxy.pool
        if self._scope.get("akoya.again"):
            await self._second_try(outgoing)
            return
        connection = pool.take() or await pool.acquire()
        exchange = self._begin(connection, outgoing, outgoing.head, complete=True)
        try:
            await exchange.until_head()
        except ClosedEarly as error:
            # RFC 9110 section 9.2.2: it may have been closing just as we wrote. Once, and not on one that is as old.
            if not (error.untouched and outgoing.idempotent and connection.served > 1):
                raise
            await self._second_try(outgoing)

    async def _second_try(self, outgoing: Outgoing) -> None:
        connection = await self._proxy.pool.acquire(fresh=True)
        await self._begin(connection, outgoing, outgoing.head, complete=True).until_head()

    async def _with_body(self, outgoing: Outgoing) -> None:
        """The first event of a body of known length goes out together with the head; the rest is pumped by a task, so
        that a response may come first. Who waits for `100 Continue` gets it (from `receive`) once there is a
        connection: an upstream that is down is reported before the body is sent."""
        pool = self._proxy.pool
        head = outgoing.head
        if outgoing.body is Body.CHUNKED or outgoing.expects:
            connection = pool.take() or await pool.acquire()
            exchange = self._begin(connection, outgoing, head, complete=False)
            self._helper = self._loop.create_task(self._pump(exchange, outgoing.body, outgoing.length))
        else:
            message = await self._next_event()
            first: bytes = message.get("body", b"")
            more = bool(message.get("more_body", False))
            body: Body = outgoing.body
            length = outgoing.length
            if body is Body.ASK and more:
                body = Body.CHUNKED
                head += b"transfer-encoding: chunked\r\n\r\n"
            elif body is Body.ASK:
                body, length = Body.LENGTH, len(first)
                head += b"content-length: %d\r\n\r\n" % length if first else b"\r\n"
            data = self._frame(body, length, first, more=more)
            connection = pool.take() or await pool.acquire()
            exchange = self._begin(connection, outgoing, head + data, complete=not more)
            if more:
                self._helper = self._loop.create_task(self._pump(exchange, body, length))
        await exchange.until_head()

    def _begin(self, connection: Connection, outgoing: Outgoing, data: bytes, *, complete: bool) -> Exchange:
        exchange = self._exchange = Exchange(connection, self._loop, self._on_slow)
        connection.start(data, exchange, head_only=outgoing.head_only, complete=complete)
        if self._ending is not None:
            self._ending.forget(self._on_ending)
            self._ending.listen(self._on_ending)
        return exchange

    def _frame(self, body: Body, length: int, data: bytes, *, more: bool) -> bytes:
        """A piece of the body as it goes out (RFC 9112 section 7.1), its size watched."""
        self._sent += len(data)
        self._proxy.judge_size(self._sent)
        if body is Body.CHUNKED:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            return framed if more else framed + b"0\r\n\r\n"
        if self._sent > length or (not more and self._sent != length):
            raise RefusedRequest("the body is not as long as content-length says")
        return data

    async def _next_event(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    async def _pump(self, exchange: Exchange, body: Body, length: int) -> None:
        """The request body, until it or the exchange is over."""
        try:
            more = True
            while more and not exchange.over:
                message = await self._next_event()
                more = bool(message.get("more_body", False))
                data = self._frame(body, length, message.get("body", b""), more=more)
                if exchange.over:
                    return
                if data:
                    exchange.connection.write(data)
                if exchange.connection.congested:
                    await self._until_writable(exchange)
            if not exchange.over:
                exchange.connection.finish_request()
                await self._watch()
        except Exception as error:
            # Whatever it was: the one that waits for the response must hear of it.
            exchange.fail(error)

    async def _until_writable(self, exchange: Exchange) -> None:
        """Wait until the upstream takes more of the body.

        No event is received meanwhile, because each would bring more of the body. So ASGI cannot tell that the client
        has left, and an upstream that streams its response without reading the request would go on for ever. Our own
        server tells by `on_lost`.
        """
        client = self._scope.get("akoya.connection")
        if client is None:
            await exchange.writable()
            return
        client.on_lost = lambda: exchange.fail(ClientGone())
        try:
            await exchange.writable()
        finally:
            client.on_lost = None

    # -- the response

    async def respond(self, send: Send) -> None:
        """The answer, as far as it comes. Raises what `Exchange.take` raises."""
        exchange = self._exchange
        assert exchange is not None
        head = exchange.head
        assert head is not None
        headers = [*head.headers, VIA_HEADER]
        start: Message = {"type": "http.response.start", "status": exchange.status, "headers": headers}
        trailers = head.trailers and "http.response.trailers" in (self._scope.get("extensions") or ())
        if trailers:
            start["trailers"] = True
        self._settle(exchange)
        self.started = True
        await send(start)
        while True:
            ended = exchange.ended
            data = exchange.take()
            if ended:
                break
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await exchange.news()
        await send({"type": "http.response.body", "body": data})
        if trailers:
            await send({"type": "http.response.trailers", "headers": exchange.trailers, "more_trailers": False})

    def _settle(self, exchange: Exchange) -> None:
        """An event stream may be silent for longer than any other response."""
        if not exchange.over and exchange.head is not None:
            for name, value in exchange.head.headers:
                if name == b"content-type":
                    if value[:17].lower() == b"text/event-stream":
                        exchange.connection.be_patient()
                    return

    # -- from outside

    def _on_slow(self) -> None:
        if self._helper is None:
            self._helper = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        """Until the client leaves: then the upstream need not go on."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                if self._exchange is not None:
                    self._exchange.fail(ClientGone())
                return

    def _on_ending(self, code: int, reason: str) -> None:
        if self._exchange is not None:
            self._exchange.fail(Ended(reason))
