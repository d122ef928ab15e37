"""The opening words of a WebSocket (RFC 6455 section 4): no I/O."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from websockets.http11 import Response

from akoya_gateway.trusted_proxies import peer_of
from akoya_gateway.upstream.http.request_head import RequestWriter
from akoya_gateway.upstream.http.response_head import HOP_BY_HOP, Headers, tokens

Scope = MutableMapping[str, Any]

_OWN = HOP_BY_HOP | {b"content-length", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"}


def handshake(writer: RequestWriter, scope: Scope, key: str) -> bytes:
    """The opening request (RFC 6455 section 4.1): the client's headers, our key. Raises RefusedRequest."""
    peer, told = peer_of(scope.get("client"))
    path: bytes = scope["raw_path"]
    query = scope.get("query_string", b"")
    extra = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: %b\r\n"
    headers = [header for header in scope["headers"] if not header[0].lower().startswith(b"sec-websocket-")]
    if scope.get("subprotocols"):
        headers.append((b"sec-websocket-protocol", ", ".join(scope["subprotocols"]).encode("latin-1")))
    return writer.write(
        "GET",
        path + b"?" + query if query else path,
        headers,
        peer=peer,
        told=told,
        scheme="https" if scope["scheme"] in ("wss", "https") else "http",
        extra=extra % key.encode("ascii"),
    ).head


def end_to_end(response: Response) -> Headers:
    """The handshake response's headers that are for the client."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()
    ]
    named = [token for name, value in headers if name == b"connection" for token in tokens(value)]
    return [(name, value) for name, value in headers if name not in _OWN and name not in named]
