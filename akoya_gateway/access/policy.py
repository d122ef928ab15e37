"""The one decision: which rule, which grant, or what stands in the way. Pure: no I/O, no clock.

Middleware, sidecar and forward-auth ask this object and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from akoya_gateway.access.rule_table import RuleMatch, RuleTable
from akoya_gateway.config.model import AccessRule, Connector, Otherwise, PathVariants, Require
from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants


@dataclass(frozen=True, slots=True)
class Allow:
    """The request goes on. `grant` None: without a token. `identified`: the owner's connections go along."""

    rule: AccessRule
    grant: Grant | None = None
    identified: bool = False


class DenyReason(StrEnum):
    NO_RULE = "no-rule"
    UNKNOWN_CONNECTOR = "unknown-connector"
    NOT_CONNECTED = "not-connected"
    RECONNECT = "reconnect"
    """As NOT_CONNECTED, for a user who had connected a bank that would do, and whose grant has ended there."""
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Deny:
    """The request does not go on. `connectors`: what the user could connect; one of them, or all, would do.

    `offer` tells whether a browser is to be redirected to connect (`otherwise: connect`).
    """

    reason: DenyReason
    rule: AccessRule | None = None
    connectors: tuple[str, ...] = ()
    offer: bool = False


Decision = Allow | Deny

_NEVER = frozenset({"TRACE", "TRACK", "CONNECT"})
_LIVE = GrantState.LIVE
_MAY_SERVE = frozenset({GrantState.LIVE, GrantState.REFRESHING, GrantState.UNCERTAIN})


class AccessPolicy:
    """Rules and connectors, compiled once."""

    def __init__(
        self,
        rules: Iterable[AccessRule],
        connectors: Mapping[str, Connector],
        path_variants: PathVariants = PathVariants.ALLOW,
    ) -> None:
        rules = tuple(rules)
        self._rule_table = RuleTable(rules, variants=path_variants is PathVariants.ALLOW)
        self.goes_by_method = any(rule.methods is not None for rule in rules)
        self._connectors = tuple(connectors)
        # A grant of a connector that was removed, or is bound to another client or environment now, serves nobody.
        self._method_bound = {
            (connector.client.environment.name, connector.client.name, key) for key, connector in connectors.items()
        }

    def match(self, method: str, path: str) -> RuleMatch | None:
        """The rule for a judged path.

        Lower-case methods match nothing: servers disagree about their meaning. TRACE and its like do not either: the
        app's answer would show the browser what is added for the app alone (RFC 9110 section 9.3.8).
        """
        return self._rule_table.match(method, path) if method.isupper() and method not in _NEVER else None

    def has_method_rules(self, path: str) -> bool:
        """Whether a request for the judged path would come under another rule by another method."""
        return self._rule_table.has_method_rules(path)

    def needs_owner(self, match: RuleMatch) -> bool:
        """Whether the session must be known to decide; public paths are served without looking."""
        return match.rule.require is not Require.NOTHING

    def decide(
        self, match: RuleMatch | None, owner_grants: OwnerGrants | None, excluding: frozenset[str] = frozenset()
    ) -> Decision:
        """`owner_grants`: the owner's grants, None without a session. `excluding`: grants that turned out unusable."""
        if match is None:
            return Deny(DenyReason.NO_RULE)
        rule = match.rule
        if rule.require is Require.NOTHING:
            return Allow(rule)
        grants = self._usable_grant(owner_grants, excluding)
        if rule.require is Require.ANY:
            return (
                Allow(rule, grants[0], True)
                if grants
                else self._decide_without_grant(rule, self._connectors, owner_grants)
            )
        wanted = rule.connectors if rule.parameter is None else (match.parameters[rule.parameter],)
        if rule.parameter is not None and wanted[0] not in self._connectors:
            return Deny(DenyReason.UNKNOWN_CONNECTOR, rule)
        if len(wanted) == 1 and (only := _first(grants, wanted[0])) is not None:
            return Allow(rule, only, True)
        found = {connector: _first(grants, connector) for connector in wanted}
        missing = tuple(connector for connector, grant in found.items() if grant is None)
        if missing:
            return self._decide_without_grant(rule, missing, owner_grants)
        return Allow(rule, found[wanted[0]], True)

    def _decide_without_grant(
        self, rule: AccessRule, connectors: tuple[str, ...], owner_grants: OwnerGrants | None
    ) -> Decision:
        if rule.otherwise is Otherwise.PASS:
            return Allow(rule, None, owner_grants is not None)
        if rule.otherwise is Otherwise.FORBIDDEN:
            return Deny(DenyReason.FORBIDDEN, rule)
        why = DenyReason.RECONNECT if self._had(connectors, owner_grants) else DenyReason.NOT_CONNECTED
        return Deny(why, rule, connectors, rule.otherwise is Otherwise.CONNECT)

    def _had(self, connectors: tuple[str, ...], owner_grants: OwnerGrants | None) -> bool:
        """Whether the owner holds a grant of one of these, which then is none that can serve."""
        grants = () if owner_grants is None else owner_grants.grants
        return any(
            grant.key.connector in connectors
            and (grant.key.environment, grant.key.client, grant.key.connector) in self._method_bound
            for grant in grants
        )

    def _usable_grant(self, owner_grants: OwnerGrants | None, excluding: frozenset[str]) -> tuple[Grant, ...]:
        if owner_grants is None:
            return ()
        bound = self._method_bound
        serving = tuple(
            [
                g
                for g in owner_grants.grants
                if (g.state is _LIVE or g.state in _MAY_SERVE)
                and (g.key.environment, g.key.client, g.key.connector) in bound
            ]
        )
        # An id is a digest: none is made where there is nothing to compare it with.
        return tuple([g for g in serving if g.id not in excluding]) if excluding else serving


def _first(grants: tuple[Grant, ...], connector: str) -> Grant | None:
    for grant in grants:
        if grant.key.connector == connector:
            return grant
    return None
