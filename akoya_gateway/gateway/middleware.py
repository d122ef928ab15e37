"""`Gateway`: ASGI middleware around any app, and the entry point for every request of the sidecar.

The gateway's own routes are handled by its router. All other requests are decided by `admission.gate`: they are
forwarded with the gateway headers, or denied.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from akoya_gateway.access.path_normalization import PathRefused
from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.decision import Admission, Admitted, Denied
from akoya_gateway.admission.denial_responses import ErrorResponder
from akoya_gateway.admission.header_injector import claims_of_request
from akoya_gateway.admission.request_target import RequestTarget
from akoya_gateway.clock import Clock
from akoya_gateway.config import ConfigurationError, load_config
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import GatewayError, OperatorError, UpstreamError, UserError
from akoya_gateway.gateway.active_runtime import ActiveRuntime
from akoya_gateway.gateway.connection_monitor import ConnectionMonitor
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.exchange import Exchange, is_disconnect
from akoya_gateway.gateway.forward_auth import ForwardAuthOff, forward_auth, is_forward_auth
from akoya_gateway.gateway.lifespan import is_built_by_starlette, lifespan
from akoya_gateway.gateway.request_body import digest_body, limit_body
from akoya_gateway.gateway.request_id import SCOPE_KEY, RequestIds
from akoya_gateway.gateway.response_abort import abort_response
from akoya_gateway.gateway.response_policy import ResponsePolicy
from akoya_gateway.gateway.runtime import NO_OBSERVERS, Observers, Runtime
from akoya_gateway.gateway.websocket_origin import require_own_origin
from akoya_gateway.gateway.wrapped_app import require_asgi
from akoya_gateway.log import logger
from akoya_gateway.observability.access_log import LoggedRequest
from akoya_gateway.trusted_proxies import peer_of

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
        self.observer = observers.requests
        """Receives reports about requests, or None."""
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
        self.request_ids = RequestIds(self._config.trusted_proxies)
        self._active = ActiveRuntime(self._config, observers, clock, self._use)
        self._error_responder = ErrorResponder(self._config)
        self._apply(self._config)
        self._reported_errors: dict[tuple[str, str], float] = {}
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
            runtime.grants.on_disconnect(lambda _: self.connections.check_now())
            self._error_responder = runtime.error_responder
            self.request_ids = runtime.request_ids
            self._apply(runtime.config)

    def _apply(self, config: Config) -> None:
        self._config = config
        self.response_policy = ResponsePolicy(config.sessions.cookie)
        """Edits the heads of the app's responses."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI scope: `http`, `websocket` or `lifespan`."""
        kind, runtime, passed = scope["type"], self.current_runtime, None
        if kind == "http":
            if runtime is not None and not runtime.gate.needs_request:
                passed = runtime.scope_fast_path.admit(scope)
        elif kind == "lifespan":
            await lifespan(self._app, scope, receive, send, self.startup, self.shutdown)
            return
        elif kind != "websocket":
            raise ValueError(f"unknown ASGI scope {kind!r}")
        exchange = Exchange(self, scope, send, 0.0 if self.observer is None else self._clock())
        # As `self.finish`, without its coroutine, which would take a few percent of the time of this method.
        try:
            if passed is None or runtime is None:
                await self._decide(exchange, scope, receive)
            else:
                admitted, (headers, injected) = passed
                await self._forward(runtime, exchange, admitted, headers, injected, scope, receive)
        except Exception as error:
            await self._on_error(error, exchange, receive)
        finally:
            if exchange.monitored is not None:
                exchange.unmonitor()
        if exchange.cancelled or exchange.token_rejected is not None:
            await exchange.finish()

    @property
    def is_forward_auth_server(self) -> bool:
        """Whether forward-auth is on: the configuration's choice, or the default given to `Gateway`."""
        chosen = self._config.forward_auth
        return self._forward_auth if chosen is None else chosen

    def request_of(self, scope: Scope) -> RequestInfo:
        """Build the `RequestInfo` of an ASGI scope."""
        peer, is_forwarded = peer_of(scope.get("client"))
        return RequestInfo(
            scope.get("method", "GET"),
            bytes(scope.get("raw_path") or _raw_path(scope["path"])),
            scope.get("query_string") or b"",  # Optional for WebSockets, as `scheme`, which daphne leaves out.
            # A copy: uvicorn appends the trailers of a request to this list, possibly during or after the decision.
            [*scope["headers"]],
            peer,
            self.request_id(scope).decode(),
            scope["type"] == "websocket",
            peer_is_forwarded=is_forwarded,
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
        return 0.0 if self.observer is None else self._clock()

    def record_response(
        self, request: LoggedRequest, status: int, rule: str, began: float, outcome: str = "passed"
    ) -> None:
        """Report that the response to a request has started. `rule` is the label of the access rule."""
        if self.observer is not None:
            self.observer.on_response(request, status, rule, outcome, began, self._clock())

    async def _decide(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        """Decide a request, and forward it or send the gateway's response.

        Raises `GatewayError`, before anything is sent or while the app responds.
        """
        runtime = self.current_runtime or await self._ready()
        request = exchange.request
        if runtime.digests and not request.websocket:
            request, receive = await digest_body(request, receive, runtime.digests)
        target = self._route(runtime, request, scope)
        if target.is_own:
            await self._endpoint(runtime, request, target.path, scope, receive, exchange)
            return
        parsed = runtime.injector.read(request.headers)
        decision = await runtime.gate.admit(target, request, parsed)
        if isinstance(decision, Denied):
            exchange.decision = decision
            await exchange.respond(decision.response, receive)
            return
        is_trusted = runtime.injector.trusts(request.peer, is_forwarded=request.peer_is_forwarded)
        headers, injected = runtime.injector.forwarded_headers(
            decision, target, parsed, request.query, self._clock(), is_trusted, request.content_digest
        )
        exchange.decision = decision
        if runtime.body_bytes and not request.websocket:
            receive = limit_body(receive, request, runtime.body_bytes)
        if request.websocket and decision.owner is not None:
            exchange.monitor()
            receive = exchange.receive_from(receive)
        if not scope.get("raw_path"):
            scope = {**scope, "raw_path": request.raw_path}
        await self._forward(runtime, exchange, decision, headers, injected, scope, receive)

    def _forward(
        self,
        runtime: Runtime,
        exchange: Exchange,
        admitted: Admitted,
        headers: Headers,
        injected: int,
        scope: Scope,
        receive: Receive,
    ) -> Awaitable[None]:
        """Forward the request to the app. The last `injected` headers are the gateway's."""
        exchange.runtime = runtime
        exchange.decision = admitted
        app_scope, rule, verified = {**scope}, admitted.rule, admitted.verified
        headers.append(exchange.request_id_header)
        app_scope["headers"] = headers
        # Set for every request, so that no value of an outer app or server is taken for the gateway's.
        app_scope["akoya"] = claims_of_request(verified) if rule.pass_all and verified is not None else verified
        if rule.upstream is not None:
            app_scope["akoya.ours"] = injected + 1
            app_scope["akoya.upstream"] = rule.upstream
            return self._app(app_scope, receive, exchange)
        if rule.data_api is None:
            # Calling a method takes less time than calling an object.
            return self._app(app_scope, receive, exchange.__call__)
        path = runtime.targets.route(app_scope["method"], exchange.raw_path).path
        return runtime.data_calls(admitted, exchange.request, path, app_scope, receive, exchange)

    async def finish(self, exchange: Exchange, forwarded: Awaitable[None], receive: Receive) -> None:
        """Await the response to a request. Send an error response if it fails, and report tokens that Akoya rejected.

        Args:
            exchange: The request.
            forwarded: Ends when the response is complete, or raises `GatewayError`.
            receive: The server's `receive`.
        """
        try:
            await forwarded
        except Exception as error:
            await self._on_error(error, exchange, receive)
        finally:
            exchange.unmonitor()
        await exchange.finish()

    async def _on_error(self, error: Exception, exchange: Exchange, receive: Receive) -> None:
        """Respond to an error of the gateway or the upstream. Raises any other one, which is the app's own."""
        if exchange.cancelled and is_disconnect(error):
            return
        if not isinstance(error, GatewayError):
            raise error
        await self.respond_to_error(error, exchange, receive)

    async def respond_to_error(self, error: GatewayError, exchange: Exchange, receive: Receive) -> None:
        """Send the error response for a request.

        If a response has already started, aborts the connection, so that the client sees a truncated response. Raises
        the error if the server does not support that.
        """
        if exchange.started:
            self.report_truncated(error, exchange, exchange.decision)
            if not abort_response(exchange.server_send):
                raise error
            return
        exchange.error = error
        if not error.is_logged:
            self._log_error(error, exchange)
        await exchange.respond(self._error_responder.error_response(error, exchange.request), receive)

    async def _endpoint(
        self,
        runtime: Runtime,
        request: RequestInfo,
        path: str,
        scope: Scope,
        receive: Receive,
        exchange: Exchange,
    ) -> None:
        """Send the response of one of the gateway's own routes. Raises `GatewayError`, before anything is sent."""
        if is_forward_auth(runtime.config.prefix, path):
            if not self.is_forward_auth_server:
                raise ForwardAuthOff
            response = await forward_auth(runtime, request, exchange)
            await response(scope, receive, exchange.send_own)
            return
        principal = await runtime.authenticator.authenticate(request)
        await runtime.router(EndpointRequest.scope_of(scope, request, principal), receive, exchange.send_own)

    def _route(self, runtime: Runtime, request: RequestInfo, scope: Scope) -> RequestTarget:
        """Return the target. Raises `UserError` if the app would serve another path, or for a forbidden WebSocket."""
        target = runtime.targets.route(request.method, request.raw_path)
        if target.path != scope["path"]:
            raise PathRefused("The path is ambiguous.")
        runtime.mount.require(scope.get("root_path") or "", target.path)
        if request.websocket:
            require_own_origin(request, runtime.config.public_url)
            if target.is_own or (target.match is not None and target.match.rule.data_api is not None):
                raise PathRefused("This path does not accept WebSockets.", status=404, code="not-found")
        return target

    def _log_error(self, error: GatewayError, exchange: Exchange) -> None:
        """Log the reason of an error. The access log has only the code, and the pages for browsers do not show it."""
        request_id = exchange.request.request_id
        if isinstance(error, OperatorError | UpstreamError) and self._is_due("failed", error):
            write = log.error if isinstance(error, OperatorError) else log.warning
            fields = {**error.facts, "problem": error.code, "reason": error.detail}
            write("request failed", **fields, rule=_rule_label(exchange.decision), request_id=request_id)
        elif isinstance(error, UserError) and error.detail and self._is_due("rejected", error):
            log.info("request rejected", problem=error.code, reason=error.detail, request_id=request_id)

    def report_truncated(self, error: GatewayError, request: LoggedRequest, decision: Admission | None) -> None:
        """Report the error that truncated a response. The access log has its status, which was sent before."""
        rule = _rule_label(decision)
        if self._is_due("truncated", error):
            log_event = log.info if isinstance(error, UserError) else log.warning
            request_id = request.logged_fields()[2].decode("latin-1")
            log_event("response truncated", problem=error.code, reason=error.detail, rule=rule, request_id=request_id)
        if self.observer is not None and isinstance(error, UpstreamError):
            self.observer.on_truncated(rule, error.code)

    def _is_due(self, event: str, error: GatewayError) -> bool:
        """Return True at most once a second per event and error code: every request may fail with the same error."""
        now, kind = self._clock(), (event, error.code)
        if abs(now - self._reported_errors.get(kind, 0.0)) < 1.0:
            return False
        self._reported_errors[kind] = now
        return True

    async def _still_admitted(self, request: RequestInfo) -> bool:
        runtime = self.runtime
        target = runtime.targets.route(request.method, request.raw_path)
        return await runtime.gate.still_admits(target, request, runtime.injector.read(request.headers))


def _rule_label(decision: Admission | None) -> str:
    return "-" if decision is None or decision.rule is None else decision.rule.label


def _raw_path(path: str) -> bytes:
    """Return `path`, percent-encoded like a client would, for servers without `raw_path` (it is optional in ASGI)."""
    from urllib.parse import quote  # noqa: PLC0415 - only such servers need it

    return quote(path, safe="/-._~!$&'()*+,=:@").encode("ascii")
