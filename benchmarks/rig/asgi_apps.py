"""Apps for any ASGI server: a bare app, the same app in the gateway, and the gateway in front of the upstream.

BENCH_CONFIG is the path of the configuration.
"""

from __future__ import annotations

import os
from typing import Any

from starlette.types import ASGIApp

from akoya_gateway import Gateway, sidecar

_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"12")]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"hello, world"})


def wrapped() -> Gateway:
    return Gateway(bare, os.environ["BENCH_CONFIG"])


def proxied() -> ASGIApp:
    return sidecar(os.environ["BENCH_CONFIG"])
