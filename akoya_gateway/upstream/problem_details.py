"""A refusal or failure as RFC 9457 problem details, for a proxy that stands alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from akoya_gateway.errors import GatewayError

Message = MutableMapping[str, Any]


async def send_problem(
    send: Callable[[Message], Awaitable[None]], error: GatewayError, *, kind: str = "http.response"
) -> None:
    """Answer with the error's status, code, title and detail; the connection closes if the error asks for it.
    `kind` begins the ASGI event types."""
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
