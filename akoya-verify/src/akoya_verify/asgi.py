"""ASGI middleware: calls the app only with a `Verified` in `scope["akoya"]`, except for exempt paths."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from akoya_verify.content_digest import body_matches
from akoya_verify.keys import KeySource
from akoya_verify.message_signatures import authority_of
from akoya_verify.policy import (
    PROBLEM,
    Policy,
    SignedRequest,
    is_gateway_header,
    refusal,
)
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import NotVerified

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class AsgiVerifier:
    """Verifies every HTTP request and WebSocket handshake and puts the `Verified` into `scope["akoya"]`.

    Requests that cannot be verified get a 401 response, or 503 if the keys are not available. With `required=False`,
    requests without any `Akoya-*` header are passed on with `scope["akoya"]` None, and each view decides.

    If a `Gateway` in the same process has set `scope["akoya"]`, that value stays, and no signature is needed.

    A body with a signed Content-Digest is buffered, up to `largest_body` bytes, and compared before the app gets it.

    Paths in `exempt` are passed on unverified, without any `Akoya-*` header and with `scope["akoya"]` None. Use it for
    paths that need no owner (`/static/*`) and for health checks that do not come through the gateway (`/healthz`).

    An app routes by the part of the path after `scope["root_path"]`, which some servers take from a client header.
    Therefore a `root_path` other than the configured one is rejected, and so is a `path` other than the signed one.
    """

    def __init__(
        self,
        app: App,
        keys: KeySource | None = None,
        *,
        required: bool = True,
        issuer: str | None = None,
        audience: str | None = None,
        skew: float = 5.0,
        replay: ReplayCache | None = None,
        exempt: Collection[str] = (),
        largest_body: int = 1_048_576,
        clock: Callable[[], float] = time.time,
        root_path: str = "",
    ) -> None:
        """Wrap `app`.

        Args:
            keys: The gateway's keys. None: a `Gateway` in the same process checks all requests. Others get 503.
            required: Whether requests without any `Akoya-*` header are refused.
            issuer: The gateway's `public_url`. Set it together with `audience` for the `jwt` scheme only.
            audience: The name of this upstream in the assertion, see `verify_assertion`.
            skew: Clock difference to tolerate, in seconds.
            replay: Accepts each signature only once. None: no replay protection.
            exempt: Paths that are not verified, see `Exempt`.
            largest_body: Maximum bytes of a body with a signed Content-Digest.
            clock: Returns Unix seconds.
            root_path: Where the app is mounted (`uvicorn --root-path`, Starlette's `Mount`), empty at the root.

        Raises:
            ValueError: Only one of `issuer` and `audience` is set, or an exempt pattern is not a path.
        """
        self.app = app
        self._policy = Policy(
            keys,
            required=required,
            issuer=issuer,
            audience=audience,
            skew=skew,
            replay=replay,
            exempt=exempt,
            clock=clock,
            root_path=root_path,
        )
        self._largest_body = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        if self._policy.is_verified(scope):
            return await self.app(scope, receive, send)
        try:
            if self._policy.passes_unverified(scope.get("root_path") or "", scope["path"], header_names(scope)):
                scope = unverified(scope, is_checked=self._policy.keys is not None)
            else:
                verified = await self._policy.verify_without_blocking(signed_request(scope))
                if verified.content_digest is not None and scope["type"] == "http":
                    receive = await _verified_body(receive, verified.content_digest, self._largest_body)
                scope = {**scope, "akoya": verified}
        except NotVerified as fault:
            return await _refuse(scope, receive, send, fault)
        return await self.app(scope, receive, send)


def header_names(scope: Scope) -> Iterator[str]:
    """Yield the names of all headers."""
    return (name.decode("latin-1") for name, _ in scope["headers"])


def unverified(scope: Scope, *, is_checked: bool = True) -> dict[str, Any]:
    """Return the scope for an app that gets an unverified request: without gateway headers.

    `akoya` is None, or missing unless `is_checked`: then `current` (see `akoya_verify.connection`) raises an error.
    """
    headers = [header for header in scope["headers"] if not is_gateway_header(header[0].decode("latin-1"))]
    rest = {name: value for name, value in scope.items() if name != "akoya"}
    return {**rest, "headers": headers, "akoya": None} if is_checked else {**rest, "headers": headers}


def signed_request(scope: Scope) -> SignedRequest:
    """Return the parts of a request that the signature covers. Raises `NotVerified`."""
    headers: list[tuple[bytes, bytes]] = list(scope["headers"])
    hosts = [value for name, value in headers if name.lower() == b"host"]
    if len(hosts) != 1:
        raise NotVerified("malformed", "the request has no Host, or several")
    raw_path: bytes | None = scope.get("raw_path")
    path = raw_path.decode("latin-1") if raw_path is not None else quote(scope["path"], safe="/:@!$&'()*+,;=~-._")
    path = path.partition("?")[0]
    if unquote(path) != scope["path"]:
        raise NotVerified("path-mismatch", "the server gives the app another path than was signed")
    authority = authority_of(hosts[0].decode("latin-1"), scope.get("scheme", "http"))
    query = (scope.get("query_string") or b"").decode("latin-1")
    return scope.get("method", "GET"), authority, path, query, headers


async def _verified_body(receive: Receive, digest: str, largest: int) -> Receive:
    """Read the whole body, compare it with the digest, and return a `receive` that replays it."""
    held = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise NotVerified("bad-digest", "the client went away before the body was whole")
        held += message.get("body", b"")
        more = message.get("more_body", False)
        if len(held) > largest:
            raise NotVerified("bad-digest", f"the body is longer than {largest} bytes")
    if not body_matches(digest, bytes(held)):
        raise NotVerified("bad-digest", "the body is not the one that was signed")
    whole: list[Message] = [{"type": "http.request", "body": bytes(held), "more_body": False}]

    async def replayed() -> Message:
        return whole.pop() if whole else await receive()

    return replayed


async def _refuse(scope: Scope, receive: Receive, send: Send, fault: NotVerified) -> None:
    status, problem = refusal(fault)
    if scope["type"] == "websocket":
        await receive()
        # Closing a WebSocket before it is accepted rejects the handshake with 403.
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(problem)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": problem})
