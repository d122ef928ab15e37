"""Fast path of `Gateway` for ASGI scopes: a request whose session is cached and whose grant is fresh.

Request targets and headers are parsed once, by the functions that the full decision uses, and the decision for the
session is cached (`admission.decision_cache`). What remains for each request is three cache lookups and the signature.
Every other request is left to `admission.gate`, which decides it from the start.
"""

from __future__ import annotations

from akoya_gateway.access.path_normalization import normalize_path
from akoya_gateway.access.request import Headers, names_a_method_in
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.admission.decision_cache import CachedDecision
from akoya_gateway.admission.gate import AccessGate, Admitted
from akoya_gateway.admission.header_injector import HeaderInjector
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.clock import Clock
from akoya_gateway.endpoints.router import Router
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.lifespan import Scope
from akoya_gateway.trusted_proxies import peer_of

MAX_ENTRIES = 4096
"""Maximum number of cached targets."""
MAX_KEY_BYTES = 1024
"""Maximum size of a cached target (method and path)."""


FastAdmission = tuple[CachedDecision | Admitted, Headers, int]
"""An admitted request: the decision, the headers for the app, and how many of the last headers are the gateway's."""


class _CachedTarget:
    """A parsed method and path.

    `public` is set if no session is needed. `secure` is True if the app is reached over https. `minds_method` is True
    if the rules of the path depend on the method.
    """

    __slots__ = ("has_method_rules", "match", "path", "public", "secure", "verb")

    def __init__(
        self, verb: bytes, path: str, match: RuleMatch, *, public: bool, secure: bool, has_method_rules: bool
    ) -> None:
        self.verb = verb
        self.path = path
        self.match = match
        self.secure = secure
        self.has_method_rules = has_method_rules
        self.public = Admitted(match.rule, []) if public else None


class ScopeFastPath:
    """Admits simple requests from cached data. Valid for one configuration."""

    def __init__(
        self, gate: AccessGate, injector: HeaderInjector, router: Router, clock: Clock, *, bodies: bool, root_path: str
    ) -> None:
        """Initialize the fast path.

        `bodies` is True if requests with a body may take it, because neither a digest nor a limit applies to them.
        """
        self._gate = gate
        self._decisions = gate.decisions
        self._injector = injector
        self._read = injector.read
        self._router = router
        self._clock = clock
        self._reads_bodies = bodies
        self._root_path = root_path
        self._targets: BoundedCache[tuple[str, bytes], _CachedTarget | None] = BoundedCache(MAX_ENTRIES, MAX_KEY_BYTES)

    def admit(self, scope: Scope) -> FastAdmission | None:
        """Return the admission and the headers for the app, or None if the full decision must be made.

        Raises `OperatorError` if the gateway headers exceed `max_header_bytes`.
        """
        key = scope["method"], scope.get("raw_path", b"")
        try:
            target = self._targets[key]
        except KeyError:
            target = self._read_target(*key)
        except TypeError:
            # `raw_path` is neither bytes nor absent.
            return None
        if target is None or target.path != scope["path"] or (scope.get("root_path") or "") != self._root_path:
            return None
        if target.has_method_rules and names_a_method_in(scope["query_string"]):
            return None
        request_headers = self._read(scope["headers"])
        if request_headers.override or not (
            self._reads_bodies or (request_headers.bodiless and scope["http_version"] == "1.1")
        ):
            return None
        trusts = self._injector.trusts
        peer, is_forwarded = peer_of(scope.get("client")) if trusts else (None, True)
        upstream_headers = (
            request_headers.upstream_headers
            if trusts(peer, is_forwarded=is_forwarded)
            else request_headers.untrusted_upstream_headers
        )
        if target.public is not None:
            # A copy: the app may modify its scope, but not the cached headers.
            return target.public, upstream_headers.copy(), 0
        now = self._clock()
        cached = self._decisions.get(request_headers.session, target.match, now)
        authority = request_headers.authorities[target.secure]
        if cached is None or not authority:
            return None
        injected = cached.prepared.headers(target.verb, authority, key[1], scope["query_string"], now)
        return cached, upstream_headers + injected, len(injected)

    def _read_target(self, method: str, raw_path: bytes | None) -> _CachedTarget | None:
        if raw_path is None:
            return None
        target = self._parse_target(method, raw_path) if self._decisions.enabled else None
        return self._targets.store((method, raw_path), target, len(method) + len(raw_path))

    def _parse_target(self, method: str, raw_path: bytes) -> _CachedTarget | None:
        try:
            path = normalize_path(raw_path)
            match = None if self._router.matches(path) else self._gate.match(method, path)
        except GatewayError:
            return None
        if match is None or not path.startswith(self._root_path + "/"):
            return None
        public = not self._gate.needs_owner(match)
        return _CachedTarget(
            method.encode(),
            path,
            match,
            public=public,
            secure=self._injector.secure(match.rule),
            has_method_rules=self._gate.has_method_rules(path),
        )
