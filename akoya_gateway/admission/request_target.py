"""Routes the method and path of a request. Every entry point uses this module, and results are cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from akoya_gateway.access.path_normalization import normalize_path
from akoya_gateway.access.policy import AccessPolicy
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.config.model import AccessRule

MAX_ENTRIES = 4096
"""Maximum number of cached targets."""
MAX_KEY_BYTES = 1024
"""Maximum size of a cached target (method and path)."""


@dataclass(slots=True, eq=False)
class RequestTarget:
    """A method and a path, and what the configuration says about them.

    Attributes:
        method: The method.
        verb: The method as bytes.
        raw_path: The path as received.
        path: The path after normalization, which is decided about.
        is_own: True for the gateway's own routes, which no rule covers.
        match: The access rule; None if no rule covers the target.
        public: The decision, if the rule requires no session.
        secure: True if the app is reached over https.
        signs: True if the app gets signed headers, and not only `scope["akoya"]` (`signing.in_process`).
        is_new: True unless the target is cached. A cache of something that includes the target can then skip it.
    """

    method: str
    verb: bytes
    raw_path: bytes
    path: str
    is_own: bool
    match: RuleMatch | None
    public: Admitted | None
    secure: bool
    signs: bool
    is_new: bool = True


class TargetRouter:
    """Routes targets under one configuration.

    Args:
        policy: The access rules.
        is_own: Returns True for the normalized paths of the gateway's own routes.
        facts: Returns `RequestTarget.secure` and `RequestTarget.signs` of a rule.
    """

    def __init__(
        self, policy: AccessPolicy, is_own: Callable[[str], bool], facts: Callable[[AccessRule], tuple[bool, bool]]
    ) -> None:
        self._policy = policy
        self._is_own = is_own
        self._facts = facts
        self._rules: dict[int, tuple[Admitted | None, bool, bool]] = {}
        """`RequestTarget.public`, `secure` and `signs` of each rule that has matched, by its index."""
        self._targets: BoundedCache[tuple[str, bytes], RequestTarget] = BoundedCache(
            MAX_ENTRIES, MAX_KEY_BYTES, on_repeat=True
        )

    def route(self, method: str, raw_path: bytes) -> RequestTarget:
        """Return the target of this method and path.

        Raises:
            PathRefused: The path is not acceptable, or another spelling of it is under another rule.
        """
        key = method, raw_path
        target = self._targets.get(key)
        if target is not None:
            return target
        target = self._targets.store(key, self._route(method, raw_path), len(method) + len(raw_path))
        target.is_new = key not in self._targets
        return target

    def _route(self, method: str, raw_path: bytes) -> RequestTarget:
        path = normalize_path(raw_path)
        is_own = self._is_own(path)
        match = None if is_own else self._policy.match(method, path)
        public, secure, signs = None, False, False
        if match is not None:
            public, secure, signs = self._rules.get(match.rule.index) or self._add_rule(match)
        verb = method.encode("latin-1", "replace")
        return RequestTarget(method, verb, raw_path, path, is_own, match, public, secure, signs)

    def _add_rule(self, match: RuleMatch) -> tuple[Admitted | None, bool, bool]:
        rule = match.rule
        public = None if self._policy.needs_owner(match) else Admitted(rule)
        found = self._rules[rule.index] = public, *self._facts(rule)
        return found
