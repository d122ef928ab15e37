"""The WebSocket proxy (RFC 6455): performs the upstream handshake, forwards the response, then connects both sides.

If the ASGI server can hand over the client's connection, bytes are copied between the two connections (`tunnel`).
Otherwise whole messages are relayed (`message_relay`).
"""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.types import Receive, Scope, Send
from websockets.http11 import Response

from akoya_gateway.upstream.client_send import ClientSend
from akoya_gateway.upstream.errors import ClientGone, StreamCancelled
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.forwarded_headers import VIA_HEADER
from akoya_gateway.upstream.http.request_head import RequestWriter
from akoya_gateway.upstream.http.response_head import Headers
from akoya_gateway.upstream.websocket.client_handshake import ClientHandshake, HandshakeRejected, end_to_end
from akoya_gateway.upstream.websocket.message_relay import UpstreamWebSocket, relay
from akoya_gateway.upstream.websocket.tunnel import EXTENSION, Tunnel

_SINGLE = (b"content-type", b"date")


async def proxy_websocket(
    pool: ConnectionPool, writer: RequestWriter, scope: Scope, receive: Receive, send: Send
) -> None:
    """Proxy one WebSocket, which is an ASGI websocket scope.

    Raises:
        RefusedRequest: The handshake request must not be forwarded. Nothing was sent to the client.
        UpstreamError: The upstream handshake failed. Nothing was sent to the client.
    """
    message = await receive()
    if message["type"] != "websocket.connect":
        return
    bounds = pool.upstream.websocket
    handshake = await pool.dial(lambda _: ClientHandshake(scope.get("subprotocols") or [], bounds.max_message))
    try:
        if isinstance(send, ClientSend):
            send.on_cancel = partial(handshake.fail, StreamCancelled())
        response = await _open(handshake, writer, scope, receive, pool.upstream.read_timeout)
        headers = [*end_to_end(response), VIA_HEADER]
        await send({"type": "websocket.accept", "subprotocol": handshake.protocol.subprotocol, "headers": headers})
    except HandshakeRejected as refusal:
        handshake.abort()
        await _refuse(refusal.response, scope, send)
        return
    except ClientGone:
        handshake.abort()
        return
    except BaseException:
        handshake.abort()
        raise
    client = (scope.get("extensions") or {}).get(EXTENSION)
    if client is not None:
        await Tunnel(client, handshake, bounds).run()
    else:
        await relay(UpstreamWebSocket(handshake, bounds), receive, send)


async def _open(
    handshake: ClientHandshake, writer: RequestWriter, scope: Scope, receive: Receive, timeout: float
) -> Response:
    """Perform the upstream handshake. Raises as `ClientHandshake.open`, and ClientGone if the client disconnects."""
    watcher = asyncio.create_task(_watch_client(receive, handshake))
    try:
        response = await handshake.open(writer, scope, timeout)
    finally:
        watcher.cancel()
        # ASGI: no messages arrive before the handshake is accepted, so the watcher takes none away from the relay.
        await asyncio.wait((watcher,))
    if not watcher.cancelled():
        raise ClientGone
    return response


async def _watch_client(receive: Receive, handshake: ClientHandshake) -> None:
    """Wait until the client disconnects, then fail the handshake: the upstream may take long to respond to it."""
    await receive()
    handshake.fail(ClientGone())


async def _refuse(response: Response, scope: Scope, send: Send) -> None:
    """Forward the response with which the upstream rejected the handshake.

    If the server does not support this, close the WebSocket, for which ASGI servers send a plain 403.
    """
    if "websocket.http.response" in (scope.get("extensions") or ()) and 200 <= response.status_code <= 599:
        body = bytes(response.body)
        headers = [*_without_duplicates(end_to_end(response)), (b"content-length", b"%d" % len(body))]
        await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008})


def _without_duplicates(headers: Headers) -> Headers:
    """Return the headers with the first of several `Content-Type` or `Date`, with which uvicorn fails to respond."""
    names = [name for name, _ in headers]
    return [header for at, header in enumerate(headers) if header[0] not in _SINGLE or names.index(header[0]) == at]
