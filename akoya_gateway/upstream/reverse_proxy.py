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
from akoya_gateway.upstream.errors import ClientGone, ClosedEarly, RefusedRequest, StreamCancelled
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.forwarded_headers import VIA, ForwardedHeaders
from akoya_gateway.upstream.http.request_head import Body, RequestHead, RequestWriter
from akoya_gateway.upstream.http.response_stream import ResponseStream
from akoya_gateway.upstream.problem_details import send_problem
from akoya_gateway.upstream.stream_cancellation import StreamCancellation
from akoya_gateway.upstream.websocket.proxy import WebSocketProxy

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

VIA_HEADER = (b"via", VIA)


class ReverseProxy:
    """`scope["headers"]`, `raw_path` and `query_string` go to the upstream byte for byte, apart from what RFC 9110
    section 7.6 takes away or adds. `scope["akoya.ending"]` (an `stream_cancellation.StreamCancellation`) may end a
    stream from outside; `scope["akoya.ours"]` says how many of the headers, the last ones, the gateway has made;
    `scope["akoya.again"]` that the request was sent before, on a connection that was just closing.

    Raises RefusedRequest (before anything is sent), UpstreamError (502, 503, 504 before the response has started; after
    that the caller has to cut the client's connection, as servers do when an app raises).
    """

    def __init__(
        self,
        pool: ConnectionPool,
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
            ForwardedHeaders(trusted_proxies, public_url), default_host, client_headers, keep_alive=upstream.keep_alive
        )
        self._websockets = WebSocketProxy(pool, self.writer)
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
        exchange = ProxiedExchange(self, scope, receive, send)
        try:
            await exchange.run()
        except ClientGone:
            return
        except GatewayError as error:
            if not self._answer_errors or exchange.started:
                raise
            await send_problem(send, error)
        finally:
            exchange.clean_up()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._websockets(scope, receive, send)
        except GatewayError as error:
            if not self._answer_errors:
                raise
            if "websocket.http.response" in (scope.get("extensions") or ()):
                await send_problem(send, error, kind="websocket.http.response")
            else:
                await send({"type": "websocket.close", "code": 1014})

    def build_request(self, scope: Scope) -> RequestHead:
        """The request head for an HTTP scope. Raises RefusedRequest."""
        peer, told = peer_of(scope.get("client"))
        query = scope.get("query_string", b"")
        path: bytes = scope["raw_path"]
        extensions = scope.get("extensions") or ()
        head = self.writer.write(
            scope["method"],
            path + b"?" + query if query else path,
            scope["headers"],
            peer=peer,
            told=told,
            scheme=scope.get("scheme", "http"),
            http_version=scope["http_version"],
            trailers="http.response.trailers" in extensions,
            injected_headers=scope.get("akoya.ours", 0),
        )
        if self._max_body and head.length > self._max_body:
            raise RefusedRequest("the body is too large", status=413, code="body-too-large", title="Too large")
        return head

    def check_body_size(self, sent: int) -> None:
        if self._max_body and sent > self._max_body:
            raise RefusedRequest("the body is too large", status=413, code="body-too-large", title="Too large")


