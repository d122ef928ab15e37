"""ASGI middleware: calls the app only with a `Verified` in `scope["akoya"]`, except for exempt paths."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from akoya_verify.content_digest import body_matches
from akoya_verify.keys import Key, KeySource
from akoya_verify.message_signatures import authority_of
from akoya_verify.policy import PROBLEM, Exempt, Policy, is_gateway_header, refusal
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import NotVerified, Verified

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class AsgiVerifier:
    """Verifies every HTTP request and WebSocket handshake and puts the `Verified` into `scope["akoya"]`.

    Requests that cannot be verified get a 401 response, or 503 if the keys are not available.

    A body with a signed Content-Digest is buffered, up to `largest_body` bytes, and compared before the app gets it.

    Paths in `exempt` are passed on unverified, without any `Akoya-*` header and with `scope["akoya"]` None. Use it for
    paths that need no owner (`/static/*`) and for health checks that do not come through the gateway (`/healthz`).

    An app routes by the part of the path after `scope["root_path"]`, which some servers take from a client header.
    Therefore a `root_path` other than the configured one is rejected, and so is a `path` other than the signed one.
    """

    def __init__(
        self,
        app: App,
        keys: KeySource,
        *,
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
            keys: The gateway's keys.
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
        self._root_path = root_path
        self._policy = Policy(keys, issuer, audience, skew, replay, clock)
        self._exempt = Exempt(exempt)
        self._largest_body = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        named = scope.get("root_path") or ""
        if named != self._root_path:
            detail = f"the server says {named!r}, configured is {self._root_path!r}"
            return await _refuse(scope, receive, send, NotVerified("root-path", detail))
        if scope["path"] in self._exempt:
            headers = [header for header in scope["headers"] if not is_gateway_header(header[0].decode("latin-1"))]
            return await self.app({**scope, "headers": headers, "akoya": None}, receive, send)
        try:
            verified = await self._verify(scope)
            if verified.content_digest is not None and scope["type"] == "http":
                receive = await _verified_body(receive, verified.content_digest, self._largest_body)
        except NotVerified as fault:
            return await _refuse(scope, receive, send, fault)
        return await self.app({**scope, "akoya": verified}, receive, send)

    async def _verify(self, scope: Scope) -> Verified:
        request = _request(scope)
        peek: Callable[[str], Key | None] | None = getattr(self._policy.keys, "peek", None)
        if peek is None:
            return self._policy.verify(*request)
        try:
            may_renew = getattr(self._policy.keys, "may_renew", None)
            return self._policy.verify(*request, keys=_CachedKeys(peek, may_renew))
        except _KeyNotCached:
            # Fetching keys blocks, so verify in a thread.
            return await asyncio.to_thread(self._policy.verify, *request)


class _KeyNotCached(Exception):
    pass


class _CachedKeys:
    """A key source that raises `_KeyNotCached` instead of fetching keys, because fetching blocks."""

    def __init__(self, peek: Callable[[str], Key | None], may_renew: Callable[[], bool] | None) -> None:
        self._peek = peek
        self._may_renew = may_renew

    def get(self, key_id: str, /) -> Key:
        key = self._peek(key_id)
        if key is None:
            raise _KeyNotCached
        return key

    def renewed(self, key: Key, /) -> Key | None:
        """Return None: without a fetch the key cannot have changed."""
        if self._may_renew is not None and self._may_renew():
            raise _KeyNotCached
        return None


def _request(scope: Scope) -> tuple[str, str, str, str, list[tuple[bytes, bytes]]]:
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
    query = scope.get("query_string", b"").decode("latin-1")
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
