"""What the upstream gets: the client's copies removed, our headers prepared once per grant and signed per request."""

from __future__ import annotations

from collections import OrderedDict

from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.request_headers import RequestHeaderCache, RequestHeaders, client_headers_of
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import AccessRule, Config
from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.signing import signer
from akoya_gateway.signing.claims import ConnectionClaim, PreparedHeaders, UpstreamClaims
from akoya_gateway.signing.header_names import CONTENT_DIGEST
from akoya_gateway.trusted_proxies import TrustedProxies

MAX_ENTRIES = 10_000
"""Prepared grants kept at hand, at a few kilobytes each: the id_token, encoded."""


class HeaderInjector:
    """Compiled once per configuration. Who signs for an app, and how much it takes, goes by the access rule."""

    def __init__(self, config: Config, cookies: GatewayCookies, clock: Clock) -> None:
        origin = str(config.public_url)
        # One signer for all rules that lead to the same upstream.
        self._signers = {
            upstream: signer(config.signing, origin, config.audience(upstream), clock=clock)
            for upstream in {rule.upstream for rule in config.access}
        }
        self._public_is_secure = config.public_url.scheme == "https"
        self.client_headers = client_headers_of(config)
        self.trusts = TrustedProxies(config.trusted_proxies)
        self.read = RequestHeaderCache(cookies, self.client_headers).read
        """The client's headers: what they say, and `upstream_headers`, without anything that is ours to say (design.md
        section 5)."""
        self._prepared: OrderedDict[
            tuple[str, int], tuple[OwnerGrants, Grant | None, PreparedHeaders, UpstreamClaims]
        ] = OrderedDict()

    def upstream_headers(
        self, request: RequestInfo, injected_headers: Headers, request_headers: RequestHeaders | None
    ) -> Headers:
        """The headers that the upstream gets: the client's, stripped, and `injected_headers`. `request_headers`: the
        former, if read."""
        request_headers = request_headers or self.read(request.headers)
        theirs = (
            request_headers.upstream_headers
            if self.trusts(request.peer, told=request.peer_is_forwarded)
            else request_headers.onward_from_client
        )
        if request.content_digest is not None:
            theirs = [pair for pair in theirs if pair[0] != CONTENT_DIGEST]
        return theirs + injected_headers

    def prepare(self, rule: AccessRule, grant: Grant | None, owner_grants: OwnerGrants) -> PreparedHeaders:
        """What we say under this rule, ready to be signed. Raises `OperatorError` for more than `max_header_bytes`."""
        key = (owner_grants.owner, rule.index)
        found = self._prepared.get(key)
        if found is not None and found[1] is grant and found[0] is owner_grants:
            return found[2]
        facts = upstream_claims(rule, grant, owner_grants)
        # Read anew from the store with nothing changed: what is prepared stays good, signed assertions too.
        prepared = found[2] if found is not None and found[3] == facts else self._prepare_within_limit(rule, facts)
        self._prepared[key] = (owner_grants, grant, prepared, facts)
        self._prepared.move_to_end(key)
        if len(self._prepared) > MAX_ENTRIES:
            self._prepared.popitem(last=False)
        return prepared

    def secure(self, rule: AccessRule) -> bool:
        """Whether the app is spoken to in https: behind us as the upstream says, around us as its clients do."""
        return self._public_is_secure if rule.upstream is None else rule.upstream.secure

    def _prepare_within_limit(self, rule: AccessRule, facts: UpstreamClaims) -> PreparedHeaders:
        upstream = rule.upstream
        prepared = self._signers[upstream].prepare(facts)
        if upstream is not None and prepared.size > upstream.max_header_bytes:
            raise OperatorError(
                f"The headers for connector {facts.connector or '-'} are {prepared.size} bytes, more than "
                f"{upstream.address}.max_header_bytes ({upstream.max_header_bytes}). Raise it if the upstream can take "
                "more, share fewer accounts, or let the app fetch the token (`pass_token: false` in the access rule).",
                code="headers-too-large",
            )
        return prepared


_REFRESHING = GrantState.REFRESHING


def upstream_claims(rule: AccessRule, grant: Grant | None, owner_grants: OwnerGrants) -> UpstreamClaims:
    """The facts of design.md section 5 for one grant under one rule."""
    connections = tuple(
        # A refresh under way is no business of the upstream's: the connection is live.
        ConnectionClaim(g.connector, "live" if g.state is _REFRESHING else g.state.value, int(g.tokens.expires_at))
        for g in owner_grants.grants
    )
    if grant is None:
        return UpstreamClaims(owner_grants.owner, connections, rule.label)
    return UpstreamClaims(
        owner_grants.owner,
        connections,
        rule.label,
        connector=grant.connector,
        environment=grant.key.environment,
        bearer=grant.tokens.bearer if rule.pass_token else None,
        expires_at=int(grant.tokens.expires_at),
        scope=grant.tokens.scope,
    )
