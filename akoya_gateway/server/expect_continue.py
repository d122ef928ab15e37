"""Closes the connection after a final response to `Expect: 100-continue` that was sent before the `100`.

The client may then leave out the body (RFC 9110 section 10.1.1), so the server cannot know whether the next bytes are
the body or the next request. If a proxy in front reuses its connections for several users, another user's request could
be taken for the body of a refused one.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        body_requested = False

        async def receive_body() -> Message:
            nonlocal body_requested
            body_requested = True
            return await receive()

        async def send_response(message: Message) -> None:
            if message["type"] == "http.response.start" and not body_requested:
                message = {**message, "headers": [*message.get("headers", ()), _CONNECTION_CLOSE]}
            await send(message)

        await self._app(scope, receive_body, send_response)
