"""An answer to `Expect: 100-continue` that comes before the `100` (RFC 9110 section 10.1.1).

The client then need not send its body, so nobody can tell whether what follows is the body or the next request. A proxy
in front that shares its connections would have another user's request taken for the body of a refused one. So such an
answer ends its connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLOSE = (b"connection", b"close")


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Without one there is no doubt what comes next."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


class ExpectContinueApp:
    """ASGI: `app`, for a request with the expectation. The server says `100 Continue` when the body is asked for."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = False

        async def asking() -> Message:
            nonlocal asked
            asked = True
            return await receive()

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start" and not asked:
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        await self._app(scope, asking, answering)
