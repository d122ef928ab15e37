"""The fast lane: forwards simple requests below ASGI.

A request is simple if it has no body, a cached session, a fresh grant and an idle upstream connection.

The lane uses the same access gate, `HeaderInjector`, `RequestWriter` and connection pool as the ASGI path. It saves the
event loop's work: no task, no ASGI messages, no futures. The header lines of a request are cached (`request_cache`),
and so is the decision for its session (`admission.decision_cache`). Every other request, and any failure before the
first byte of the response, is handed to the ASGI path, which decides again from the start. `tests/fast_lane/` compares
both paths byte by byte.

`docs/performance.md` has the gain; `akoya-gateway run --no-fast-lane` turns the lane off.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from akoya_gateway.access.path_normalization import normalize_path
from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.forward_auth import EncodedResponse, ForwardAuthCache, is_one_head
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget, RequestParser
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.exchange import Exchange
from akoya_gateway.gateway.forward_auth import is_forward_auth
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.request_id import line_of
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.gateway.upstream_router import Proxies
from akoya_gateway.trusted_proxies import peer_of
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.forwarded_headers import ForwardedHeaders
from akoya_gateway.upstream.http.request_head import RequestWriter

Dispatch = tuple[Runtime, Admitted, Connection, bytes, bytes]
"""An admitted request: the runtime, the decision, the connection, the request ID's header line, and the request head.

