"""Fast path of `Gateway` for ASGI scopes: a request whose session is cached and whose grant is fresh.

Request targets and headers are parsed once, and the decision for the session is cached (`admission.decision_cache`).
What remains for each request is three cache lookups and the signature. For every other request, and for every error,
the full decision is made from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

from akoya_gateway.access.request import Headers
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.admission.decision_cache import CachedDecision
from akoya_gateway.admission.gate import AccessGate
from akoya_gateway.admission.header_injector import HeaderInjector
from akoya_gateway.admission.request_headers import RequestHeaders
from akoya_gateway.admission.request_target import RequestTarget, TargetRouter
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.request_id import SCOPE_KEY, RequestIds
from akoya_gateway.trusted_proxies import peer_of

MAX_ENTRIES = 1024
"""Maximum number of cached requests."""
MAX_KEY_BYTES = 1024
"""Maximum size of the method and the path of a cached request."""


@dataclass(slots=True, eq=False)
class CachedRequest:
    """The cached results for requests with the same method, path and headers.

    `decision` is None if the rule requires no session.
    """

    target: RequestTarget
    http_version: str
    decision: CachedDecision | None


class ScopeFastPath:
    """Admits simple requests from cached data. Valid for one configuration."""

    def __init__(
        self,
        targets: TargetRouter,
        gate: AccessGate,
        injector: HeaderInjector,
        request_ids: RequestIds,
        clock: Clock,
        *,
        bodies: bool,
        root_path: str,
    ) -> None:
        """Initialize the fast path.

        `bodies` is True if requests with a body may take the fast path, because neither a digest nor a limit applies to
        them.
        """
        self._route = targets.route
        self._gate = gate
        self._injector = injector
        self._read = injector.read
        self._forwarded_headers = injector.forwarded_headers
        self._request_ids = request_ids
        self._clock = clock
        self._bodies = bodies
        self._root_path = root_path
        self._below = root_path + "/"
        # Parsed headers are compared by identity, which takes less time than comparing the headers again.
        self._cache: BoundedCache[tuple[RequestHeaders, str, bytes], CachedRequest] = BoundedCache(
            MAX_ENTRIES, MAX_KEY_BYTES, on_repeat=True
        )

    def admit(self, scope: Scope) -> tuple[Admitted, tuple[Headers, int]] | None:
        """Return the decision and the headers for the app, or None if the full decision must be made.

        The headers are as from `HeaderInjector.forwarded_headers`. The request ID is set in the scope.
        """
        try:
            method, raw_path, query = scope["method"], scope["raw_path"], scope["query_string"]
            headers, now = self._read(scope["headers"]), self._clock()
            key = headers, method, raw_path
            cached = self._cache.get(key)
            if (
                cached is None
                or scope["path"] != cached.target.path
                or scope["root_path"] != self._root_path
                or scope["http_version"] != cached.http_version
            ):
                cached = self._build(scope, headers, now)
                if cached is None:
                    return None
                self._cache.store(key, cached, len(method) + len(raw_path))
            target, decision = cached.target, cached.decision
            if query and self._gate.overrides_method(target, query):
                return None
            if decision is None:
                admitted = target.public
            else:
                if not decision.is_valid(now):
                    decision = self._gate.cached_decision(target, headers.session, now)
                    if decision is None:
                        return None
                    cached.decision = decision
                admitted = decision.admitted
            if admitted is None:
                return None
            is_trusted, ids = False, self._request_ids
            if ids.adopts:
                peer, is_forwarded = peer_of(scope.get("client"))
                is_trusted = self._injector.trusts(peer, is_forwarded=is_forwarded)
            if SCOPE_KEY not in scope:
                scope[SCOPE_KEY] = ids.accept(headers.request_id) if is_trusted else ids.new()
            return admitted, self._forwarded_headers(admitted, target, headers, query, now, is_trusted)
        except (GatewayError, KeyError, TypeError):
            # KeyError: a key that ASGI allows a server to omit. TypeError: `raw_path` is not bytes and not hashable.
            return None

    def _build(self, scope: Scope, headers: RequestHeaders, now: float) -> CachedRequest | None:
        """Return the results for requests with this method, path and headers, or None if they are not simple."""
        raw_path, root_path, version = scope["raw_path"], scope["root_path"], scope["http_version"]
        if not raw_path or root_path != self._root_path:
            return None
        target = self._route(scope["method"], raw_path)
        if target.path != scope["path"] or not target.path.startswith(self._below):
            return None
        if headers.override and self._gate.overrides_method(target, b"", headers):
            return None
        if not (self._bodies or (headers.bodiless and version == "1.1")):
            return None
        decision = self._gate.cached_decision(target, headers.session, now)
        return None if decision is None and target.public is None else CachedRequest(target, version, decision)
