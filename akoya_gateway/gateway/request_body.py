"""Request bodies: reads small bodies for the gateway's own forms, and limits bodies that stream to the app."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.errors import UserError
from akoya_gateway.gateway.lifespan import Message, Receive
from akoya_gateway.signing.content_digest import sha256


class BodyTooLarge(UserError):
    """The request body exceeds the limit."""

    status = 413
    code = "body-too-large"
    title = "The request is too large"


class BodyTimeout(UserError):
    """The request body did not arrive in time."""

    status = 408
    code = "body-timeout"
    title = "The request took too long to arrive"


BODY_TIMEOUT = 60.0
"""Timeout in seconds for reading a complete body.

The request is not authorized until then, and holds up no other request.
"""


async def read_body(receive: Receive, limit: int, within: float = BODY_TIMEOUT) -> bytes:
    """Return the complete body.

    Args:
        receive: ASGI's `receive`.
        limit: Maximum size in bytes.
        within: Timeout in seconds.

    Raises:
        BodyTooLarge: The body exceeds `limit`.
        BodyTimeout: The body did not arrive in time.
        UserError: The client disconnected.
    """
    try:
        async with asyncio.timeout(within):
            return await _read_body(receive, limit)
    except TimeoutError:
        raise BodyTimeout from None


async def _read_body(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise UserError("The request body is incomplete.", code="aborted")
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge
        if not message.get("more_body", False):
            return bytes(body)


def limit_body(receive: Receive, request: RequestInfo, limit: int) -> Receive:
    """Return a `receive` that raises `BodyTooLarge` after `limit` bytes.

    Raises `BodyTooLarge` at once if Content-Length exceeds the limit.
    """
    announced = request.header(b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise BodyTooLarge
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise BodyTooLarge
        return message

    return counting


async def digest_body(request: RequestInfo, receive: Receive, largest: int) -> tuple[RequestInfo, Receive]:
    """Read the body and return the request with its Content-Digest, and a `receive` that replays the body.

    A body of unknown length, or longer than `largest` bytes, is not read: it is streamed without a digest. Raises
    `UserError` if the client disconnects.
    """
    announced = request.header(b"content-length")
    if announced is None or not announced.isdigit() or not 0 < int(announced) <= largest:
        return request, receive
    body = await read_body(receive, largest)
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def again() -> Message:
        nonlocal message
        if message is None:
            return await receive()
        given, message = message, None
        return given

    return replace(request, content_digest=sha256(body)), again
