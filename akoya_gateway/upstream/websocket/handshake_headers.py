"""Headers of the WebSocket opening handshake (RFC 6455 section 4). Does no I/O."""

from __future__ import annotations

from starlette.types import Scope
from websockets.http11 import Response

from akoya_gateway.trusted_proxies import peer_of
from akoya_gateway.upstream.http.request_head import Hop, RequestWriter, target_of
from akoya_gateway.upstream.http.response_head import HOP_BY_HOP, Headers, tokens

_NOT_FORWARDED = HOP_BY_HOP | {
    b"content-length",
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
}


def handshake(writer: RequestWriter, scope: Scope, key: str) -> bytes:
    """Return the handshake request with the client's headers and the gateway's own `key` (RFC 6455 section 4.1).

    Raises:
        RefusedRequest: The request must not be forwarded.
    """
    peer, is_forwarded = peer_of(scope.get("client"))
    extra = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: %b\r\n"
    headers = [header for header in scope["headers"] if not header[0].lower().startswith(b"sec-websocket-")]
    if scope.get("subprotocols"):
        headers.append((b"sec-websocket-protocol", ", ".join(scope["subprotocols"]).encode("latin-1")))
    hop = Hop(peer, is_forwarded, "https" if scope.get("scheme") in ("wss", "https") else "http")
    return writer.write("GET", target_of(scope), headers, hop, extra=extra % key.encode("ascii")).head


def end_to_end(response: Response) -> Headers:
    """Return the headers of a handshake response that may be forwarded to the client."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()
    ]
    named = [token for name, value in headers if name == b"connection" for token in tokens(value)]
    return [(name, value) for name, value in headers if name not in _NOT_FORWARDED and name not in named]
