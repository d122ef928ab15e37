"""One environment for each entry point, shared by the tests of this package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.environment import GatewayEnv
from tests.support.processes import AppServer

ALLOWED = {"allow_client_headers": ["X-Original-Filename", "Traceparent"], "allow_underscore_headers": ["x_legacy"]}
SENT = [(b"akoya-id-token", b"secret"), (b"akoya_id_token", b"secret"), (b"Akoya_Id_Token", b"secret"), (b"akoya.owner", b"secret"), (b"akoya", b"secret"),
        (b"set-cookie", b"akoya=fixed; Path=/"), (b"set-cookie", b"akoya-browser=fixed"), (b"Set-Cookie", b" akoya = fixed"), (b"set-cookie", b"=akoya=fixed"),
        (b"set-cookie", b"theirs=kept"), (b"set-cookie", b"akoyan=kept"), (b"set-cookie", b"x=akoya=kept"), (b"akoyan", b"kept"),
        (b"x-accel-redirect", b"/kept"), (b"x-accel-buffering", b"kept"), (b"x-sendfile", b"/kept"), (b"x-reproxy-url", b"/kept"), (b"clear-site-data", b"kept"),
        (b"settings", b"kept"), (b"content-type", b"text/plain")]  # fmt: skip
"""The headers of the app's responses."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Respond with `SENT`; below `/public/received`, and on a WebSocket, with the headers that were received."""
    received = json.dumps([[name.decode(), value.decode()] for name, value in scope.get("headers", ())])
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": received})
        await send({"type": "websocket.close"})
    elif scope["type"] == "http":
        body = received.encode() if scope["path"] == "/public/received" else b"ok"
        length = [] if scope["path"].endswith("/chunked") else [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": SENT + length})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="package", params=["sidecar", "general", "app", "middleware"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    options = ("--no-fast-lane",) if request.param == "general" else ()
    entrypoint = "sidecar" if request.param == "general" else request.param
    changes = {
        "sessions": {"store": "memory://", "keys": [{"env": "AKOYA_GATEWAY_KEY"}], "cookie": {"name": "akoya"}},
        **ALLOWED,
    }
    with GatewayEnv(
        tmp_path_factory.mktemp("env"),
        changes=changes,
        entrypoint=entrypoint,
        app=app,
        upstream=AppServer(app),
        options=options,
    ) as env:
        yield env
