"""Responses of unknown length for HTTP/1.0 clients, which must not get chunked encoding (RFC 9112 section 6.1).

uvicorn's httptools protocol sends chunks regardless of the client's HTTP version. Other servers handle this themselves.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from akoya_gateway.connection_reset import reset
from akoya_gateway.server.uvicorn_api import abort_cycle


class CloseDelimited:
    """ASGI wrapper that delimits responses of unknown length to HTTP/1.0 clients by closing the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        if scope["type"] != "http" or scope["http_version"] != "1.0" or not isinstance(cycle, RequestResponseCycle):
            await self._app(scope, receive, send)
            return
        response = _Response(cycle)
        try:
            await self._app(scope, receive, response.send)
        except BaseException:
            response.cut()
            raise


class _Response:
    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._length_is_unknown = False

    async def send(self, message: Any) -> None:
        cycle = self._cycle
        if message["type"] == "http.response.start":
            self._length_is_unknown = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if self._length_is_unknown:
                cycle.chunked_encoding = False
        elif self._length_is_unknown:
            # The cycle rejects a body part that is longer than the rest of the declared length.
            cycle.expected_content_length = len(message.get("body", b""))
        await cycle.send(message)

    def abort(self) -> None:
        """Close the connection without an exception, so that the client sees a truncated response."""
        self.cut()
        abort_cycle(self._cycle)

    def cut(self) -> None:
        """Reset the connection if an orderly close would make a truncated response look complete."""
        cycle = self._cycle
        if self._length_is_unknown and not cycle.response_complete:
            reset(cycle.transport)
