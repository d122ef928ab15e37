"""Reads a complete request body within a size limit and a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect

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


async def read_body(chunks: AsyncIterator[bytes], limit: int, within: float = BODY_TIMEOUT) -> bytes:
    """Return the complete body.

    Args:
        chunks: the body as it arrives: `starlette.requests.Request.stream()`.
        limit: Maximum size in bytes.
        within: Timeout in seconds.

    Raises:
        BodyTooLarge: The body exceeds `limit`.
        BodyTimeout: The body did not arrive in time.
        UserError: The client disconnected.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(within):
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge
    except TimeoutError:
        raise BodyTimeout from None
    except ClientDisconnect:
        raise UserError("The request body is incomplete.", code="aborted") from None
    return bytes(body)
