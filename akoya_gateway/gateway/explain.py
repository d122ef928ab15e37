"""Explains what would happen to a request, using the objects that decide real requests. For `akoya-gateway explain`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from akoya_gateway.access.grant_selection import chosen_grant
from akoya_gateway.access.path_normalization import PathRefused, normalize_path
from akoya_gateway.access.policy import AccessPolicy, Allow, Deny
from akoya_gateway.access.request import RequestInfo, is_navigation, names_a_method_in
from akoya_gateway.access.rule_table import AmbiguousSpelling
from akoya_gateway.admission.denial_responses import ErrorResponder
from akoya_gateway.admission.header_injector import upstream_claims
from akoya_gateway.config.model import AccessRule, Config, Connector, DataApi, SigningKey
from akoya_gateway.data_api.paths import target_path
from akoya_gateway.endpoints.router import describe_route
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.data_calls import path_below, require_method
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants, is_public_id
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret
from akoya_gateway.signing import key_generation, signer

EXAMPLE_BEARER = "<id_token>"
_OTHERWISE_UNKNOWN = ", if that is one of the user's own logins there; any other ID gets 404 unknown-grant"
_PLACEHOLDERS = {b"signature": "akoya=:<signature>:", b"akoya-assertion": "<JWT>"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a request.

    `without_grants` describes it for a user without connections. `with_grants` and `headers` describe it for a user
    with the connections given to `Explainer`.
    """

    path: str
    refusal: str | None = None
    own_route: str | None = None
    rule: AccessRule | None = None
    without_grants: tuple[str, ...] = ()
    with_grants: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Explainer:
    """Explains requests under one configuration.

    `connected` holds the keys of the connectors that the imagined user has connected.
    """

    def __init__(self, config: Config, connected: tuple[str, ...], now: float) -> None:
        self._config = config
        self._now = now
        self._policy = AccessPolicy(config.access, config.connectors, config.path_variants)
        self._error_responder = ErrorResponder(config)
        self._owner_grants = OwnerGrants("<owner>", tuple(_grant(config.connectors[key], now) for key in connected))

    def explain(self, method: str, target: str) -> Explanation:
        """Explain a request. `target` is a URL, or a path with or without a query."""
        parts = urlsplit(target)
        raw = parts.path or "/"
        try:
            path = normalize_path(raw.encode("latin-1", "replace"))
        except PathRefused as fault:
            return Explanation(raw, refusal=f"{fault.status}: {fault.detail}")
        route = describe_route(self._config, path)
        if route is not None:
            return Explanation(path, own_route=route)
        try:
            match = self._policy.match(method, path)
        except AmbiguousSpelling as fault:
            refused = f"{fault.status}: {fault.detail} It is {fault.rule.label} (path_variants)."
            return Explanation(path, refusal=refused)
        if names_a_method_in(parts.query.encode("latin-1", "replace")) and self._policy.has_method_rules(path):
            return Explanation(
                path, refusal="400: `_method` in the query is a method override, and rules name methods."
            )
        requests = [self._request(method, raw, parts.query, browser) for browser in (True, False)]
        try:
            chosen = None if match is None else chosen_grant(match, requests[0])
        except GatewayError as fault:
            return Explanation(path, refusal=f"{fault.status}: {fault.detail}", rule=match.rule if match else None)
        without_owner = self._policy.decide(match, None, chosen=chosen)
        # An ID of the right form is assumed to belong to the imagined user, because the real IDs are only in the store.
        own = chosen is not None and is_public_id(chosen)
        with_owner = self._policy.decide(match, self._owner_grants, chosen=None if own else chosen)
        return Explanation(
            path,
            rule=match.rule if match else None,
            without_grants=tuple(
                dict.fromkeys(self._describe_decision(without_owner, request) for request in requests)
            ),
            with_grants=self._describe_decision(with_owner, requests[1]) + (_OTHERWISE_UNKNOWN if own else ""),
            headers=self._headers(with_owner, requests[0], chosen if own else None),
        )

    def _request(self, method: str, raw: str, query: str, browser: bool) -> RequestInfo:
        host = self._config.public_url.authority.encode()
        headers = [(b"host", host), (b"accept", b"text/html" if browser else b"application/json")]
        return RequestInfo(method, raw.encode("ascii"), query.encode("latin-1", "replace"), headers, None, "explain")

    def _describe_decision(self, decision: Allow | Deny, request: RequestInfo) -> str:
        if isinstance(decision, Allow) and decision.rule.data_api is not None:
            return self._describe_call(decision, decision.rule.data_api, request)
        if isinstance(decision, Allow):
            return f"it goes to the upstream{_which(decision.rule)}" + ("" if decision.grant else " without a token")
        response = self._error_responder.denial_response(decision, request)
        location = response.headers.get("location")
        who = "a browser" if is_navigation(request) else "anything else"
        if location:
            return f"{who} is redirected to {location} ({response.status_code})"
        return f"{who} gets {response.status_code} {decision.reason}"

    def _describe_call(self, decision: Allow, api: DataApi, request: RequestInfo) -> str:
        assert decision.grant is not None, "check refuses such a rule unless it names one bank"
        provider = self._config.connectors[decision.grant.key.connector].id
        rest = path_below(decision.rule, normalize_path(request.raw_path))
        try:
            require_method(decision.rule, request.method)
            path = target_path(api, provider, rest)
        except GatewayError as fault:
            return f"it gets {fault.status} {fault.code}, without a call to {api.name}"
        return f"the gateway calls {api.base_url}{path} ({api.name}); no app gets the request or the token"

    def _headers(self, decision: Allow | Deny, request: RequestInfo, chosen: str | None) -> tuple[tuple[str, str], ...]:
        """Return the headers that the upstream would get. `chosen` is shown as the ID of the grant that is passed."""
        if not isinstance(decision, Allow) or not decision.identified or decision.rule.data_api is not None:
            return ()
        config = self._config
        origin, audience = str(config.public_url), config.audience(decision.rule.upstream)
        try:
            facts = upstream_claims(
                decision.rule,
                decision.grant,
                self._owner_grants,
                config.connectors,
                int(self._now),
                decision.others,
            )
            key = SigningKey(
                "<key id>",
                Secret(key_generation.as_text(key_generation.generate_private_key(config.signing.algorithm))),
            )
            prepared = signer(replace(config.signing, keys=(key,)), origin, audience).prepare(facts)
            host = request.header(b"host") or b""
            made = prepared.headers(request.method.encode(), host, request.raw_path, request.query, self._now)
        except GatewayError as fault:
            return (("fault", fault.detail),)
        shown = [(name.decode(), _PLACEHOLDERS.get(name, value.decode())) for name, value in made]
        if chosen is not None and decision.grant is not None:
            shown = [(name, value.replace(decision.grant.public_id, chosen)) for name, value in shown]
        return tuple(shown)


def _which(rule: AccessRule) -> str:
    """Return the name and origins of the rule's upstream; empty if there is only one upstream."""
    upstream = rule.upstream
    if upstream is None or not upstream.name:
        return ""
    return f" {upstream.name} ({', '.join(map(str, upstream.origins))})"


def _grant(connector: Connector, now: float) -> Grant:
    client = connector.client
    key = GrantKey("<owner>", client.environment.name, client.name, connector.key, "<sub>")
    tokens = TokenSet(Secret(EXAMPLE_BEARER), None, now + 3600, client.scopes, "<sub>")
    return Grant(key, tokens, GrantState.LIVE, now, now)
