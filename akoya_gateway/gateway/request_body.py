"""Request bodies that stream to the app: limits their size, and adds a Content-Digest if configured."""

from __future__ import annotations

from dataclasses import replace

from starlette.types import Message, Receive

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.endpoints.request_body import BodyTooLarge, read_body
from akoya_gateway.signing.content_digest import sha256


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