class ProxiedExchange:
    """One HTTP request on its way through."""

    __slots__ = (
        "_cancellation",
        "_helper",
        "_loop",
        "_proxy",
        "_receive",
        "_scope",
        "_send",
        "_sent",
        "_stream",
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
        self._stream: ResponseStream | None = None
        self._helper: asyncio.Task[None] | None = None
        self._cancellation: StreamCancellation | None = scope.get("akoya.ending")
        self._sent = 0

    async def run(self) -> None:
        head = self._proxy.build_request(self._scope)
        body = head.body
        if body is Body.NONE or (body is Body.LENGTH and not head.length):
            await self._without_body(head)
        else:
            await self._with_body(head)
        await self.respond(self._send)

    def adopt(self, connection: Connection) -> ResponseStream:
        """Go on with a request without a body that somebody else has sent: what comes from now on is to go to the
        exchange."""
        stream = self._stream = ResponseStream(connection, self._loop, self._on_slow)
        connection.transfer_to(stream)
        return stream

    def listen(self, cancellation: StreamCancellation) -> None:
        """`cancellation` may end it from now on."""
        self._cancellation = cancellation
        cancellation.listen(self._on_cancel)

    def clean_up(self) -> None:
        """Nothing of it stays behind: neither a task nor a connection in an unknown state."""
        if self._helper is not None:
            self._helper.cancel()
        if self._cancellation is not None:
            self._cancellation.unlisten(self._on_cancel)
        if self._stream is not None:
            self._stream.fail(ClientGone())
            # Each holds the other: without this line every request is work for the garbage collector.
            self._stream = None

    # -- the request

    async def _without_body(self, head: RequestHead) -> None:
        pool = self._proxy.pool
        if self._scope.get("akoya.again"):
            await self._retry(head)
            return
        connection = pool.get_nowait() or await pool.acquire()
        stream = self._begin(connection, head, head.head, complete=True)
        try:
            await stream.wait_head()
        except ClosedEarly as error:
            # RFC 9110 section 9.2.2: it may have been closing just as we wrote. Once, and not on one that is as old.
            if not (error.no_response_bytes and head.idempotent and connection.request_count > 1):
                raise
            await self._retry(head)

    async def _retry(self, head: RequestHead) -> None:
        connection = await self._proxy.pool.acquire(fresh=True)
        await self._begin(connection, head, head.head, complete=True).wait_head()

    async def _with_body(self, request_head: RequestHead) -> None:
        """The first event of a body of known length goes out together with the head; the rest is pumped by a task, so
        that a response may come first. Who waits for `100 Continue` gets it (from `receive`) once there is a
        connection: an upstream that is down is reported before the body is sent."""
        pool = self._proxy.pool
        head = request_head.head
        if request_head.body is Body.CHUNKED or request_head.expects:
            connection = pool.get_nowait() or await pool.acquire()
            stream = self._begin(connection, request_head, head, complete=False)
            self._helper = self._loop.create_task(self._pump(stream, request_head.body, request_head.length))
        else:
            message = await self._next_event()
            first: bytes = message.get("body", b"")
            more = bool(message.get("more_body", False))
            body: Body = request_head.body
            length = request_head.length
            if body is Body.ASK and more:
                body = Body.CHUNKED
                head += b"transfer-encoding: chunked\r\n\r\n"
            elif body is Body.ASK:
                body, length = Body.LENGTH, len(first)
                head += b"content-length: %d\r\n\r\n" % length if first else b"\r\n"
            data = self._frame(body, length, first, more=more)
            connection = pool.get_nowait() or await pool.acquire()
            stream = self._begin(connection, request_head, head + data, complete=not more)
            if more:
                self._helper = self._loop.create_task(self._pump(stream, body, length))
        await stream.wait_head()

    def _begin(self, connection: Connection, head: RequestHead, data: bytes, *, complete: bool) -> ResponseStream:
        stream = self._stream = ResponseStream(connection, self._loop, self._on_slow)
        connection.start(data, stream, head_only=head.head_only, complete=complete)
        if self._cancellation is not None:
            self._cancellation.unlisten(self._on_cancel)
            self._cancellation.listen(self._on_cancel)
        return stream

    def _frame(self, body: Body, length: int, data: bytes, *, more: bool) -> bytes:
        """A piece of the body as it goes out (RFC 9112 section 7.1), its size watched."""
        self._sent += len(data)
        self._proxy.check_body_size(self._sent)
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

    async def _pump(self, stream: ResponseStream, body: Body, length: int) -> None:
        """The request body, until it or the exchange is over."""
        try:
            more = True
            while more and not stream.is_finished:
                message = await self._next_event()
                more = bool(message.get("more_body", False))
                data = self._frame(body, length, message.get("body", b""), more=more)
                if stream.is_finished:
                    return
                if data:
                    stream.connection.write(data)
                if stream.connection.congested:
                    await self._until_writable(stream)
            if not stream.is_finished:
                stream.connection.finish_request()
                await self._watch_client()
        except Exception as error:
            # Whatever it was: the one that waits for the response must hear of it.
            stream.fail(error)

    async def _until_writable(self, stream: ResponseStream) -> None:
        """Wait until the upstream takes more of the body.

        No event is received meanwhile, because each would bring more of the body. So ASGI cannot tell that the client
        has left, and an upstream that streams its response without reading the request would go on for ever. Our own
        server tells by `on_lost`.
        """
        client = self._scope.get("akoya.connection")
        if client is None:
            await stream.wait_writable()
            return
        client.on_lost = lambda: stream.fail(ClientGone())
        try:
            await stream.wait_writable()
        finally:
            client.on_lost = None

    # -- the response

    async def respond(self, send: Send) -> None:
        """The answer, as far as it comes. Raises what `ResponseStream.read_buffered` raises."""
        stream = self._stream
        assert stream is not None
        head = stream.head
        assert head is not None
        headers = [*head.headers, VIA_HEADER]
        start: Message = {"type": "http.response.start", "status": stream.status, "headers": headers}
        trailers = head.trailers and "http.response.trailers" in (self._scope.get("extensions") or ())
        if trailers:
            start["trailers"] = True
        self._finish(stream)
        self.started = True
        await send(start)
        while True:
            ended = stream.ended
            data = stream.read_buffered()
            if ended:
                break
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await stream.wait_readable()
        await send({"type": "http.response.body", "body": data})
        if trailers:
            await send({"type": "http.response.trailers", "headers": stream.trailers, "more_trailers": False})

    def _finish(self, stream: ResponseStream) -> None:
        """An event stream may be silent for longer than any other response."""
        if not stream.is_finished and stream.head is not None:
            for name, value in stream.head.headers:
                if name == b"content-type":
                    if value[:17].lower() == b"text/event-stream":
                        stream.connection.disable_read_timeout()
                    return

    # -- from outside

    def _on_slow(self) -> None:
        if self._helper is None:
            self._helper = self._loop.create_task(self._watch_client())

    async def _watch_client(self) -> None:
        """Until the client leaves: then the upstream need not go on."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                if self._stream is not None:
                    self._stream.fail(ClientGone())
                return

    def _on_cancel(self, code: int, reason: str) -> None:
        if self._stream is not None:
            self._stream.fail(StreamCancelled(reason))
