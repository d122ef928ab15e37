"""Decides whether a request is admitted and which headers it gets. Every entry point uses this module.

`AccessGate.try_admit` makes the complete decision without I/O if the session and the grants are cached.
`AccessGate.admit` makes the same decision when the store or the provider must be queried. They share all deciding code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from akoya_gateway.access.grant_selection import chosen_grant
from akoya_gateway.access.path_normalization import normalize_path
from akoya_gateway.access.policy import AccessPolicy, Allow, Decision, Deny
from akoya_gateway.access.request import Headers, RequestInfo, has_method_override, names_a_method_in
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.admission.decision_cache import DecisionCache
from akoya_gateway.admission.denial_responses import ErrorResponder
from akoya_gateway.admission.header_injector import HeaderInjector
from akoya_gateway.admission.request_headers import RequestHeaders
from akoya_gateway.authentication.principal import Authenticator, Principal
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import AccessRule
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.errors import NeedsReconnect
from akoya_gateway.grants.grant import Grant, OwnerGrants
from akoya_gateway.grants.login_names import LoginNames
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.responses.response import Response
from akoya_gateway.signing.claims import PreparedHeaders


@dataclass(slots=True)
class Admitted:
    """The request is admitted.

    `headers` are the gateway headers to add to the client headers that `HeaderInjector.upstream_headers` passes on.
    `request_headers` are the parsed client headers, if they were parsed. Not frozen, for the same reason as
    `RequestInfo`.
    """

    rule: AccessRule
    headers: Headers = field(repr=False)
    grant: Grant | None = None
    owner: str | None = None
    request_headers: RequestHeaders | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """The request is denied with this response. `rule` is None for a request that no rule covers."""

    response: Response
    rule: AccessRule | None
    reason: str


Admission = Admitted | Denied


class AccessGate:
    """Decides admission. Compiled once per configuration."""

    def __init__(
        self,
        policy: AccessPolicy,
        authenticator: Authenticator,
        grants: GrantManager,
        injector: HeaderInjector,
        login_names: LoginNames,
        error_responder: ErrorResponder,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._authenticator = authenticator
        self._require_valid_header = authenticator.require_valid_header
        self._grants = grants
        self._injector = injector
        self._login_names = login_names
        self._error_responder = error_responder
        self._clock = clock
        self.decisions = DecisionCache(policy, authenticator, grants, injector)
        """Also used by `fast_lane.lane`, which makes the same decision as `try_admit` but signs the headers itself."""

    def match(self, method: str, path: str) -> RuleMatch | None:
        """Return the access rule for this method and normalized path, or None."""
        return self._policy.match(method, path)

    def needs_owner(self, match: RuleMatch) -> bool:
        """Return True if the session must be loaded to decide under this rule."""
        return self._policy.needs_owner(match)

    def try_admit(self, request: RequestInfo, path: str) -> Admitted | None:
        """Return the decision if the request is admitted and everything needed is cached, else None: call `admit` then.

        Raises `GatewayError` in the same cases as `admit`.
        """
        if self._require_valid_header is not None:
            self._require_valid_header(request)
        match = self._policy.match(request.method, path)
        if match is None:
            return None
        request_headers = self._injector.read(request.headers)
        if request_headers.override or self._overridden(request):
            self._refuse_override(path)
        if not self._policy.needs_owner(match):
            return Admitted(match.rule, [], None, None, request_headers)
        if self.decisions.enabled:
            now = self._clock()
            cached = self.decisions.get(request_headers.session, match, now)
            if cached is None:
                return None
            injected = _signed_headers(cached.prepared, request, request_headers.authorities[cached.secure], now)
            return Admitted(match.rule, injected, cached.grant, cached.owner, request_headers)
        return self._try_admit_identified(request, match)

    def _try_admit_identified(self, request: RequestInfo, match: RuleMatch) -> Admitted | None:
        """Do the work of `try_admit` if the owner is determined by `identity` instead of the session."""
        principal = self._authenticator.authenticate_cached(request)
        if principal is None or principal.owner is None or match.rule.grant is not None:
            return None
        owner_grants = self._grants.get_cached(principal.owner)
        if owner_grants is None:
            return None
        decision = self._policy.decide(match, owner_grants)
        if isinstance(decision, Deny) or decision.grant is None:
            return None
        if not all(self._grants.is_ready(grant) for grant in (decision.grant, *decision.others)):
            return None
        return self._allow(decision, request, owner_grants, self._clock())

    async def still_admits(self, request: RequestInfo, path: str) -> bool:
        """Return True if a request that was admitted before, such as an open WebSocket, would be admitted now.

        Unlike `admit`, this does not count as activity of the owner. Raises `GatewayError` in the same cases.
        """
        decision, _ = await self._decide(request, path)
        return isinstance(decision, Allow)

    async def admit(self, request: RequestInfo, path: str) -> Admission:
        """Decide a request, querying the store and the provider if necessary.

        Args:
            request: The request.
            path: The result of `path_normalization.normalize_path(request.raw_path)`.

        Raises:
            GatewayError: No decision is possible because the store or the provider is unavailable. The request is not
                admitted (fail closed), but the user is never logged out.
        """
        decision, owner_grants = await self._decide(request, path)
        names: Mapping[str, str] = {}
        if isinstance(decision, Deny) and decision.choices and owner_grants is not None:
            names = await self._login_names.names(owner_grants)
        return self._resolve(decision, request, owner_grants, names)

    async def _decide(self, request: RequestInfo, path: str) -> tuple[Decision, OwnerGrants | None]:
        match = self._match(request, path)
        if match is None or not self._policy.needs_owner(match):
            return self._policy.decide(match, None), None
        chosen = chosen_grant(match, request)
        principal = await self._authenticator.authenticate(request)
        owner_grants = await self._owner_grants(principal)
        return await self._with_fresh_grant(match, owner_grants, chosen)

    def _match(self, request: RequestInfo, path: str) -> RuleMatch | None:
        if self._require_valid_header is not None:
            self._require_valid_header(request)
        match = self._policy.match(request.method, path)
        if has_method_override(request.headers) or self._overridden(request):
            self._refuse_override(path)
        return match

    def _overridden(self, request: RequestInfo) -> bool:
        return self._policy.has_any_method_rules and bool(request.query) and names_a_method_in(request.query)

    def has_method_rules(self, path: str) -> bool:
        """Return True if the rules for this path depend on the method, so that a method override must be rejected."""
        return self._policy.has_any_method_rules and self._policy.has_method_rules(path)

    def _refuse_override(self, path: str) -> None:
        """Reject a request that names another method than its own, for example in `X-HTTP-Method-Override`.

        Raises `UserError` if the rules for this path depend on the method.
        """
        if self.has_method_rules(path):
            raise UserError("This path does not accept a method override.", code="method-override")

    async def _owner_grants(self, principal: Principal) -> OwnerGrants | None:
        return None if principal.owner is None else await self._grants.for_owner(principal.owner)

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

    def _resolve(
        self, decision: Decision, request: RequestInfo, owner_grants: OwnerGrants | None, names: Mapping[str, str]
    ) -> Admission:
        if isinstance(decision, Deny):
            return Denied(
                self._error_responder.denial_response(decision, request, names), decision.rule, decision.reason.value
            )
        return self._allow(decision, request, owner_grants, self._clock())

    def _allow(self, decision: Allow, request: RequestInfo, owner_grants: OwnerGrants | None, now: float) -> Admitted:
        if owner_grants is None or not decision.identified:
            return Admitted(decision.rule, [])
        request_headers = self._injector.read(request.headers)
        prepared, _ = self._injector.prepare(decision.rule, decision.grant, owner_grants, now, decision.others)
        injected = _signed_headers(
            prepared, request, request_headers.authorities[self._injector.secure(decision.rule)], now
        )
        return Admitted(decision.rule, injected, decision.grant, owner_grants.owner, request_headers)


def _signed_headers(prepared: PreparedHeaders, request: RequestInfo, authority: bytes, now: float) -> Headers:
    """Return the signed gateway headers for this request.

    Raises `UserError` if the request does not have exactly one valid host.
    """
    if not authority:
        raise UserError("The request must name exactly one valid host.", code="bad-host")
    return prepared.headers(
        request.method.encode(),
        authority,
        request.raw_path,
        request.query,
        now,
        content_digest=request.content_digest,
    )


def normalized_path(request: RequestInfo) -> str:
    """Return the normalized path of the request (`access.path_normalization`). Raises `PathRefused`."""
    return normalize_path(request.raw_path)
