"""Request bodies: read whole up to a limit for our own forms, counted on the way for the app's."""

from __future__ import annotations

from akoya_gateway.access.ask import Ask
from akoya_gateway.errors import UserError
from akoya_gateway.faces.lifespan import Message, Receive


class BodyTooLarge(UserError):
    status = 413
    code = "body-too-large"
    title = "The request is too large"


async def whole(receive: Receive, limit: int) -> bytes:
    """The body, at most `limit` bytes. Raises `BodyTooLarge`, and `UserError` when the client goes away."""
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


def limited(receive: Receive, ask: Ask, limit: int) -> Receive:
    """`receive` that raises `BodyTooLarge` past `limit` bytes; at once where Content-Length tells."""
    announced = ask.header(b"content-length")
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
