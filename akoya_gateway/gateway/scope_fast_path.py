"""Fast path of `Gateway` for ASGI scopes: a request whose session is cached and whose grant is fresh.

Request targets and headers are parsed once, and the decision for the session is cached (`admission.decision_cache`).
What remains for each request is three cache lookups and the signature. For every other request, the full decision is
made from the start.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from akoya_gateway.access.request import Headers
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.admission.gate import AccessGate
from akoya_gateway.admission.header_injector import HeaderInjector
from akoya_gateway.admission.request_target import TargetRouter
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.trusted_proxies import peer_of

FastAdmission = tuple[Admitted, Headers, int, bytes | None]
"""An admitted request.

The decision, the headers for the app, how many of the last headers are the gateway's, and the `X-Request-Id` that a
trusted proxy has sent.
"""


class ScopeFastPath:
    """Admits simple requests from cached data. Valid for one configuration."""

    def __init__(
        self,
        targets: TargetRouter,
        gate: AccessGate,
        injector: HeaderInjector,
        clock: Clock,
        *,
        signs: Callable[[Admitted], bool],
        bodies: bool,
        root_path: str,
    ) -> None:
        """Initialize the fast path.

        `signs` returns True if the app gets signed headers. `bodies` is True if requests with a body may take the fast
        path, because neither a digest nor a limit applies to them.
        """
        self._route = targets.route
        self._gate = gate
        self._read = injector.read
        self._trusts = injector.trusts
        self._trusts_some = bool(injector.trusts)
        self._signs = signs
        self._clock = clock
        self._reads_bodies = bodies
        self._root_path = root_path
        self._below = root_path + "/"
        self._enabled = not gate.needs_request

    def admit(self, scope: Scope) -> FastAdmission | None:
        """Return the admission and the headers for the app, or None if the full decision must be made.

        Raises:
            OperatorError: The gateway headers exceed `max_header_bytes`.
            UserError: The request does not have exactly one valid host.
        """
        raw_path = scope.get("raw_path")
        if not raw_path or not self._enabled or (scope.get("root_path") or "") != self._root_path:
            return None
        try:
            target = self._route(scope["method"], raw_path)
        except (GatewayError, TypeError):
            # `raw_path` is not acceptable, or not bytes.
            return None
        path = target.path
        if target.match is None or path != scope["path"] or (self._root_path and not path.startswith(self._below)):
            return None
        headers = self._read(scope["headers"])
        query = scope["query_string"]
        if (query or headers.override) and self._gate.overrides_method(target, query, headers):
            return None
        if not (self._reads_bodies or (headers.bodiless and scope["http_version"] == "1.1")):
            return None
        now = self._clock()
        admitted = self._gate.try_admit(target, headers.session, now)
        if admitted is None:
            return None
        request_id = None
        passed = headers.untrusted_upstream_headers
        if self._trusts_some:
            peer, is_forwarded = peer_of(scope.get("client"))
            if self._trusts(peer, is_forwarded=is_forwarded):
                passed, request_id = headers.upstream_headers, headers.request_id
        # A copy: the app may modify its scope, but not the cached headers.
        passed = passed.copy()
        if not self._signs(admitted):
            return admitted, passed, 0, request_id
        injected = admitted.headers(target.verb, headers.authorities[target.secure], raw_path, query, now)
        passed += injected
        return admitted, passed, len(injected), request_id
