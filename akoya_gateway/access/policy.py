"""The access decision: which rule and which grant apply to a request, or why it is denied. No I/O and no clock.

Middleware, sidecar and forward-auth all use `AccessPolicy`. Sessions, refreshes and headers are handled elsewhere
(`admission`).
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
    """The request is allowed."""

    rule: AccessRule
    grant: Grant | None = None
    """The grant whose bearer is passed to the upstream, or None if the request is forwarded without a token."""
    identified: bool = False
    """Whether the upstream also receives the owner's connections."""
    others: tuple[Grant, ...] = ()
    """The grants of the other required connectors whose bearers are passed as well (`pass_tokens: all`)."""


class DenyReason(StrEnum):
    """Why a request is denied."""

    NO_RULE = "no-rule"
    UNKNOWN_CONNECTOR = "unknown-connector"
    NOT_CONNECTED = "not-connected"
    RECONNECT = "reconnect"
    """Like NOT_CONNECTED, but the user had connected a suitable bank, and that grant can no longer be used."""
    FORBIDDEN = "forbidden"
    UNKNOWN_GRANT = "unknown-grant"
    """The request names a grant that is not one of the owner's for this connector."""
    AMBIGUOUS_GRANT = "ambiguous-grant"
    """The owner has several logins at the bank, and the request names none."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The request is denied."""

    reason: DenyReason
    rule: AccessRule | None = None
    connectors: tuple[str, ...] = ()
    """Connectors that the user could connect. The rule requires one of them or all of them."""
    choices: tuple[Grant, ...] = ()
    """The grants to choose from, for AMBIGUOUS_GRANT."""
    offer: bool = False
    """Whether a browser is redirected to connect a bank (`otherwise: connect`)."""


Decision = Allow | Deny

_NEVER = frozenset({"TRACE", "TRACK", "CONNECT"})
_LIVE = GrantState.LIVE
_MAY_SERVE = frozenset({GrantState.LIVE, GrantState.REFRESHING, GrantState.UNCERTAIN})


