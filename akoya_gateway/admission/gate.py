"""Decides whether a request is admitted. Every entry point uses this module.

`AccessGate.try_admit` makes the complete decision without I/O if the session and the grants are cached: it is the only
place that returns a public or a cached decision. `AccessGate.admit` calls it and makes the same decision when the store
or the provider must be queried. They share all deciding code.
"""

from __future__ import annotations

from collections.abc import Mapping

from akoya_gateway.access.grant_selection import chosen_grant
from akoya_gateway.access.policy import AccessPolicy, Allow, Decision, Deny
from akoya_gateway.access.request import RequestInfo, names_a_method_in
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.admission.decision import Admission, Admitted, Denied
from akoya_gateway.admission.decision_cache import CachedDecision, DecisionCache
from akoya_gateway.admission.denial_responses import ErrorResponder
from akoya_gateway.admission.header_injector import HeaderInjector
from akoya_gateway.admission.request_headers import RequestHeaders
from akoya_gateway.admission.request_target import RequestTarget
from akoya_gateway.authentication.principal import Authenticator
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.errors import NeedsReconnect
from akoya_gateway.grants.grant import Grant, OwnerGrants
from akoya_gateway.grants.manager import GrantManager


class AccessGate:
    """Decides admission. Compiled once per configuration."""

    def __init__(
        self,
        policy: AccessPolicy,
        authenticator: Authenticator,
        grants: GrantManager,
        injector: HeaderInjector,
        error_responder: ErrorResponder,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._authenticator = authenticator
        self._grants = grants
        self._injector = injector
        self._error_responder = error_responder
        self._clock = clock
        self._decisions = DecisionCache(policy, authenticator, grants, injector)
        self.needs_request = not authenticator.uses_sessions
        """Whether `try_admit` needs the request, because the owner is determined by `identity`."""

    def try_admit(
        self, target: RequestTarget, session: str | None, now: float, request: RequestInfo | None = None
    ) -> Admitted | None:
        """Return the decision if the request is admitted and everything needed is cached, or None.

        Args:
            target: The request's target. The caller has checked it with `overrides_method`.
            session: Value of the session cookie; None if the request has no such cookie.
            now: Current time.
            request: The request, if `needs_request`.

        Raises:
            GatewayError: In the same cases as `admit`.
        """
        if self.needs_request:
            return self._try_admit_identified(target, now, request)
        public = target.public
        if public is not None:
            return public
        decision = self.cached_decision(target, session, now)
        return None if decision is None else decision.admitted

    def cached_decision(self, target: RequestTarget, session: str | None, now: float) -> CachedDecision | None:
        """Return the decision of `try_admit` with its inputs, or None if there is none or the rule is public."""
        if target.public is not None or target.match is None:
            return None
        return self._decisions.get(session, target.match, now)

    def _try_admit_identified(self, target: RequestTarget, now: float, request: RequestInfo | None) -> Admitted | None:
        """Do the work of `try_admit` if the owner is determined by `identity` instead of the session."""
        assert request is not None and self._authenticator.require_valid_header is not None
        self._authenticator.require_valid_header(request)
        if target.public is not None or target.match is None:
            return target.public
        principal = self._authenticator.authenticate_cached(request)
        if principal is None or principal.owner is None:
            return None
        decided = self._decisions.decide(principal.owner, target.match, now)
        return None if decided is None else decided[0]

    async def admit(self, target: RequestTarget, request: RequestInfo, headers: RequestHeaders) -> Admission:
        """Decide a request, querying the store and the provider if necessary.

        Args:
            target: The request's target.
            request: The request.
            headers: Its parsed headers.

        Raises:
            GatewayError: No decision is possible because the store or the provider is unavailable. The request is not
                admitted (fail closed), but the user is never logged out.
            UserError: The request has an identity header that must not reach the upstream, or a method override.
        """
        self._require_own_method(target, request, headers)
        cached = self.try_admit(target, headers.session, self._clock(), request)
        if cached is not None:
            return cached
        decision, owner_grants = await self._decide(target.match, request)
        if isinstance(decision, Deny):
            names: Mapping[str, str] = {}
            if decision.choices and owner_grants is not None:
                unnamed = self._error_responder.unnamed_login(request)
                names = await self._grants.login_names.names(owner_grants, unnamed)
            response = self._error_responder.denial_response(decision, request, names)
            return Denied(response, decision.rule, decision.reason.value)
        if owner_grants is None or not decision.identified:
            return Admitted(decision.rule)
        admitted, _ = self._injector.admitted(
            decision.rule, decision.grant, owner_grants, self._clock(), decision.others
        )
        return admitted

    async def still_admits(self, target: RequestTarget, request: RequestInfo, headers: RequestHeaders) -> bool:
        """Return True if a request that was admitted before, such as an open WebSocket, would be admitted now.

        Unlike `admit`, this does not count as activity of the owner. Raises `GatewayError` in the same cases.
        """
        self._require_own_method(target, request, headers)
        decision, _ = await self._decide(target.match, request)
        return isinstance(decision, Allow)

    async def _decide(self, match: RuleMatch | None, request: RequestInfo) -> tuple[Decision, OwnerGrants | None]:
        if self._authenticator.require_valid_header is not None:
            self._authenticator.require_valid_header(request)
        if match is None or not self._policy.needs_owner(match):
            return self._policy.decide(match, None), None
        chosen = chosen_grant(match, request)
        principal = await self._authenticator.authenticate(request)
        owner_grants = None if principal.owner is None else await self._grants.for_owner(principal.owner)
        return await self._with_fresh_grant(match, owner_grants, chosen)

    def overrides_method(self, target: RequestTarget, query: bytes, headers: RequestHeaders | None = None) -> bool:
        """Return True if the request names another method than its own, and the rules for its path depend on it.

        Such a request must be rejected. `headers` is None for headers that are known to hold no override.
        """
        if not self._policy.has_any_method_rules:
            return False
        named = (headers is not None and headers.override) or (query != b"" and names_a_method_in(query))
        return named and self._policy.has_method_rules(target.path)

    def _require_own_method(self, target: RequestTarget, request: RequestInfo, headers: RequestHeaders) -> None:
        if self.overrides_method(target, request.query, headers):
            raise UserError("This path does not accept a method override.", code="method-override")

    async def _with_fresh_grant(
        self, match: RuleMatch, owner_grants: OwnerGrants | None, chosen: str | None
    ) -> tuple[Decision, OwnerGrants | None]:
        """Decide with a grant that is fresh, excluding unusable grants one by one.

        Returns the decision and the owner's grants as they are now. If no grant is left, raises the last error other
        than `NeedsReconnect`. If there was no such error, the request is denied.
        """
        tried: frozenset[str] = frozenset()
        last_error: GatewayError | None = None
        while True:
            decision = self._policy.decide(match, owner_grants, tried, chosen)
            if isinstance(decision, Allow) and decision.grant is not None and owner_grants is not None:
                passed, fresh = (decision.grant, *decision.others), list[Grant]()
                try:
                    for grant in passed:
                        fresh.append(await self._grants.get_fresh(grant))
                except GatewayError as error:
                    last_error = last_error if isinstance(error, NeedsReconnect) else error
                    tried |= {passed[len(fresh)].id}
                    continue
                if any(new is not old for new, old in zip(fresh, passed, strict=True)):
                    owner_grants = await self._grants.for_owner(owner_grants.owner)
                    decision = Allow(decision.rule, fresh[0], decision.identified, tuple(fresh[1:]))
            if isinstance(decision, Deny) and last_error is not None:
                raise last_error
            return decision, owner_grants
