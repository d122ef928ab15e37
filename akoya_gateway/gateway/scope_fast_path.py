"""The plain case of `Gateway`: a request of a known session with a fresh grant, let in by what stands already.

The target of a request and its header fields are judged when they are first seen, by the functions that the whole
decision uses; what was decided for the session stands for a while (`standing`). What is left for each request is to
find the three and to sign. Whatever is not plain is `admission`'s, which decides from the start.
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
"""Targets kept; after so many it is begun anew."""
MAX_KEY_BYTES = 1024
"""Bytes of a method and a path that are kept."""


FastAdmission = tuple[CachedDecision | Admitted, Headers, int]
"""A request that goes on: what let it in, the headers for the app, and how many of them, the last ones, are ours."""


class _CachedTarget:
    """A method and a path, judged. `public`: it needs no session. `secure`: the app is spoken to in https."""

    __slots__ = ("match", "minds_method", "path", "public", "secure", "verb")

    def __init__(
        self, verb: bytes, path: str, match: RuleMatch, *, public: bool, secure: bool, minds_method: bool
    ) -> None:
        self.verb = verb
        self.path = path
        self.match = match
        self.secure = secure
        self.minds_method = minds_method
        self.public = Admitted(match.rule, []) if public else None


class ScopeFastPath:
    """Good for one configuration."""

    def __init__(
        self, gate: AccessGate, injector: HeaderInjector, router: Router, clock: Clock, *, bodies: bool, root_path: str
    ) -> None:
        """`bodies`: a request that has one may be plain, since nobody here looks at it."""
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
        """None: not plain, or not now. Raises `OperatorError` for headers that are too large."""
        key = scope["method"], scope.get("raw_path", b"")
        try:
            target = self._targets[key]
        except KeyError:
            target = self._read_target(*key)
        except TypeError:
            # Neither bytes nor absent.
            return None
        if target is None or target.path != scope["path"] or (scope.get("root_path") or "") != self._root_path:
            return None
        if target.minds_method and names_a_method_in(scope["query_string"]):
            return None
        request_headers = self._read(scope["headers"])
        if request_headers.override or not (
            self._reads_bodies or (request_headers.bodiless and scope["http_version"] == "1.1")
        ):
            return None
        trusts = self._injector.trusts
        peer, told = peer_of(scope.get("client")) if trusts else (None, True)
        onward = request_headers.upstream_headers if trusts(peer, told=told) else request_headers.onward_from_client
        if target.public is not None:
            # A copy: what the app does with its scope must not be remembered.
            return target.public, onward.copy(), 0
        now = self._clock()
        cached = self._decisions.get(request_headers.session, target.match, now)
        authority = request_headers.authorities[target.secure]
        if cached is None or not authority:
            return None
        injected = cached.prepared.headers(target.verb, authority, key[1], scope["query_string"], now)
        return cached, onward + injected, len(injected)

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
            minds_method=self._gate.minds_method(path),
        )
