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
from akoya_gateway.upstream.client_send import ClientSend
from akoya_gateway.upstream.errors import ClientGone, RefusedRequest, StreamCancelled
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.forwarded_headers import VIA_HEADER, ForwardedHeaders
from akoya_gateway.upstream.http.request_head import Body, Hop, RequestHead, RequestWriter, target_of
from akoya_gateway.upstream.http.response_head import begins_event_stream
from akoya_gateway.upstream.http.response_stream import ResponseStream
from akoya_gateway.upstream.websocket.proxy import proxy_websocket


class ReverseProxy:
    """ASGI app that forwards HTTP requests and WebSockets to the upstream. Its caller closes the pool.

    `scope["headers"]`, `raw_path` and `query_string` are sent byte for byte, except for the changes that RFC 9110
    section 7.6 requires and headers that `client_headers` removes. `send` may be a `ClientSend`. These private scope
    keys are used:

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await proxy_websocket(self.pool, self.writer, scope, receive, send)
        else:
            await self.forward(scope, receive, send)

    def forward(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the awaitable that handles an `http` scope, as `__call__`."""
        return ProxiedExchange(self, scope, receive, send).run()

    def build_request(self, scope: Scope) -> RequestHead:
        """Return the request head for an HTTP scope. Raises RefusedRequest."""
        peer, is_forwarded = peer_of(scope.get("client"))
        trailers = "http.response.trailers" in (scope.get("extensions") or ())
        hop = Hop(peer, is_forwarded, scope.get("scheme", "http"), scope["http_version"], trailers)
        return self.writer.write(
            scope["method"], target_of(scope), scope["headers"], hop, injected_headers=scope.get("akoya.ours", 0)
        )


