"""Builds the upstream's request headers: strips gateway names from the client headers and adds the gateway headers.

Gateway headers are prepared once per grant and signed for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from akoya_gateway.access.request import Headers
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.admission.request_headers import RequestHeaderCache, RequestHeaders, client_headers_of
from akoya_gateway.admission.request_target import RequestTarget
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import AccessRule, Config, Connector, InProcess
from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.last_access import PERIOD, LastAccess
from akoya_gateway.signing import signer
from akoya_gateway.signing.claims import ConnectionClaim, PreparedHeaders, UpstreamClaims
from akoya_gateway.signing.header_names import CONTENT_DIGEST
from akoya_gateway.signing.header_values import timestamp
from akoya_gateway.trusted_proxies import TrustedProxies
from akoya_verify.result import Connection, Verified

MAX_ENTRIES = 10_000
"""Maximum number of cached decisions. Each takes a few kilobytes, for the encoded id_token."""


class HeaderInjector:
    """Strips client headers and prepares gateway headers. Built once per configuration.

    The signer and the size limit depend on the upstream of the access rule.
    """

    def __init__(self, config: Config, cookies: GatewayCookies, last_access: LastAccess, clock: Clock) -> None:
        origin = str(config.public_url)
        # One signer for all rules that lead to the same upstream.
        self._signers = {
            upstream: signer(config.signing, origin, config.audience(upstream), clock=clock)
            for upstream in {rule.upstream for rule in config.access}
        }
        self._connectors = config.connectors
        self._last_access = last_access
        self._public_is_secure = config.public_url.scheme == "https"
        self._signs_in_process = config.signing.in_process is InProcess.HEADERS
        self.client_headers = client_headers_of(config)
        self.trusts = TrustedProxies(config.trusted_proxies)
        self.read = RequestHeaderCache(cookies, self.client_headers).read
        """Parse client headers; the result's lists for the app have no gateway headers (docs/design.md section 5)."""
        self._admitted: BoundedCache[
            tuple[str, int], tuple[Admitted, tuple[Grant | None, ...], OwnerGrants, UpstreamClaims]
        ] = BoundedCache(MAX_ENTRIES)

    def forwarded_headers(
        self,
        admitted: Admitted,
        target: RequestTarget,
        headers: RequestHeaders,
        query: bytes,
        now: float,
        is_trusted: bool,
        content_digest: bytes | None = None,
    ) -> tuple[Headers, int]:
        """Return a new list of the headers that the app gets, and how many of the last ones are the gateway's.

        Args:
            admitted: The decision.
            target: The request's target.
            headers: The parsed client headers.
            query: The raw query.
            now: Current time.
            is_trusted: Whether the peer is one of `trusted_proxies`.
            content_digest: As of `PreparedHeaders.headers`. It replaces the client's.

        Raises:
            UserError: The request has no valid Host, or several, or cannot be signed.
        """
        passed = (headers.from_proxy if is_trusted else headers.from_client) or headers.filter_for(
            is_trusted=is_trusted
        )
        if content_digest is not None:
            passed = [pair for pair in passed if pair[0] != CONTENT_DIGEST]
        if admitted.prepared is None or not target.signs:
            if not headers.authorities[0] and admitted.rule.upstream is None:
                headers.require_valid_host()  # The reverse proxy of an upstream does it otherwise.
            # A copy: the app may modify its list, but not the cached one.
            return passed.copy(), 0
        authority = headers.authorities[target.secure]
        injected = admitted.headers(target.verb, authority, target.raw_path, query, now, content_digest)
        return passed + injected, len(injected)

    def admitted(
        self,
        rule: AccessRule,
        grant: Grant | None,
        owner_grants: OwnerGrants,
        now: float,
        others: tuple[Grant, ...] = (),
    ) -> tuple[Admitted, float]:
        """Return the decision for an admitted owner, and when its gateway headers end, in Unix seconds.

        The request counts as activity of the owner. The headers end when `Akoya-Last-Access` changes.

        Raises `OperatorError` if they exceed `max_header_bytes`.
        """
        key = (owner_grants.owner, rule.index)
        accessed = self._last_access.record(owner_grants.owner, now)
        until = accessed + PERIOD
        found = self._admitted.get(key)
        passed = (grant, *others)
        if found is not None and found[1] == passed and found[2] is owner_grants and found[3].last_access == accessed:
            return found[0], until
        facts = upstream_claims(rule, grant, owner_grants, self._connectors, accessed, others)
        if found is not None and found[3] == facts:
            # The grants were reloaded but have not changed. Reuse what was prepared, including any signed assertions.
            prepared, verified = found[0].prepared, found[0].verified
        else:
            prepared, verified = self._prepare_within_limit(rule, facts), verified_of(facts)
        made = Admitted(rule, grant, owner_grants.owner, prepared, verified, others)
        self._admitted.store(key, (made, passed, owner_grants, facts))
        return made, until

    def route_facts(self, rule: AccessRule) -> tuple[bool, bool]:
        """Return `RequestTarget.secure` and `RequestTarget.signs` of a rule.

        For an upstream, `secure` is the scheme of its URL. For an app wrapped by the middleware it is the scheme of the
        public URL.
        """
        if rule.upstream is not None:
            return rule.upstream.secure, True
        return self._public_is_secure, self._signs_in_process and rule.data_api is None

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


