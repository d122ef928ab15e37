"""Request bodies: read whole up to a limit for our own forms, counted on the way for the app's."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.errors import UserError
from akoya_gateway.gateway.lifespan import Message, Receive
from akoya_gateway.signing.content_digest import sha256


class BodyTooLarge(UserError):
    status = 413
    code = "body-too-large"
    title = "The request is too large"


class BodyTimeout(UserError):
    status = 408
    code = "body-timeout"
    title = "The request took too long to arrive"


BODY_TIMEOUT = 60.0
"""Seconds for a body that is read whole: until then nothing of the request has been judged, and nobody else waits."""


async def read_body(receive: Receive, limit: int, within: float = BODY_TIMEOUT) -> bytes:
    """The body, at most `limit` bytes. Raises `BodyTooLarge`, `BodyTimeout`, and `UserError` when the client goes
    away."""
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
            raise UserError("The request was not finished.", code="aborted")
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge
        if not message.get("more_body", False):
            return bytes(body)


def limit_body(receive: Receive, request: RequestInfo, limit: int) -> Receive:
    """`receive` that raises `BodyTooLarge` past `limit` bytes; at once where Content-Length tells."""
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
    """The request with the Content-Digest of its body, if that is announced to be no longer than `largest` bytes; the
    body is read for it, and given out again by the `receive` that is returned.

    A body of unknown or greater length streams on without one. Raises `UserError` when the client goes away.
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
