"""The plain case of `Gateway`: a request of a known session with a fresh grant, let in by what stands already.

The target of a request and its header fields are judged when they are first seen, by the functions that the whole
decision uses; what was decided for the session stands for a while (`standing`). What is left for each request is to
find the three and to sign. Whatever is not plain is `admission`'s, which decides from the start.
"""

from __future__ import annotations

from akoya_gateway.access.path_normalization import judge
from akoya_gateway.access.request import Headers, names_a_method_in
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.admission.decision_cache import Standing
from akoya_gateway.admission.gate import Admitted, Desk
from akoya_gateway.admission.header_injector import Passing
from akoya_gateway.bounded_cache import Memory
from akoya_gateway.clock import Clock
from akoya_gateway.endpoints.router import Routes
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.lifespan import Scope
from akoya_gateway.trusted_proxies import peer_of

REMEMBERED = 4096
"""Targets kept; after so many it is begun anew."""
LONGEST = 1024
"""Bytes of a method and a path that are kept."""


Plain = tuple[Standing | Admitted, Headers, int]
"""A request that goes on: what let it in, the headers for the app, and how many of them, the last ones, are ours."""


class _Target:
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


class PlainScopes:
    """Good for one configuration."""

    def __init__(
        self, desk: Desk, passing: Passing, routes: Routes, clock: Clock, *, bodies: bool, root_path: str
    ) -> None:
        """`bodies`: a request that has one may be plain, since nobody here looks at it."""
        self._desk = desk
        self._standings = desk.standings
        self._passing = passing
        self._read = passing.read
        self._routes = routes
        self._clock = clock
        self._bodies = bodies
        self._root_path = root_path
        self._targets: Memory[tuple[str, bytes], _Target | None] = Memory(REMEMBERED, LONGEST)

    def admit(self, scope: Scope) -> Plain | None:
        """None: not plain, or not now. Raises `OperatorError` for headers that are too large."""
        key = scope["method"], scope.get("raw_path", b"")
        try:
            target = self._targets[key]
        except KeyError:
            target = self._learn(*key)
        except TypeError:
            # Neither bytes nor absent.
            return None
        if target is None or target.path != scope["path"] or (scope.get("root_path") or "") != self._root_path:
            return None
        if target.minds_method and names_a_method_in(scope["query_string"]):
            return None
        fields = self._read(scope["headers"])
        if fields.override or not (self._bodies or (fields.bodiless and scope["http_version"] == "1.1")):
            return None
        trusts = self._passing.trusts
        peer, told = peer_of(scope.get("client")) if trusts else (None, True)
        onward = fields.onward if trusts(peer, told=told) else fields.onward_from_client
        if target.public is not None:
            # A copy: what the app does with its scope must not be remembered.
            return target.public, onward.copy(), 0
        now = self._clock()
        standing = self._standings.of(fields.session, target.match, now)
        authority = fields.authorities[target.secure]
        if standing is None or not authority:
            return None
        ours = standing.prepared.headers(target.verb, authority, key[1], scope["query_string"], now)
        return standing, onward + ours, len(ours)

    def _learn(self, method: str, raw_path: bytes | None) -> _Target | None:
        if raw_path is None:
            return None
        target = self._judge(method, raw_path) if self._standings.serve else None
        return self._targets.keep((method, raw_path), target, len(method) + len(raw_path))

    def _judge(self, method: str, raw_path: bytes) -> _Target | None:
        try:
            path = judge(raw_path)
            match = None if self._routes.own(path) else self._desk.match(method, path)
        except GatewayError:
            return None
        if match is None or not path.startswith(self._root_path + "/"):
            return None
        public = not self._desk.needs_owner(match)
        return _Target(
            method.encode(),
            path,
            match,
            public=public,
            secure=self._passing.secure(match.rule),
            minds_method=self._desk.minds_method(path),
        )