def upstream_claims(
    rule: AccessRule,
    grant: Grant | None,
    owner_grants: OwnerGrants,
    connectors: Mapping[str, Connector],
    last_access: int,
    others: tuple[Grant, ...] = (),
) -> UpstreamClaims:
    """Return the claims asserted to the upstream (docs/design.md section 5) for one grant under one rule.

    `others` are the grants of the other required connectors, whose bearers are passed as well.
    """
    connections = tuple(
        # Do not expose a refresh in progress to the upstream: the connection is live.
        ConnectionClaim(
            g.connector, "live" if g.state is _REFRESHING else g.state.value, int(g.tokens.expires_at), g.public_id
        )
        for g in owner_grants.grants
    )
    if grant is None:
        return UpstreamClaims(owner_grants.owner, connections, rule.label, last_access=last_access)
    all_passed = (grant, *others) if rule.pass_all and rule.pass_token else ()
    return UpstreamClaims(
        owner_grants.owner,
        connections,
        rule.label,
        connector=grant.connector,
        environment=grant.key.environment,
        bearer=grant.tokens.bearer if rule.pass_token else None,
        expires_at=int(grant.tokens.expires_at),
        scope=grant.tokens.scope,
        provider=connectors[grant.connector].id,
        grant=grant.public_id,
        consent=grant.tokens.consent_id,
        id_tokens=tuple((each.connector, each.tokens.bearer) for each in all_passed),
        id_tokens_end=min((int(each.tokens.expires_at) for each in all_passed), default=None),
        last_access=last_access,
    )


def claims_of_request(verified: Verified) -> Verified:
    """Return the claims for the app of one request. An app that changes its dictionary changes no other request."""
    return replace(verified, id_tokens=dict(verified.id_tokens))


def verified_of(claims: UpstreamClaims) -> Verified:
    """Return the claims as an app in the same process gets them in `scope["akoya"]`.

    Nothing was signed, so `key_id` is empty and the times of a signature are 0. Requests share the claims. Only
    `id_tokens` can be changed, so each request gets a copy (`claims_of_request`); if it is empty, it is left out.
    """
    verified = Verified(
        claims.owner,
        claims.connector,
        None if claims.bearer is None else claims.bearer.reveal(),
        claims.expires_at,
        claims.scope,
        claims.environment,
        tuple(Connection(one.connector, one.state, one.expires_at, one.id) for one in claims.connections),
        provider=claims.provider,
        grant=claims.grant,
        consent=claims.consent,
        interaction_type=claims.interaction_type,
        last_access=None if claims.last_access is None else timestamp(claims.last_access),
        id_tokens={connector: token.reveal() for connector, token in claims.id_tokens},
        rule=claims.rule,
    )
    if not verified.id_tokens:
        # `Verified` then returns a new dictionary for each access, which costs requests nothing.
        object.__delattr__(verified, "id_tokens")
    return verified
