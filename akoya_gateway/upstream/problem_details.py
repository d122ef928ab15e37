"""Sends errors as RFC 9457 problem details, for a reverse proxy that is used without the gateway around it."""

from __future__ import annotations

import json

from starlette.types import Send

from akoya_gateway.errors import GatewayError


async def send_problem(send: Send, error: GatewayError, *, kind: str = "http.response") -> None:
    """Send a response with the error's status, code, title and detail.

    The response contains `Connection: close` if the error has a true `close` attribute.

    Args:
        send: The ASGI `send`.
        error: The error to report.
        kind: The prefix of the ASGI event types: `http.response` or `websocket.http.response`.
    """
    problem = {"type": f"about:blank#{error.code}", "title": error.title, "status": error.status}
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
