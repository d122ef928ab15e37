"""What the upstream gets: the client's copies removed, our headers prepared once per grant and signed per request."""

from __future__ import annotations

from collections import OrderedDict

from akoya_gateway.access.request import Ask, Headers
from akoya_gateway.admission.request_headers import FieldReader, Fields, client_headers_of
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import AccessRule, Config
from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants
from akoya_gateway.sessions.gateway_cookies import CookieJar
from akoya_gateway.signing import signer
from akoya_gateway.signing.claims import Passed, PassedConnection, Prepared
from akoya_gateway.signing.header_names import CONTENT_DIGEST
from akoya_gateway.trusted_proxies import TrustedProxies

REMEMBERED = 10_000
"""Prepared grants kept at hand, at a few kilobytes each: the id_token, encoded."""


class Passing:
    """Compiled once per configuration. Who signs for an app, and how much it takes, goes by the access rule."""

    def __init__(self, config: Config, cookies: CookieJar, clock: Clock) -> None:
        origin = str(config.public_url)
        # One signer for all rules that lead to the same upstream.
        self._signers = {
            upstream: signer(config.signing, origin, config.audience(upstream), clock=clock)
            for upstream in {rule.upstream for rule in config.access}
        }
        self._public_is_secure = config.public_url.scheme == "https"
        self.client_headers = client_headers_of(config)
        self.trusts = TrustedProxies(config.trusted_proxies)
        self.read = FieldReader(cookies, self.client_headers).read
        """The client's headers: what they say, and `onward`, without anything that is ours to say (design.md section
        5)."""
        self._prepared: OrderedDict[tuple[str, int], tuple[OwnerGrants, Grant | None, Prepared, Passed]] = OrderedDict()

    def onward(self, ask: Ask, ours: Headers, fields: Fields | None) -> Headers:
        """The headers that the upstream gets: the client's, stripped, and `ours`. `fields`: the former, if read."""
        fields = fields or self.read(ask.headers)
        theirs = fields.onward if self.trusts(ask.peer, told=ask.told) else fields.onward_from_client
        if ask.content_digest is not None:
            theirs = [pair for pair in theirs if pair[0] != CONTENT_DIGEST]
        return theirs + ours

    def prepare(self, rule: AccessRule, grant: Grant | None, held: OwnerGrants) -> Prepared:
        """What we say under this rule, ready to be signed. Raises `OperatorError` for more than `max_header_bytes`."""
        key = (held.owner, rule.index)
        found = self._prepared.get(key)
        if found is not None and found[1] is grant and found[0] is held:
            return found[2]
        facts = passed(rule, grant, held)
        # Read anew from the store with nothing changed: what is prepared stays good, signed assertions too.
        prepared = found[2] if found is not None and found[3] == facts else self._fitting(rule, facts)
        self._prepared[key] = (held, grant, prepared, facts)
        self._prepared.move_to_end(key)
        if len(self._prepared) > REMEMBERED:
            self._prepared.popitem(last=False)
        return prepared

    def secure(self, rule: AccessRule) -> bool:
        """Whether the app is spoken to in https: behind us as the upstream says, around us as its clients do."""
        return self._public_is_secure if rule.upstream is None else rule.upstream.secure

    def _fitting(self, rule: AccessRule, facts: Passed) -> Prepared:
        upstream = rule.upstream
        prepared = self._signers[upstream].prepare(facts)
        if upstream is not None and prepared.size > upstream.max_header_bytes:
            raise OperatorError(
                f"The headers for connector {facts.connector or '-'} are {prepared.size} bytes, more than "
                f"{upstream.place}.max_header_bytes ({upstream.max_header_bytes}). Raise it if the upstream can take "
                "more, share fewer accounts, or let the app fetch the token (`pass_token: false` in the access rule).",
                code="headers-too-large",
            )
        return prepared


_REFRESHING = GrantState.REFRESHING


def passed(rule: AccessRule, grant: Grant | None, held: OwnerGrants) -> Passed:
    """The facts of design.md section 5 for one grant under one rule."""
    connections = tuple(
        # A refresh under way is no business of the upstream's: the connection is live.
        PassedConnection(g.connector, "live" if g.state is _REFRESHING else g.state.value, int(g.tokens.expires_at))
        for g in held.grants
    )
    if grant is None:
        return Passed(held.owner, connections, rule.label)
    return Passed(
        held.owner,
        connections,
        rule.label,
        connector=grant.connector,
        environment=grant.key.environment,
        bearer=grant.tokens.bearer if rule.pass_token else None,
        expires_at=int(grant.tokens.expires_at),
        scope=grant.tokens.scope,
    )