class AccessPolicy:
    """Decides about requests by the access rules and connectors, which are compiled once."""

    def __init__(
        self,
        rules: Iterable[AccessRule],
        connectors: Mapping[str, Connector],
        path_variants: PathVariants = PathVariants.ALLOW,
    ) -> None:
        rules = tuple(rules)
        self._rule_table = RuleTable(rules, variants=path_variants is PathVariants.ALLOW)
        self.has_any_method_rules = any(rule.methods is not None for rule in rules)
        self._connectors = tuple(connectors)
        # A grant is unusable if its connector was removed or is now bound to another client or environment.
        self._bindings = {
            (connector.client.environment.name, connector.client.name, key) for key, connector in connectors.items()
        }

    def match(self, method: str, path: str) -> RuleMatch | None:
        """Return the rule for a normalized path, or None if no rule matches.

        Lower-case methods match no rule, because servers disagree about their meaning. TRACE, TRACK and CONNECT match
        none either: the response to a TRACE would show the browser the headers that are added for the app alone
        (RFC 9110 section 9.3.8).

        Raises:
            AmbiguousSpelling: Another spelling of the path is under another rule.
        """
        return self._rule_table.match(method, path) if method.isupper() and method not in _NEVER else None

    def has_method_rules(self, path: str) -> bool:
        """Return True if a request for the normalized path could fall under another rule with another method."""
        return self._rule_table.has_method_rules(path)

    def needs_owner(self, match: RuleMatch) -> bool:
        """Return True if the decision depends on the session. Public paths are served without looking it up."""
        return match.rule.require is not Require.NOTHING

    def decide(
        self,
        match: RuleMatch | None,
        owner_grants: OwnerGrants | None,
        excluding: frozenset[str] = frozenset(),
        chosen: str | None = None,
    ) -> Decision:
        """Decide whether the request is allowed and with which grant.

        Args:
            match: The result of `match`.
            owner_grants: The owner's grants, or None without a session.
            excluding: IDs of grants that turned out to be unusable.
            chosen: The grant ID that the request names (`grant_selection`), or None.
        """
        if match is None:
            return Deny(DenyReason.NO_RULE)
        rule = match.rule
        if rule.require is Require.NOTHING:
            return Allow(rule)
        grants = self._usable_grants(owner_grants, excluding)
        if rule.require is Require.ANY:
            return (
                Allow(rule, grants[0], True)
                if grants
                else self._decide_without_grant(rule, self._connectors, owner_grants)
            )
        required = rule.connectors if rule.parameter is None else (match.parameters[rule.parameter],)
        if rule.parameter is not None and required[0] not in self._connectors:
            return Deny(DenyReason.UNKNOWN_CONNECTOR, rule)
        if rule.grant is not None:
            return self._decide_chosen(rule, required[0], owner_grants, grants, chosen)
        if len(required) == 1 and (only := _first(grants, required[0])) is not None:
            return Allow(rule, only, True)
        found = {connector: _first(grants, connector) for connector in required}
        missing = tuple(connector for connector, grant in found.items() if grant is None)
        if missing:
            return self._decide_without_grant(rule, missing, owner_grants)
        passed = tuple(grant for grant in found.values() if grant is not None)
        return Allow(rule, passed[0], True, passed[1:] if rule.pass_all else ())

    def _decide_chosen(
        self,
        rule: AccessRule,
        connector: str,
        owner_grants: OwnerGrants | None,
        usable: tuple[Grant, ...],
        chosen: str | None,
    ) -> Decision:
        """Decide with the login that the request names, or with the only one.

        The ID is compared with the owner's own grants only: another user's grant is as unknown as an invented one.
        Logins that cannot be used count as well. Otherwise a request that names none would get the token of the
        personal account on the day on which the consent for the business account ends.
        """
        logins: tuple[Grant, ...] = ()
        if owner_grants is not None:
            logins = tuple(grant for grant in owner_grants.for_connector(connector) if self.is_bound(grant))
            if chosen is not None:
                logins = tuple(grant for grant in logins if grant.public_id == chosen)
                if not logins:
                    return Deny(DenyReason.UNKNOWN_GRANT, rule)
        if len(logins) > 1:
            return Deny(DenyReason.AMBIGUOUS_GRANT, rule, (connector,), logins)
        if logins and any(grant is logins[0] for grant in usable):
            return Allow(rule, logins[0], True)
        return self._decide_without_grant(rule, (connector,), owner_grants)

    def _decide_without_grant(
        self, rule: AccessRule, connectors: tuple[str, ...], owner_grants: OwnerGrants | None
    ) -> Decision:
        if rule.otherwise is Otherwise.PASS:
            return Allow(rule, None, owner_grants is not None)
        if rule.otherwise is Otherwise.FORBIDDEN:
            return Deny(DenyReason.FORBIDDEN, rule)
        reason = (
            DenyReason.RECONNECT if self._has_unusable_grant(connectors, owner_grants) else DenyReason.NOT_CONNECTED
        )
        return Deny(reason, rule, connectors, offer=rule.otherwise is Otherwise.CONNECT)

    def _has_unusable_grant(self, connectors: tuple[str, ...], owner_grants: OwnerGrants | None) -> bool:
        """Return True if the owner has a grant for one of the connectors. Called only if no such grant is usable."""
        grants = () if owner_grants is None else owner_grants.grants
        return any(grant.key.connector in connectors and self.is_bound(grant) for grant in grants)

    def is_bound(self, grant: Grant) -> bool:
        """Return True if the grant's connector is configured, with the same client and environment."""
        return (grant.key.environment, grant.key.client, grant.key.connector) in self._bindings

    def _usable_grants(self, owner_grants: OwnerGrants | None, excluding: frozenset[str]) -> tuple[Grant, ...]:
        if owner_grants is None:
            return ()
        bound = self._bindings
        serving = tuple(
            [
                g
                for g in owner_grants.grants
                if (g.state is _LIVE or g.state in _MAY_SERVE)
                and (g.key.environment, g.key.client, g.key.connector) in bound
            ]
        )
        # `Grant.id` computes a digest, so skip it when nothing is excluded.
        return tuple([g for g in serving if g.id not in excluding]) if excluding else serving


def _first(grants: tuple[Grant, ...], connector: str) -> Grant | None:
    for grant in grants:
        if grant.key.connector == connector:
            return grant
    return None
