"""Closes the connection after a final response to `Expect: 100-continue` that was sent before the `100`.

The client may then leave out the body (RFC 9110 section 10.1.1), so the server cannot know whether the next bytes are
the body or the next request. If a proxy in front reuses its connections for several users, another user's request could
be taken for the body of a refused one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from akoya_gateway.server.uvicorn_api import abort_cycle

_CONNECTION_CLOSE = (b"connection", b"close")


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return True if the headers announce a body. Without one, the next bytes are the next request."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


class ExpectContinueApp:
    """ASGI wrapper for a request with `Expect: 100-continue`.

    The server sends `100 Continue` when the app calls `receive`. A response that starts before that gets
    `Connection: close`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(receive, send)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._body_requested = False

    async def receive(self) -> Message:
        self._body_requested = True
        return await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._body_requested:
            message = {**message, "headers": [*message.get("headers", ()), _CONNECTION_CLOSE]}
        await self._send(message)

    def abort(self) -> None:
        """Close the connection without an exception, so that the client sees a truncated response."""
        abort_cycle(cast("Any", self._send).__self__)
