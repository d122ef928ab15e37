"""`Gateway`: ASGI middleware around any app, and the entry point for every request of the sidecar.

The gateway's own routes are handled by its router. All other requests are decided by `admission.gate`: they are
forwarded with the gateway headers, or denied.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from akoya_gateway.access.path_normalization import PathRefused
from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.decision import Admitted, Denied
from akoya_gateway.admission.denial_responses import ErrorResponder
from akoya_gateway.admission.header_injector import claims_of_request
from akoya_gateway.admission.request_target import RequestTarget
from akoya_gateway.clock import Clock
from akoya_gateway.config import ConfigurationError, load_config
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import GatewayError, OperatorError
from akoya_gateway.gateway.active_runtime import ActiveRuntime
from akoya_gateway.gateway.connection_monitor import ConnectionMonitor, MonitoredConnection
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.forward_auth import ForwardAuthOff, forward_auth, is_forward_auth
from akoya_gateway.gateway.lifespan import is_built_by_starlette, lifespan
from akoya_gateway.gateway.request_body import digest_body, limit_body
from akoya_gateway.gateway.request_id import SCOPE_KEY, RequestIds
from akoya_gateway.gateway.response_filter import ResponseFilter
from akoya_gateway.gateway.response_observer import ObservedSend
from akoya_gateway.gateway.response_policy import ResponsePolicy
from akoya_gateway.gateway.runtime import NO_OBSERVERS, Observers, Runtime
from akoya_gateway.gateway.websocket_origin import require_own_origin
from akoya_gateway.gateway.wrapped_app import require_asgi
from akoya_gateway.grants.grant import Grant
from akoya_gateway.log import logger
from akoya_gateway.observability.access_log import LoggedRequest
from akoya_gateway.responses.response import Response
from akoya_gateway.signing.header_names import CONTENT_DIGEST
from akoya_gateway.trusted_proxies import peer_of
from akoya_gateway.upstream.errors import StreamCancelled

log = logger("akoya_gateway.gateway")


class Gateway:
    """ASGI middleware that wraps an app: `app = Gateway(app, "gateway.yaml")`.

    `config` is a path or the result of `load_config`. The store is opened at lifespan startup, or by the first request
    if the server does not support lifespan. Raises `config.ConfigurationError` if the file has errors; but if Starlette
    creates it (`add_middleware`), the error is reported at startup, so that the server stops.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config | str | Path,
        *,
        observers: Observers = NO_OBSERVERS,
        clock: Clock = time.time,
        forward_auth: bool = False,
        date_header: DateHeader | None = None,
    ) -> None:
        """Load the configuration; nothing is opened yet.

        Args:
            app: The ASGI app to wrap.
            config: A path, or the result of `load_config`.
            observers: Receive reports about requests, grants and authorizations.
            clock: Returns the current time.
            forward_auth: Whether forward-auth is on if the configuration does not say.
            date_header: Added to responses that have no `Date`; None if the server adds it.
        """
        require_asgi(app)
        self._forward_auth = forward_auth
        self.date_header = date_header
        self._app = app
        self._observers = observers
        self._clock = clock
        self.current_runtime: Runtime | None = None
        """The active runtime; None before startup and after shutdown."""
        self.request_ids = RequestIds()
        self._fault: ConfigurationError | None = None
        """The errors of the configuration, to be raised at startup and by requests."""
        try:
            self._config = config if isinstance(config, Config) else load_config(Path(config))
        except ConfigurationError as error:
            if not is_built_by_starlette():
                raise
            self._fault = error
            return
        self._active = ActiveRuntime(self._config, observers, clock, self._use)
        self._error_responder = ErrorResponder(self._config)
        self._apply(self._config)
        self._reported_errors: dict[str, float] = {}
        self.connections = ConnectionMonitor(self._still_admitted)

    @property
    def runtime(self) -> Runtime:
        """The active runtime. Raises `RuntimeError` before startup."""
        if self.current_runtime is None:
            raise RuntimeError("the gateway has not been started")
        return self.current_runtime

    async def startup(self) -> Runtime:
        """Open the runtime. May be called again after `shutdown`. Raises what `Runtime.open` raises."""
        if self._fault is None:
            self._active.allow_start()
        return await self._ready()

    async def shutdown(self) -> None:
        """Stop the connection monitor, then close the runtimes that a reload replaced and the active one."""
        self._active.refuse_start()
        await self.connections.stop()
        await self._active.close()

    async def reload(self, config: Config) -> None:
        """Switch to another configuration, as `ActiveRuntime.replace`."""
        await self._active.replace(config)

    async def _ready(self) -> Runtime:
        """Return the active runtime, opening it if necessary: without lifespan, the first request starts the gateway.

        Raises what `ActiveRuntime.open` raises, and `ConfigurationError` (see `__init__`).
        """
        if self._fault is not None:
            raise ConfigurationError(self._fault.diagnostics)  # a new one: each raise adds to its traceback
        return await self._active.open()

    def _use(self, runtime: Runtime | None) -> None:
        self.current_runtime = runtime
        if runtime is not None:
            runtime.grants.on_disconnect(self._on_disconnect)
            self._error_responder = runtime.error_responder
            self._apply(runtime.config)

    def _apply(self, config: Config) -> None:
        self._config = config
        self.request_ids = RequestIds(config.trusted_proxies)
        self.response_policy = ResponsePolicy(config.sessions.cookie)
        """Edits the heads of the app's responses."""

    def _on_disconnect(self, grant: Grant) -> None:
        self.connections.check_now()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI scope: `http`, `websocket` or `lifespan`."""
        await self.handle(scope, receive, send)

    async def _handle_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(self._app, scope, receive, send, self.startup, self.shutdown)
        else:
            raise ValueError(f"unknown ASGI scope {scope['type']!r}")

    @property
    def is_forward_auth_server(self) -> bool:
        """Whether forward-auth is on: the configuration's choice, or the default given to `Gateway`."""
        chosen = self._config.forward_auth
        return self._forward_auth if chosen is None else chosen

    def request_info(
        self,
        method: str,
        raw_path: bytes,
        query: bytes,
        headers: Headers,
        peer: str | None,
        websocket: bool = False,
        is_forwarded: bool = False,
        request_id: str | None = None,
    ) -> RequestInfo:
        """Build the `RequestInfo` that the access gate evaluates.

        `is_forwarded` is True if `peer` was taken from a forwarding header instead of the socket. Without a
        `request_id` a new one is made, unless a trusted proxy has sent one.
        """
        if request_id is None:
            request_id = self.request_ids.for_headers(peer, headers, is_forwarded=is_forwarded).decode()
        return RequestInfo(
            method, raw_path, query, headers, peer, request_id, websocket, peer_is_forwarded=is_forwarded
        )

    def request_of(self, scope: Scope) -> RequestInfo:
        """Build the `RequestInfo` of an ASGI scope."""
        peer, is_forwarded = peer_of(scope.get("client"))
        return self.request_info(
            scope.get("method", "GET"),
            bytes(scope.get("raw_path") or _raw_path(scope["path"])),
            scope.get("query_string") or b"",  # Optional for WebSockets, as `scheme`, which daphne leaves out.
            # A copy: uvicorn appends the trailers of a request to this list, possibly during or after the decision.
            [*scope["headers"]],
            peer,
            scope["type"] == "websocket",
            is_forwarded,
            self.request_id(scope).decode(),
        )

    def request_id(self, scope: Scope) -> bytes:
        """Return the ID of a request, and keep it in the scope, so that all parts of the gateway use the same one."""
        request_id: bytes | None = scope.get(SCOPE_KEY)
        if request_id is None:
            ids = self.request_ids
            if ids.adopts:
                peer, is_forwarded = peer_of(scope.get("client"))
                request_id = ids.for_headers(peer, scope["headers"], is_forwarded=is_forwarded)
            else:
                request_id = ids.new()
            scope[SCOPE_KEY] = request_id
        return request_id

    def started_at(self) -> float:
        """Return the current time for `record_response`, or 0.0 if no observer needs it."""
        return self._clock() if self._observers.requests is not None else 0.0

    def record_response(self, request: LoggedRequest, status: int, rule: str, began: float) -> None:
        """Report that the response to a forwarded request has started. `rule` is the label of the access rule."""
        watcher = self._observers.requests
        if watcher is not None:
            watcher.on_response(request, status, rule, "passed", began, self._clock())

    async def answer_error(self, error: GatewayError, scope: Scope, send: Send, rule: str, began: float) -> None:
        """Send the error response for a forwarded request. `rule` and `began` are as in `record_response`."""
        await self._answer_error(error, self.request_of(scope), send, began, rule)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the awaitable that handles the scope, as `__call__`, which ASGI servers need as a coroutine function.

        The gateway's own server calls this method, which saves a coroutine for each request.
        """
        if scope["type"] != "http":
            return self._handle_other(scope, receive, send)
        began = self.started_at()
        runtime = self.current_runtime
        if runtime is not None:
            try:
                plain = runtime.scope_fast_path.admit(scope)
            except GatewayError as error:
                return self._answer_error(error, self.request_of(scope), send, began)
            if plain is not None:
                admission, headers, injected, request_id = plain
                if SCOPE_KEY not in scope:
                    scope[SCOPE_KEY] = self.request_ids.accept(request_id)
                reply = ResponseFilter(self, scope, send, admission, began)
                return self._forward(runtime, reply, headers, injected, scope, receive, send)
        return self._decide(scope, receive, send, began)

    async def _decide(self, scope: Scope, receive: Receive, send: Send, began: float) -> None:
        request = self.request_of(scope)
        responses = self._observed_send(request, send, began)
        reply: ResponseFilter | None = None
        try:
            runtime = self.current_runtime or await self._ready()
            if runtime.digests:
                request, receive = await digest_body(request, receive, runtime.digests)
            target = self._route(runtime, request, scope)
            outcome: Admitted | Denied | None = None
            if not target.is_own:
                outcome, headers, injected_count = await self._admit(runtime, target, request)
                responses.on_decision(outcome)
            if isinstance(outcome, Admitted):
                reply = ResponseFilter(self, scope, send, outcome, began, request)
                receive = limit_body(receive, request, runtime.body_bytes) if runtime.body_bytes else receive
                if not scope.get("raw_path"):
                    scope = {**scope, "raw_path": request.raw_path}
                await self._forward(runtime, reply, headers, injected_count, scope, receive, send)
                return
            if outcome is None:
                await self._endpoint(runtime, request, target.path, scope, receive, responses)
                return
            response = outcome.response
        except GatewayError as error:
            if reply is not None and reply.started:
                # Re-raised by `_forward`: the response has already started and must not get a second head.
                raise
            responses.on_error(error)
            response = self._error(error, request)
        await response.send(responses.send_own, head=request.method == "HEAD")

    def _forward(
        self,
        runtime: Runtime,
        reply: ResponseFilter,
        headers: Headers,
        injected_count: int,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Awaitable[None]:
        """Forward the request to the app. The last `injected_count` headers are the gateway's."""
        app_scope = dict(scope)
        headers.append(reply.request_id_header)
        app_scope["headers"] = headers
        app_scope["akoya.ours"] = injected_count + 1
        admission = reply.admission
        app_scope["akoya.upstream"] = admission.rule.upstream
        # Set for every request, so that no value of an outer app or server is taken for the gateway's.
        app_scope["akoya"] = claims_of_request(admission.verified)
        if admission.rule.data_api is None:
            return self.finish(runtime, reply, self._app(app_scope, receive, reply), send)
        path = runtime.targets.route(app_scope["method"], reply.raw_path).path
        calls = runtime.data_calls(admission, reply.request, path, app_scope, receive, reply)
        return self.finish(runtime, reply, calls, send)

    async def finish(self, runtime: Runtime, reply: ResponseFilter, forwarded: Awaitable[None], send: Send) -> None:
        """Await a request that was forwarded: respond if it fails, and report a token that Akoya rejected.

        Args:
            runtime: The runtime that admitted the request.
            reply: The app's `send`.
            forwarded: Ends when the app has responded, or raises `GatewayError`.
            send: The server's `send`, for an error response.
        """
        admission = reply.admission
        try:
            await forwarded
        except GatewayError as error:
            if not reply.started:
                await self._answer_error(error, reply.request, send, reply.began, admission.rule.label)
            elif isinstance(error, StreamCancelled) and reply.is_open_ended:
                # Daphne leaves the connection open if the app raises. The client loses nothing: an event stream has no
                # last event, and an incomplete event is discarded (HTML section 9.2.6).
                await reply.server_send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                # The response has already started. Re-raise so that the server aborts the connection and the client
                # sees a truncated response.
                raise
        finally:
            reply.finish()
        if reply.token_rejected is not None:
            for grant in admission.rejected_grants(reply.token_rejected):
                await runtime.grants.report_stale(grant)

    async def _answer_error(
        self, error: GatewayError, request: RequestInfo, send: Send, began: float, rule: str | None = None
    ) -> None:
        """Send the error response for a request.

        `rule` is the label of the rule that admitted the request, or None if it was not admitted.
        """
        responses = self._observed_send(request, send, began)
        if rule is not None:
            responses.on_forwarded(rule)
        responses.on_error(error)
        await self._error(error, request).send(responses.send_own, head=request.method == "HEAD")

    async def _endpoint(
        self,
        runtime: Runtime,
        request: RequestInfo,
        path: str,
        scope: Scope,
        receive: Receive,
        responses: ObservedSend,
    ) -> None:
        """Send the response of one of the gateway's own routes. Raises `GatewayError`, before anything is sent."""
        if is_forward_auth(runtime.config.prefix, path):
            if not self.is_forward_auth_server:
                raise ForwardAuthOff
            response = await forward_auth(runtime, request, responses)
            await response(scope, receive, responses.send_own)
            return
        principal = await runtime.authenticator.authenticate(request)
        await runtime.router(EndpointRequest.scope_of(scope, request, principal), receive, responses.send_own)

    def _observed_send(self, request: RequestInfo, send: Send, began: float) -> ObservedSend:
        return ObservedSend(request, send, self._observers.requests, self.date_header, self._clock, began)

    def _route(self, runtime: Runtime, request: RequestInfo, scope: Scope) -> RequestTarget:
        """Return the target of the request. Raises `UserError` if the app would serve another path."""
        target = runtime.targets.route(request.method, request.raw_path)
        if target.path != scope["path"]:
            raise PathRefused("The path is ambiguous.")
        runtime.mount.require(scope.get("root_path") or "", target.path)
        return target

    async def _admit(
        self, runtime: Runtime, target: RequestTarget, request: RequestInfo
    ) -> tuple[Admitted | Denied, Headers, int]:
        """Return the decision, the headers for the app, and how many of the last headers are the gateway's."""
        headers = runtime.injector.read(request.headers)
        admission = await runtime.gate.admit(target, request, headers)
        if isinstance(admission, Denied):
            return admission, [], 0
        injected: Headers = []
        if runtime.signs(admission):
            authority = headers.authorities[target.secure]
            injected = admission.headers(
                target.verb, authority, request.raw_path, request.query, self._clock(), request.content_digest
            )
        upstream_headers = runtime.injector.upstream_headers(
            headers,
            request.peer,
            is_forwarded=request.peer_is_forwarded,
            without=None if request.content_digest is None else CONTENT_DIGEST,
        )
        return admission, upstream_headers + injected, len(injected)

    def _error(self, error: GatewayError, request: RequestInfo) -> Response:
        if isinstance(error, OperatorError):
            self._log_error(error, request)
        return self._error_responder.error_response(error, request)

    def _log_error(self, error: OperatorError, request: RequestInfo) -> None:
        """Log the error, at most once a second per error code.

        The operator must fix the cause, and until then every request fails with this error.
        """
        now = self._clock()
        if abs(now - self._reported_errors.get(error.code, 0.0)) >= 1.0:
            self._reported_errors[error.code] = now
            log.error("request failed", problem=error.code, reason=error.detail, request_id=request.request_id)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self.request_of(scope)
        began = self.started_at()
        responses = self._observed_send(request, send, began)
        try:
            runtime = self.current_runtime or await self._ready()
            target = self._route(runtime, request, scope)
            require_own_origin(request, runtime.config.public_url)
            if target.is_own:
                raise PathRefused("This path does not accept WebSockets.", status=404, code="not-found")
            if target.match is not None and target.match.rule.data_api is not None:
                raise PathRefused("Data APIs have no WebSockets.", status=404, code="not-found")
            admission, headers, _ = await self._admit(runtime, target, request)
        except GatewayError as error:
            responses.on_error(error)
            await _refuse_handshake(scope, receive, responses.send_own, self._error(error, request))
            return
        responses.on_decision(admission)
        if isinstance(admission, Denied):
            await _refuse_handshake(scope, receive, responses.send_own, admission.response)
            return
        reply = ResponseFilter(self, scope, send, admission, began, request)
        await self._relay(reply, headers, scope, receive, send)

    async def _relay(self, reply: ResponseFilter, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        admitted = reply.admission
        app_scope = dict(scope)
        app_scope["raw_path"] = reply.request.raw_path
        app_scope["headers"] = [*headers, reply.request_id_header]
        app_scope["akoya.upstream"] = admitted.rule.upstream
        app_scope["akoya"] = claims_of_request(admitted.verified)

        async def close(code: int) -> None:
            await send({"type": "websocket.close", "code": code, "reason": "the bank connection has ended"})

        socket = MonitoredConnection(reply.request, close)
        if admitted.owner is not None:
            self.connections.add(socket)
        try:
            await self._app(app_scope, receive, reply)
        except GatewayError as error:
            # The upstream is unreachable, or the client's request cannot be forwarded.
            if reply.started:
                raise
            responses = self._observed_send(reply.request, send, reply.began)
            responses.on_decision(admitted)
            responses.on_error(error)
            await _deny(scope, responses.send_own, self._error(error, reply.request))
        finally:
            self.connections.remove(socket)

    async def _still_admitted(self, request: RequestInfo) -> bool:
        runtime = self.runtime
        target = runtime.targets.route(request.method, request.raw_path)
        return await runtime.gate.still_admits(target, request, runtime.injector.read(request.headers))


def _raw_path(path: str) -> bytes:
    """Return `path`, percent-encoded like a client would, for servers without `raw_path` (it is optional in ASGI)."""
    from urllib.parse import quote  # noqa: PLC0415 - only such servers need it

    return quote(path, safe="/-._~!$&'()*+,=:@").encode("ascii")


async def _refuse_handshake(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    """Refuse a WebSocket before its handshake is accepted.

    The client gets the HTTP response if the server supports that, and a plain 403 otherwise.
    """
    message: Message = await receive()
    if message["type"] == "websocket.connect":
        await _deny(scope, send, response)


async def _deny(scope: Scope, send: Send, response: Response) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send(
            {"type": "websocket.http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await send({"type": "websocket.http.response.body", "body": response.body})
    else:
        await send({"type": "websocket.close", "code": 1008})
