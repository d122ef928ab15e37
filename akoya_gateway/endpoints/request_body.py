"""Reads a complete request body within a size limit and a timeout."""

from __future__ import annotations

from starlette.types import Receive

from akoya_gateway.deadline import running_timeout
from akoya_gateway.errors import UserError


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

    This does not use Starlette's `Request.stream`, which costs 1.7 us more: requests to the app that get a digest are
    read here, too.

    Args:
        receive: ASGI's `receive`.
        limit: Maximum size in bytes.
        within: Timeout in seconds.

    Raises:
        BodyTooLarge: The body exceeds `limit`.
        BodyTimeout: The body did not arrive in time.
        UserError: The client disconnected.
    """
    body = bytearray()
    try:
        async with running_timeout(within):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise UserError("The request body is incomplete.", code="aborted")
                body += message.get("body", b"")
                if len(body) > limit:
                    raise BodyTooLarge
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise BodyTimeout from None
