"""Helpers shared by the tests' ASGI apps."""

from __future__ import annotations

from typing import Any


async def read_body(receive: Any) -> bytes:
    """Return the whole request body. Raise ConnectionError if the client disconnects before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body"):
            return body
