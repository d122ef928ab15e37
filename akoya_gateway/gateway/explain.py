"""What would happen to a request, told by the objects that would decide it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from akoya_gateway.access.path_normalization import PathRefused, judge
from akoya_gateway.access.policy import Gatekeeper, Pass, Stop
from akoya_gateway.access.request import Ask, is_navigation, names_a_method_in
from akoya_gateway.access.rule_table import AmbiguousSpelling
from akoya_gateway.admission.denial_responses import Refusals
from akoya_gateway.admission.header_injector import passed
from akoya_gateway.config.model import AccessRule, Config, Connector, SigningKey
from akoya_gateway.endpoints.router import own_routes
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret
from akoya_gateway.signing import key_generation, signer

EXAMPLE_BEARER = "<id_token>"
_MADE_UP = {b"signature": "akoya=:<signature>:", b"akoya-assertion": "<JWT>"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """`without`: for somebody who has connected nothing; `with_grants` and `headers`: for the imagined user."""

    path: str
    refused: str | None = None
    own_route: str | None = None
    rule: AccessRule | None = None
    without: tuple[str, ...] = ()
    with_grants: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Explainer:
    """`connected`: keys of the connectors that the imagined user has connected."""

    def __init__(self, config: Config, connected: tuple[str, ...], now: float) -> None:
        self._config = config
        self._now = now
        self._gatekeeper = Gatekeeper(config.access, config.connectors, config.path_variants)
        self._refusals = Refusals(config)
        self._held = OwnerGrants(
            "<owner>", tuple(_grant(config.connectors[key], now) for key in connected)
        )

    def explain(self, method: str, target: str) -> Explanation:
        """`target` is a path with or without a query, or a URL."""
        parts = urlsplit(target)
        raw = parts.path or "/"
        try:
            path = judge(raw.encode("latin-1", "replace"))
        except PathRefused as fault:
            return Explanation(raw, refused=f"{fault.status}: {fault.detail}")
        route = own_routes(self._config, path)
        if route is not None:
            return Explanation(path, own_route=route)
        try:
            match = self._gatekeeper.match(method, path)
        except AmbiguousSpelling as fault:
            refused = f"{fault.status}: {fault.detail} It is {fault.rule.label} (path_variants)."
            return Explanation(path, refused=refused)
        if names_a_method_in(parts.query.encode("latin-1", "replace")) and self._gatekeeper.minds_method(path):
            return Explanation(path, refused="400: `_method` in the query is a method override, and rules go by it.")
        nobody = self._gatekeeper.decide(match, None)
        somebody = self._gatekeeper.decide(match, self._held)
        asks = [self._ask(method, raw, parts.query, browser) for browser in (True, False)]
        return Explanation(
            path,
            rule=match.rule if match else None,
            without=tuple(dict.fromkeys(self._outcome(nobody, ask) for ask in asks)),
            with_grants=self._outcome(somebody, asks[1]),
            headers=self._headers(somebody, asks[0]),
        )

    def _ask(self, method: str, raw: str, query: str, browser: bool) -> Ask:
        host = self._config.public_url.authority.encode()
        headers = [(b"host", host), (b"accept", b"text/html" if browser else b"application/json")]
        return Ask(method, raw.encode("ascii"), query.encode("latin-1", "replace"), headers, None, "explain")

    def _outcome(self, decision: Pass | Stop, ask: Ask) -> str:
        if isinstance(decision, Pass):
            return f"it goes to the upstream{_which(decision.rule)}" + ("" if decision.grant else " without a token")
        answer = self._refusals.stop(decision, ask)
        location = next((value.decode() for name, value in answer.headers if name == b"location"), None)
        who = "a browser" if is_navigation(ask) else "anything else"
        if location:
            return f"{who} is redirected to {location} ({answer.status})"
        return f"{who} gets {answer.status} {decision.why}"

    def _headers(self, decision: Pass | Stop, ask: Ask) -> tuple[tuple[str, str], ...]:
        if not isinstance(decision, Pass) or not decision.identified:
            return ()
        config = self._config
        origin, audience = str(config.public_url), config.audience(decision.rule.upstream)
        try:
            facts = passed(decision.rule, decision.grant, self._held)
            key = SigningKey(
                "<key id>", Secret(key_generation.as_text(key_generation.new_private(config.signing.algorithm)))
            )
            prepared = signer(replace(config.signing, keys=(key,)), origin, audience).prepare(facts)
            host = ask.header(b"host") or b""
            made = prepared.headers(ask.method.encode(), host, ask.raw_path, ask.query, self._now)
        except GatewayError as fault:
            return (("fault", fault.detail),)
        return tuple((name.decode(), _MADE_UP.get(name, value.decode())) for name, value in made)


def _which(rule: AccessRule) -> str:
    """The name, where there are others."""
    upstream = rule.upstream
    if upstream is None or not upstream.name:
        return ""
    return f" {upstream.name} ({', '.join(map(str, upstream.origins))})"


def _grant(connector: Connector, now: float) -> Grant:
    client = connector.client
    key = GrantKey("<owner>", client.environment.name, client.name, connector.key, "<sub>")
    tokens = TokenSet(Secret(EXAMPLE_BEARER), None, now + 3600, client.scopes, "<sub>")
    return Grant(key, tokens, GrantState.LIVE, now, now)
