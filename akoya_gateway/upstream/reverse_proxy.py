"""The reverse proxy: an ordinary ASGI app that forwards requests over a connection pool.

It streams both bodies and buffers a bounded part of each. A request that arrives in one ASGI event and completes
within one tick of the pool needs no task and no timer. A slower one gets a task that detects when the client
disconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from starlette.types import Message, Receive, Scope, Send

from akoya_gateway.client_headers import ClientHeaders
from akoya_gateway.config.model import Origin
from akoya_gateway.trusted_proxies import TrustedPeer, peer_of
from akoya_gateway.upstream.errors import ClientGone, ClosedEarly, RefusedRequest, StreamCancelled
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.forwarded_headers import VIA, ForwardedHeaders
from akoya_gateway.upstream.http.request_head import Body, Hop, RequestHead, RequestWriter, target_of
from akoya_gateway.upstream.http.response_head import begins_event_stream
from akoya_gateway.upstream.http.response_stream import ResponseStream
from akoya_gateway.upstream.stream_cancellation import StreamCancellation
from akoya_gateway.upstream.websocket.proxy import WebSocketProxy

VIA_HEADER = (b"via", VIA)


class ReverseProxy:
    """ASGI app that forwards HTTP requests and WebSockets to the upstream. Its caller closes the pool.

    `scope["headers"]`, `raw_path` and `query_string` are sent byte for byte, except for the changes that RFC 9110
    section 7.6 requires and headers that `client_headers` removes. These private scope keys are used:

    - `akoya.ending`: a `StreamCancellation`, with which the exchange can be cancelled from outside.
    - `akoya.ours`: the number of headers at the end of `headers` that the gateway has added.
    - `akoya.again`: true if the request was sent before on a connection that the upstream was just closing.

    Raises:
        RefusedRequest: The request is not forwarded. Usually raised before anything is sent, but an oversized or
            inconsistent body may only be noticed while it is being sent.
        UpstreamError: 502, 503 or 504. If the response has already started, the caller must abort the client's
            connection, as servers do when an app raises.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        trusted_proxies: Sequence[TrustedPeer] = (),
        public_url: Origin | None = None,
        client_headers: ClientHeaders | None = None,
    ) -> None:
        """Create the proxy.

        Args:
            pool: Connections to the upstream.
            trusted_proxies: Peers whose forwarded headers are believed.
            public_url: The URL that browsers use (see `ForwardedHeaders`).
            client_headers: Decides which client headers are forwarded.
        """
        self.pool = pool
        upstream = pool.upstream
        default_host = upstream.origins[0].authority.encode("ascii")
        self.writer = RequestWriter(
            ForwardedHeaders(trusted_proxies, public_url), default_host, client_headers, keep_alive=upstream.keep_alive
        )
        self._websockets = WebSocketProxy(pool, self.writer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websockets(scope, receive, send)
        else:
            await self.forward(scope, receive, send)

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an `http` scope, as `__call__`."""
        exchange = ProxiedExchange(self, scope, receive, scope.get("akoya.ending"))
        try:
            await exchange.run()
            await exchange.respond(send)
        except ClientGone:
            return
        finally:
            exchange.clean_up()

    def build_request(self, scope: Scope) -> RequestHead:
        """Return the request head for an HTTP scope. Raises RefusedRequest."""
        peer, is_forwarded = peer_of(scope.get("client"))
        trailers = "http.response.trailers" in (scope.get("extensions") or ())
        hop = Hop(peer, is_forwarded, scope.get("scheme", "http"), scope["http_version"], trailers)
        return self.writer.write(
            scope["method"], target_of(scope), scope["headers"], hop, injected_headers=scope.get("akoya.ours", 0)
        )


class ProxiedExchange:
    """One proxied HTTP request and its response."""

    _stream: ResponseStream | None = None
    _helper: asyncio.Task[None] | None = None
    _sent = 0
    _listens = False

    def __init__(
        self, proxy: ReverseProxy, scope: Scope, receive: Receive, cancellation: StreamCancellation | None
    ) -> None:
        self._proxy = proxy
        self._scope = scope
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._cancellation = cancellation

    def run(self) -> Awaitable[None]:
        """Return the awaitable that sends the request and waits for the response. Raises RefusedRequest."""
        head = self._proxy.build_request(self._scope)
        body = head.body
        if body is Body.NONE or (body is Body.LENGTH and not head.length):
            return self._without_body(head)
        return self._with_body(head)

    def clean_up(self) -> None:
        """Cancel the helper task, and abort the connection unless the response is complete."""
        if self._helper is not None:
            self._helper.cancel()
        stream = self._stream
        if stream is not None:
            if not stream.is_finished:
                stream.fail(ClientGone())
            # The exchange and the stream reference each other. Break the cycle, so that reference counting frees them.
            self._stream = None
            if self._listens and self._cancellation is not None:
                self._cancellation.unlisten(self._on_cancel)

    # -- the request

    async def _without_body(self, head: RequestHead) -> None:
        pool = self._proxy.pool
        if self._scope.get("akoya.again"):
            await self._retry(head)
            return
        connection = pool.get_nowait() or await pool.acquire()
        stream = self.begin(connection, head.head, head_only=head.head_only)
        try:
            await stream.wait_head()
        except ClosedEarly as error:
            if not connection.may_retry(error, idempotent=head.idempotent):
                raise
            # Once, on a new connection: another idle one may be closing for the same reason.
            await self._retry(head)

    async def _retry(self, head: RequestHead) -> None:
        connection = await self._proxy.pool.acquire(fresh=True)
        await self.begin(connection, head.head, head_only=head.head_only).wait_head()

    async def _with_body(self, request_head: RequestHead) -> None:
        """Send a request with a body.

        Unless the body is chunked or the client expects `100 Continue`, the first body event is sent together with the
        head. A task sends the rest, because the response may arrive before the body is complete. The server sends
        `100 Continue` on `receive`, which is called only once there is a connection: if the upstream is down, the
        client gets the error before it sends its body.
        """
        pool = self._proxy.pool
        head = request_head.head
        if request_head.body is Body.CHUNKED or request_head.expects:
            connection = pool.get_nowait() or await pool.acquire()
            stream = self.begin(connection, head, head_only=request_head.head_only, complete=False)
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
            stream = self.begin(connection, head + data, head_only=request_head.head_only, complete=not more)
            if more:
                self._helper = self._loop.create_task(self._pump(stream, body, length))
        await stream.wait_head()

    def begin(self, connection: Connection, data: bytes, *, head_only: bool, complete: bool = True) -> ResponseStream:
        """Send a request (parameters as of `Connection.start`). Returns the stream of its response."""
        stream = self._stream = ResponseStream(connection, self._loop, self._on_slow)
        connection.start(data, stream, head_only=head_only, complete=complete)
        return stream

    def _frame(self, body: Body, length: int, data: bytes, *, more: bool) -> bytes:
        """Return a part of the body with its framing (RFC 9112 section 7.1).

        Raises RefusedRequest if the body does not match its Content-Length.
        """
        self._sent += len(data)
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
        """Send the request body until it is complete or the exchange is finished, then watch the client."""
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
            # Pass on every error, because `run` waits for the response and would not notice that this task failed.
            stream.fail(error)

    async def _until_writable(self, stream: ResponseStream) -> None:
        """Wait until the upstream takes more of the body.

        No ASGI event is received meanwhile, because each could contain more of the body. ASGI can therefore not report
        that the client has disconnected, and an upstream that streams its response without reading the request would
        continue forever. The gateway's own server reports it through `on_lost`.
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
        """Send the response to the client as it arrives. Raises the error of the stream if it fails."""
        stream = self._stream
        assert stream is not None
        head = stream.head if stream.complete is None else stream.complete.head
        assert head is not None
        headers = [*head.headers, VIA_HEADER]
        start: Message = {"type": "http.response.start", "status": stream.status, "headers": headers}
        trailers = head.trailers and "http.response.trailers" in (self._scope.get("extensions") or ())
        if trailers:
            start["trailers"] = True
        if not stream.is_finished:
            if self._cancellation is not None:
                self._listens = True
                self._cancellation.listen(self._on_cancel)
            if begins_event_stream(head.headers):
                # It may legitimately be silent for a long time.
                stream.connection.disable_read_timeout()
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

    # -- callbacks and the watcher task

    def _on_slow(self) -> None:
        if self._helper is None:
            self._helper = self._loop.create_task(self._watch_client())

    async def _watch_client(self) -> None:
        """Wait until the client disconnects, then abort the upstream connection."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                if self._stream is not None:
                    self._stream.fail(ClientGone())
                return

    def _on_cancel(self, code: int, reason: str) -> None:
        if self._stream is not None:
            self._stream.fail(StreamCancelled(reason))
