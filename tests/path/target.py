"""WSGI and ASGI apps that return the request they received as JSON.

Each app is wrapped in its verifier and works below any mount point that the server sets. `AKOYA_TEST_EXEMPT` lists
the paths that need no signature.
"""

from __future__ import annotations

import json
import os
from typing import Any

from akoya_verify import AsgiVerifier, WsgiVerifier, keys_of, secret_key

KEYS = keys_of([secret_key("k1", os.environ["AKOYA_SIGNING_SECRET"])])
EXEMPT = os.environ.get("AKOYA_TEST_EXEMPT", "/pub/*").split()


def _wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    received = {"path": environ["PATH_INFO"], "mount": environ.get("SCRIPT_NAME", ""), "method": environ["REQUEST_METHOD"],
            "user": environ.get("REMOTE_USER") or None, "owner": getattr(environ.get("akoya"), "owner", None)}  # fmt: skip
    body = json.dumps(received).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    mount = scope.get("root_path") or ""
    received = {"path": scope["path"].removeprefix(mount), "mount": mount, "method": scope["method"], "user": None,
            "owner": getattr(scope.get("akoya"), "owner", None)}  # fmt: skip
    body = json.dumps(received).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


wsgi = WsgiVerifier(_wsgi, KEYS, exempt=EXEMPT)
asgi = AsgiVerifier(_asgi, KEYS, exempt=EXEMPT)


def middleware() -> Any:
    """Run the gateway as middleware in an app, configured by `AKOYA_GATEWAY_CONFIG`."""
    from akoya_gateway import Gateway  # Takes most of the time to start, and the other apps do not need it.

    return Gateway(_asgi, os.environ["AKOYA_GATEWAY_CONFIG"])


inside = middleware() if "AKOYA_TEST_INSIDE" in os.environ else None
