"""The WebSocket proxy (RFC 6455): performs the upstream handshake, forwards the response, then connects both sides.

If the ASGI server can hand over the client's connection, bytes are copied between the two connections (`tunnel`).
Otherwise whole messages are relayed (`message_relay`).
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send
from websockets.http11 import Response

from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.forwarded_headers import VIA
from akoya_gateway.upstream.http.request_head import RequestWriter
from akoya_gateway.upstream.websocket.client_handshake import ClientHandshake, HandshakeRejected, end_to_end
from akoya_gateway.upstream.websocket.message_relay import UpstreamWebSocket, relay
from akoya_gateway.upstream.websocket.tunnel import EXTENSION, Tunnel


class WebSocketProxy:
    """Proxies ASGI websocket scopes."""

    def __init__(self, pool: ConnectionPool, writer: RequestWriter) -> None:
        self._pool = pool
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Proxy one WebSocket.

        Raises:
            RefusedRequest: The handshake request must not be forwarded. Nothing was sent to the client.
            UpstreamError: The upstream handshake failed. Nothing was sent to the client.
        """
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        upstream = self._pool.upstream
        subprotocols = scope.get("subprotocols") or []
        handshake = await self._pool.dial(lambda: ClientHandshake(subprotocols, upstream.websocket.max_message))
        try:
            response = await handshake.open(self._writer, scope, upstream.read_timeout)
            headers = [*end_to_end(response), (b"via", VIA)]
            await send({"type": "websocket.accept", "subprotocol": handshake.subprotocol, "headers": headers})
        except HandshakeRejected as refusal:
            handshake.abort()
            await _refuse(refusal.response, scope, send)
        except BaseException:
            handshake.abort()
            raise
        else:
            await self._join(handshake, scope, receive, send)

    async def _join(self, handshake: ClientHandshake, scope: Scope, receive: Receive, send: Send) -> None:
        bounds = self._pool.upstream.websocket
        client = (scope.get("extensions") or {}).get(EXTENSION)
        if client is not None:
            await Tunnel(client, handshake, bounds).run()
            return
        socket = UpstreamWebSocket(handshake, bounds)
        try:
            await relay(socket, receive, send)
        finally:
            socket.release()


async def _refuse(response: Response, scope: Scope, send: Send) -> None:
    """Forward the response with which the upstream rejected the handshake.

    If the server does not support this, close the WebSocket, for which ASGI servers send a plain 403.
    """
    if "websocket.http.response" in (scope.get("extensions") or ()) and 200 <= response.status_code <= 599:
        body = bytes(response.body)
        headers = [*end_to_end(response), (b"content-length", b"%d" % len(body))]
        await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008})