The caller sends the request head on the connection.
"""


class FastLane:
    """Decides whether a request is simple enough for the fast lane, and dispatches it.

    `proxies` returns the active reverse proxies, or None if the gateway only serves forward-auth. `date_header` and
    `clock` are those of the gateway.
    """

    def __init__(
        self, gateway: Gateway, proxies: Callable[[], Proxies | None], date_header: DateHeader, clock: Clock = time.time
    ) -> None:
        self.gateway = gateway
        self.date_header = date_header
        self._clock = clock
        self._current_proxies = proxies
        self._requests: RequestParser | None = None
        self._forward_auth = ForwardAuthCache(date_header)
        self._runtime: Runtime | None = None
        self._proxies: Proxies | None = None

    def parse(self, data: bytes, peer: str | None) -> tuple[CachedTarget, CachedHeaders] | None:
        """Parse a simple request from its bytes, or return None. `read` is for requests that uvicorn has parsed."""
        if self.gateway.current_runtime is not self._runtime or self._current_proxies() is not self._proxies:
            self._rebuild()
        return None if self._requests is None else self._requests.read(data, peer)

    def parse_scope(self, scope: Scope) -> tuple[CachedTarget, CachedHeaders] | None:
        """Parse a simple request from an ASGI `http` scope, or return None."""
        if self.gateway.current_runtime is not self._runtime or self._current_proxies() is not self._proxies:
            self._rebuild()
        if self._requests is None or scope["http_version"] != "1.1" or scope.get("root_path"):
            return None
        peer, is_forwarded = peer_of(scope.get("client"))
        if is_forwarded:
            return None
        try:
            return self._requests.read_scope(scope, peer)
        except TypeError:
            # ASGI allows a server to pass headers as lists, which are not hashable.
            return None

    def read(
        self, method: str, url: bytes, headers: Headers, peer: str | None, scheme: str, data: bytes | None
    ) -> tuple[CachedTarget, CachedHeaders] | None:
        """Read a request that uvicorn has parsed, or return None if the lane cannot handle it.

        Does not decide whether the sender may access the target. `data` holds the bytes of the request, if they arrived
        in one piece.
        """
        if self.gateway.current_runtime is not self._runtime or self._current_proxies() is not self._proxies:
            self._rebuild()
        found = None if self._requests is None else self._requests.read_parsed(method, url, headers, peer, scheme)
        if found is None and data is not None:
            self._store_check(method, url, headers, peer, data)
        return found

    def reply(self, data: bytes, peer: str | None) -> EncodedResponse | None:
        """Return the response to a repeated forward-auth check, or None if the ASGI path must handle it.

        The check must have been seen before in exactly the same bytes. Call `parse` first.
        """
        try:
            runtime, ids = self._runtime, self.gateway.request_ids
            return None if runtime is None else self._forward_auth.response(runtime, data, peer, self._clock(), ids)
        except GatewayError:
            return None

    def dispatch(
        self, target: CachedTarget, headers: CachedHeaders, request_id: bytes | None = None
    ) -> Dispatch | None:
        """Admit the request and take an idle upstream connection for it.

        Returns None if that is not possible. The general path then handles the request, including a denial. Without a
        `request_id` the request gets a new one, unless a trusted proxy has sent one.
        """
        runtime, routed, now = self._runtime, target.target, self._clock()
        if runtime is None:
            return None
        injected_lines = b""
        try:
            # Without an ID, because only an error of the general path shows it.
            request = self.request(target, headers, "") if runtime.gate.needs_request else None
            admission = runtime.gate.try_admit(routed, headers.session, now, request)
            if admission is None:
                return None
            if admission.prepared is not None:
                authority = headers.authorities[routed.secure]
                injected_lines = admission.prepared.lines(routed.verb, authority, routed.raw_path, target.query, now)
        except GatewayError:
            return None
        connection = target.pool.get_nowait()
        if connection is None:
            return None
        id_line = self._id_line(headers) if request_id is None else line_of(request_id)
        head = (target.start, headers.before, injected_lines, id_line, target.closing, headers.after, b"\r\n")
        return runtime, admission, connection, id_line, b"".join(head)

    def request(self, target: CachedTarget, headers: CachedHeaders, request_id: str) -> RequestInfo:
        """Build the `RequestInfo` of a request, for the access gate."""
        routed = target.target
        return RequestInfo(routed.method, routed.raw_path, target.query, headers.headers, headers.peer, request_id)

    def failing(self, error: GatewayError, admission: Admitted, began: float) -> ASGIApp:
        """Return an ASGI app that sends the error response, as the ASGI path would. See `Gateway.started_at`."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = Exchange(self.gateway, scope, send, began)
            exchange.decision = admission
            await self.gateway.respond_to_error(error, exchange, receive)

        return app

    def _id_line(self, headers: CachedHeaders) -> bytes:
        """Return the header line of the request's ID: a new one, unless a trusted proxy has set it."""
        ids, given = self.gateway.request_ids, headers.request_id
        return ids.new_line() if given is None else line_of(ids.for_request(headers.peer, given))

    def _rebuild(self) -> None:
        """Drop everything cached under the old configuration, because the configuration has changed."""
        runtime = self._runtime = self.gateway.current_runtime
        proxies = self._proxies = self._current_proxies()
        self._forward_auth.clear()
        self._requests = None
        if runtime is not None and proxies:
            config = runtime.config
            # Not the writer of a proxy, because a reload may replace a proxy and not the runtime, or the reverse. The
            # lane handles only HTTP/1.1 requests, which need no default host.
            forwarded = ForwardedHeaders(config.trusted_proxies, config.public_url)
            writer = RequestWriter(forwarded, b"", runtime.injector.client_headers)
            limit = config.limits.header_bytes
            self._requests = RequestParser(self._build_target, writer, runtime.cookies, limit)

    def _store_check(self, method: str, url: bytes, headers: Headers, peer: str | None, data: bytes) -> None:
        runtime = self._runtime
        if runtime is None or not self.gateway.is_forward_auth_server or url[:1] != b"/":
            return
        raw_path, _, query = url.partition(b"?")
        try:
            is_check = is_forward_auth(runtime.config.prefix, normalize_path(raw_path))
        except GatewayError:
            return
        if is_check and is_one_head(data, method.encode("ascii"), url, len(headers)):
            request_id = self.gateway.request_ids.for_headers(peer, headers, is_forwarded=False)
            request = RequestInfo(method, raw_path, query, headers, peer, request_id.decode())
            self._forward_auth.store(runtime, peer, data, request)

    def _build_target(self, method: str, raw_path: bytes, query: bytes, start: bytes) -> CachedTarget | None:
        runtime, proxies = self._runtime, self._proxies
        if runtime is None or proxies is None:
            return None
        target = runtime.targets.route(method, raw_path)
        if target.match is None or target.match.rule.upstream is None or runtime.gate.overrides_method(target, query):
            return None
        return CachedTarget(target, query, proxies[target.match.rule.upstream.name], start)
