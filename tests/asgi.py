"""What the ASGI apps of tests have in common."""

from __future__ import annotations

from typing import Any


async def read_body(receive: Any) -> bytes:
    """The whole body. Raises ConnectionError where the client leaves before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
