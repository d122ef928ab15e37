"""Upstream apps: they report what they received, and verify the signature with a third-party library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, InvalidSignature, algorithms

from tests.support.asgi import read_body


class Keys(HTTPSignatureKeyResolver):
    """One key for all requests, as the operator of the upstream configured it."""

    def __init__(self, key: bytes) -> None:
        self._key = load_pem_public_key(key) if key.startswith(b"-----") else key

    def resolve_public_key(self, key_id: str) -> Any:
        return self._key


class IndependentVerifier:
    """Verify with PyPI's http-message-signatures, on a request rebuilt from what the upstream received."""

    def __init__(self, key: bytes) -> None:
        algorithm = algorithms.ED25519 if key.startswith(b"-----") else algorithms.HMAC_SHA256
        self._verifier = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=Keys(key))

    def verify(self, method: str, url: str, headers: list[tuple[str, str]]) -> str:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        message = httpx.Request(method, url, headers=raw)
        try:
            results = self._verifier.verify(message, max_age=None)
        except InvalidSignature as fault:
            return f"invalid: {fault}"
        return "valid: " + " ".join(sorted(key.strip('"') for key in results[0].covered_components))


def asgi_app(key: bytes | None = None) -> Callable[..., Any]:
    """Return an app: `/...` returns what was received as JSON. A WebSocket gets its gateway headers, then echoes.

    `/.../stale` reports the token as rejected, with the value of the request's `X-Rejected`.
    """
    verifier = IndependentVerifier(key) if key else None

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        seen: dict[str, Any] = {
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "headers": headers,
            "body": body.decode("latin-1"),
        }
        if verifier is not None and any(name == "signature" for name, _ in headers):
            seen["signature"] = verifier.verify(scope["method"], url_of(headers, seen), headers)
        response = json.dumps(seen).encode()
        named = dict(headers).get("x-rejected", "1").encode()
        extra = [(b"akoya-token-rejected", named)] if scope["path"].endswith("/stale") else []
        extra += [(b"akoya-id-token", b"echoed")] if scope["path"] == "/accounts/echo" else []
        # nginx serves the path in this header instead, also an internal one.
        extra += [(b"x-accel-redirect", b"/akoya/forward-auth")] if scope["path"] == "/accounts/redirect" else []
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(response)), *extra],
            }
        )
        await send({"type": "http.response.body", "body": response})

    return app


async def websocket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    found = {n.decode(): v.decode("latin-1") for n, v in scope["headers"] if n.startswith((b"akoya", b"signature"))}
    await send({"type": "websocket.send", "text": json.dumps(found)})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})


def url_of(headers: list[tuple[str, str]], seen: dict[str, Any]) -> str:
    host = next(value for name, value in headers if name.lower() == "host")
    return f"http://{host}{seen['path']}" + (f"?{seen['query']}" if seen["query"] else "")


def wsgi_app(key: bytes) -> Callable[..., Iterable[bytes]]:
    """The same for a WSGI server, which folds `-` and `_` together."""
    verifier = IndependentVerifier(key)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        headers = [
            (name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name.startswith("HTTP_")
        ]
        seen: dict[str, Any] = {
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
            "query": environ["QUERY_STRING"],
            "headers": headers,
        }
        if "HTTP_SIGNATURE" in environ:
            seen["signature"] = verifier.verify(seen["method"], url_of(headers, seen), headers)
        body = json.dumps(seen).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return app