class ProxiedExchange(ResponseStream):
    """One proxied HTTP request, whose response is passed on to an ASGI server."""

    _helper: asyncio.Task[None] | None = None
    _sent = 0

    def __init__(self, proxy: ReverseProxy, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(asyncio.get_running_loop())
        self._proxy = proxy
        self._scope = scope
        self._receive = receive
        self._send = send

    async def run(self, begun: RequestHead | None = None) -> None:
        """Forward the request and the response.

        Returns early if the client disconnects. Raises as `ReverseProxy`.

        Args:
            begun: The head of a request without a body, if it has been sent already (`begin`).
        """
        send = self._send
        try:
            request = begun or self._proxy.build_request(self._scope)
            if request.body is Body.NONE or (request.body is Body.LENGTH and not request.length):
                if begun is None:
                    self.begin(await self._acquire(), request.head, head_only=request.head_only)
                await self.head_or_failure()
                if not self.status:
                    await self._retry(request)
            else:
                await self._with_body(request)
            if self.complete is not None and isinstance(send, ClientSend):
                await send.server_send(send.start_message(self.complete))
                await send.server_send({"type": "http.response.body", "body": self.read_buffered()})
            else:
                await self._respond()
        except ClientGone:
            return
        finally:
            self.close()

    def close(self) -> None:
        """Cancel the helper task, and abort the connection unless the response is complete."""
        if self._helper is not None:
            self._helper.cancel()
        if not self.is_finished:
            self.fail(ClientGone())

    # -- the request

    async def _acquire(self) -> Connection:
        pool = self._proxy.pool
        if self._scope.get("akoya.again"):
            return await pool.acquire(fresh=True)
        return pool.get_nowait() or await pool.acquire()

    async def _retry(self, request: RequestHead) -> None:
        """Send a failed request without a body once more, if that is safe, and wait for the head of its response."""
        error = self.failure
        assert error is not None
        if not self.connection.may_retry(error, idempotent=request.idempotent):
            raise error
        # Once, on a new connection: another idle one may be closing for the same reason.
        connection = await self._proxy.pool.acquire(fresh=True)
        self.begin(connection, request.head, head_only=request.head_only)
        await self.wait_head()

    async def _with_body(self, request_head: RequestHead) -> None:
        """Send a request with a body, and wait for the head of its response.

        Unless the body is chunked or the client expects `100 Continue`, the first body event is sent together with the
        head. A task sends the rest, because the response may arrive before the body is complete. The server sends
        `100 Continue` on `receive`, which is called only once there is a connection: if the upstream is down, the
        client gets the error before it sends its body.
        """
        data, body, length = request_head.head, request_head.body, request_head.length
        more = True
        if body is not Body.CHUNKED and not request_head.expects:
            message = await self._next_event()
            first: bytes = message.get("body", b"")
            more = bool(message.get("more_body", False))
            if body is Body.ASK and more:
                body = Body.CHUNKED
                data += b"transfer-encoding: chunked\r\n\r\n"
            elif body is Body.ASK:
                body, length = Body.LENGTH, len(first)
                data += b"content-length: %d\r\n\r\n" % length if first else b"\r\n"
            data += self._frame(body, length, first, more=more)
        self.begin(await self._acquire(), data, head_only=request_head.head_only, complete=not more)
        if more:
            self._helper = self._loop.create_task(self._pump(body, length))
        await self.wait_head()

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

    async def _pump(self, body: Body, length: int) -> None:
        """Send the request body until it is complete or the exchange is finished, then watch the client."""
        try:
            more = True
            while more and not self.is_finished:
                message = await self._next_event()
                more = bool(message.get("more_body", False))
                data = self._frame(body, length, message.get("body", b""), more=more)
                if self.is_finished:
                    return
                if data:
                    self.connection.write(data)
                if self.connection.congested:
                    await self._until_writable()
            if not self.is_finished:
                self.connection.finish_request()
                await self._watch_client()
        except Exception as error:
            # Pass on every error, because `run` waits for the response and would not notice that this task failed.
            self.fail(error)

    async def _until_writable(self) -> None:
        """Wait until the upstream takes more of the body.

        No ASGI event is received meanwhile, because each could contain more of the body. ASGI can therefore not report
        that the client has disconnected, and an upstream that streams its response without reading the request would
        continue forever. The gateway's own server reports it through `on_lost`.
        """
        client = self._scope.get("akoya.connection")
        if client is None:
            await self.wait_writable()
            return
        client.on_lost = self._on_client_gone
        try:
            await self.wait_writable()
        finally:
            client.on_lost = None

    # -- the response

    async def _respond(self) -> None:
        """Send the response to the client as it arrives. Raises the error of the exchange if it fails."""
        send = self._send
        head = self.head if self.complete is None else self.complete.head
        assert head is not None
        start: Message = {"type": "http.response.start", "status": self.status, "headers": [*head.headers, VIA_HEADER]}
        trailers = head.trailers and "http.response.trailers" in (self._scope.get("extensions") or ())
        if trailers:
            start["trailers"] = True
        if not self.is_finished:
            if isinstance(send, ClientSend):
                send.on_cancel = self._on_cancel
            if begins_event_stream(head.headers):
                # It may legitimately be silent for a long time.
                self.connection.disable_read_timeout()
        await send(start)
        while True:
            ended = self.ended
            data = self.read_buffered()
            if ended:
                break
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await self.wait_readable()
        await send({"type": "http.response.body", "body": data})
        if trailers:
            await send({"type": "http.response.trailers", "headers": self.trailers, "more_trailers": False})

    # -- callbacks and the watcher task

    def on_tick(self) -> None:
        """Detect from now on when the client disconnects, because the exchange takes longer."""
        # A helper that is done saw the client disconnect while the request was waiting to be sent again.
        if self._helper is None or self._helper.done():
            self._helper = self._loop.create_task(self._watch_client())

    async def _watch_client(self) -> None:
        """Wait until the client disconnects, then abort the upstream connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._on_client_gone()

    def _on_client_gone(self) -> None:
        self.fail(ClientGone())

    def _on_cancel(self) -> None:
        self.fail(StreamCancelled("the bank connection of this stream has ended"))
