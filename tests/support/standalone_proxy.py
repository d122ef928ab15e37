"""A reverse proxy as an ASGI app of its own, without the gateway that handles its errors."""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from akoya_gateway.errors import GatewayError
from akoya_gateway.upstream.reverse_proxy import ReverseProxy


class StandaloneProxy:
    """ASGI app that responds to the errors of `proxy` with problem details, and closes its pool at shutdown."""

    def __init__(self, proxy: ReverseProxy) -> None:
        self.proxy = proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.proxy(scope, receive, noting)
        except GatewayError as error:
            if started:
                raise
            if scope["type"] == "http":
                await _send_problem(send, error, "http.response")
            elif "websocket.http.response" in (scope.get("extensions") or ()):
                await _send_problem(send, error, "websocket.http.response")
            else:
                await send({"type": "websocket.close", "code": 1014})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.proxy.pool.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return


async def _send_problem(send: Send, error: GatewayError, kind: str) -> None:
    """Send a response with the error's status, code, title and detail, as ASGI messages of this kind."""
    problem: dict[str, Any] = {"type": f"about:blank#{error.code}", "title": error.title, "status": error.status}
    if error.detail:
        problem["detail"] = error.detail
    body = json.dumps(problem).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if getattr(error, "close", False):
        headers.append((b"connection", b"close"))
    await send({"type": f"{kind}.start", "status": error.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
