"""A token is released only with a matching rule, a grant and a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from akoya_gateway.access.policy import AccessPolicy, Allow, Deny, DenyReason
from akoya_gateway.access.rule_table import AmbiguousSpelling
from akoya_gateway.config.model import (
    AccessRule,
    Client,
    Connector,
    Dialect,
    Environment,
    GrantSelector,
    GrantSource,
    Otherwise,
    PathVariants,
    Require,
)
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret

ENVIRONMENT = Environment("e", None, "https://a/auth", "https://a/token", None, None, None, Dialect())
CLIENT = Client("c", ENVIRONMENT, "id", Secret("s"), "https://app/cb", "/cb", ("openid",))
CONNECTORS = {key: Connector(key, key, key.title(), CLIENT) for key in ("mikomo", "other")}


def grant(connector: str, state: GrantState = GrantState.LIVE, sub: str = "u") -> Grant:
    tokens = TokenSet(Secret("t"), Secret("r"), 2000.0, ("openid",), sub)
    return Grant(GrantKey("o", "e", "c", connector, sub), tokens, state, 0.0, 0.0)


def held(*grants: Grant) -> OwnerGrants:
    return OwnerGrants("o", grants)


def gate(require: Require, otherwise: Otherwise = Otherwise.CONNECT, path: str = "/*", **more: object) -> AccessPolicy:
    return AccessPolicy([AccessRule(0, path, None, require, otherwise=otherwise, **more)], CONNECTORS)  # type: ignore[arg-type]


def decide(policy: AccessPolicy, owned: OwnerGrants | None, path: str = "/x") -> Allow | Deny:
    return policy.decide(policy.match("GET", path), owned)


def test_path_without_a_rule_is_refused_even_with_a_grant() -> None:
    found = decide(gate(Require.ANY, path="/only"), held(grant("mikomo")))
    assert isinstance(found, Deny)
    assert found.reason is DenyReason.NO_RULE


def test_lower_case_method_matches_nothing() -> None:
    assert gate(Require.NOTHING).match("get", "/x") is None


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT"])
def test_what_would_show_the_browser_what_the_app_gets_matches_nothing(method: str) -> None:
    assert gate(Require.NOTHING).match(method, "/x") is None


def test_nothing_passes_without_a_token_even_where_there_is_one() -> None:
    found = decide(gate(Require.NOTHING), held(grant("mikomo")))
    assert found == Allow(found.rule, None, False)  # type: ignore[arg-type]


def test_any_passes_the_most_recent_live_grant() -> None:
    dead, live = grant("mikomo", GrantState.NEEDS_RECONNECT), grant("other")
    found = decide(gate(Require.ANY), held(dead, live))
    assert isinstance(found, Allow)
    assert found.grant is live


@pytest.mark.parametrize("state", [GrantState.NEEDS_RECONNECT, GrantState.REVOKED])
def test_ended_grant_is_never_used(state: GrantState) -> None:
    found = decide(gate(Require.CONNECTORS, connectors=("mikomo",)), held(grant("mikomo", state)))
    assert isinstance(found, Deny)
    assert found.connectors == ("mikomo",)


def test_list_needs_all_of_its_connectors_and_passes_the_first() -> None:
    policy = gate(Require.CONNECTORS, connectors=("mikomo", "other"))
    lacking = decide(policy, held(grant("mikomo")))
    assert isinstance(lacking, Deny)
    assert lacking.connectors == ("other",)
    found = decide(policy, held(grant("other"), grant("mikomo")))
    assert isinstance(found, Allow)
    assert found.grant is not None
    assert found.grant.connector == "mikomo"


def test_path_parameter_names_the_connector() -> None:
    policy = gate(Require.PARAMETER, Otherwise.UNAUTHORIZED, "/banks/{connector}/*", parameter="connector")
    owned = held(grant("mikomo"))
    assert isinstance(decide(policy, owned, "/banks/mikomo/x"), Allow)
    other = decide(policy, owned, "/banks/other/x")
    assert isinstance(other, Deny)
    assert (other.reason, other.offer) == (DenyReason.NOT_CONNECTED, False)
    unknown = decide(policy, owned, "/banks/nobody/x")
    assert isinstance(unknown, Deny)
    assert unknown.reason is DenyReason.UNKNOWN_CONNECTOR


def test_otherwise_pass_lets_through_without_a_token() -> None:
    found = decide(gate(Require.ANY, Otherwise.PASS), None)
    assert isinstance(found, Allow)
    assert (found.grant, found.identified) == (None, False)


def test_otherwise_forbidden_offers_no_connection() -> None:
    found = decide(gate(Require.ANY, Otherwise.FORBIDDEN), None)
    assert isinstance(found, Deny)
    assert (found.reason, found.connectors, found.offer) == (DenyReason.FORBIDDEN, (), False)


def test_grant_that_was_tried_in_vain_is_left_out() -> None:
    policy = gate(Require.ANY)
    first, second = grant("mikomo"), grant("other")
    found = policy.decide(policy.match("GET", "/x"), held(first, second), frozenset({first.id}))
    assert isinstance(found, Allow)
    assert found.grant is second


@pytest.mark.parametrize(
    "stale",
    [
        GrantKey("o", "e", "c", "removed", "u"),
        GrantKey("o", "another-environment", "c", "mikomo", "u"),
        GrantKey("o", "e", "another-client", "mikomo", "u"),
    ],
)
@pytest.mark.parametrize("require", [Require.ANY, Require.CONNECTORS])
def test_grant_of_a_removed_connector_is_not_used(stale: GrantKey, require: Require) -> None:
    rules = gate(require, connectors=("mikomo",))
    found = decide(rules, held(replace(grant("mikomo"), key=stale)))
    assert isinstance(found, Deny)
    assert found.reason is DenyReason.NOT_CONNECTED
    good = grant("mikomo")
    assert decide(rules, held(replace(good, key=stale), good)) == Allow(found.rule, good, True)  # type: ignore[arg-type]


SELECT = GrantSelector(GrantSource.QUERY, "login")


@pytest.mark.parametrize("otherwise", list(Otherwise))
def test_login_that_is_chosen_decides_alone(otherwise: Otherwise) -> None:
    policy = gate(Require.CONNECTORS, otherwise, connectors=("mikomo",), grant=SELECT)
    personal, business, elsewhere = grant("mikomo", sub="p"), grant("mikomo", sub="b"), grant("other", sub="p")
    owned, match = held(personal, business, elsewhere), policy.match("GET", "/x")
    for chosen in (personal, business):
        assert policy.decide(match, owned, chosen=chosen.public_id) == Allow(match.rule, chosen, True)  # type: ignore[union-attr]
    for id_ in (elsewhere.public_id, personal.id, "g_" + "A" * 22, ""):
        found = policy.decide(match, owned, chosen=id_)
        assert found == Deny(DenyReason.UNKNOWN_GRANT, match.rule)  # type: ignore[union-attr]
    found = policy.decide(match, owned)
    assert isinstance(found, Deny)
    assert (found.reason, found.choices) == (DenyReason.AMBIGUOUS_GRANT, (personal, business))


@pytest.mark.parametrize("source", [GrantSource.SINGLE, GrantSource.QUERY])
def test_login_that_has_ended_still_makes_the_choice_ambiguous(source: GrantSource) -> None:
    """Without this, a request without a choice would get another login's token once the consent for one ends."""
    policy = gate(Require.CONNECTORS, connectors=("mikomo",), grant=GrantSelector(source, "login"))
    ended, live = grant("mikomo", GrantState.NEEDS_RECONNECT, sub="e"), grant("mikomo", sub="l")
    match = policy.match("GET", "/x")
    found = policy.decide(match, held(live, ended))
    assert isinstance(found, Deny)
    assert found.reason is DenyReason.AMBIGUOUS_GRANT
    found = policy.decide(match, held(live, ended), chosen=ended.public_id)
    assert isinstance(found, Deny)
    assert found.reason is DenyReason.RECONNECT
    found = policy.decide(match, held(live, ended), frozenset({live.id}), live.public_id)
    assert isinstance(found, Deny)
    assert found.reason is DenyReason.RECONNECT
    assert policy.decide(match, held(live)) == Allow(match.rule, live, True)  # type: ignore[union-attr]
    assert policy.decide(match, None, chosen=live.public_id) == policy.decide(match, None)
    stale = replace(grant("mikomo", sub="s"), key=replace(live.key, client="removed", sub="s"))
    assert policy.decide(match, held(live, stale)) == Allow(match.rule, live, True)  # type: ignore[union-attr]


def test_all_tokens_are_passed_if_the_rule_passes_all() -> None:
    owned = held(grant("other"), grant("mikomo"))
    listed = ("mikomo", "other")
    both = decide(gate(Require.CONNECTORS, connectors=listed, pass_all=True), owned)
    assert isinstance(both, Allow)
    assert (both.grant, both.others) == (owned.grants[1], (owned.grants[0],))
    first = decide(gate(Require.CONNECTORS, connectors=listed), owned)
    assert isinstance(first, Allow)
    assert (first.grant, first.others) == (owned.grants[1], ())


def test_spelling_under_a_rule_that_chooses_another_login_is_refused() -> None:
    rules = [
        AccessRule(0, "/x", None, Require.CONNECTORS, ("mikomo",), grant=SELECT),
        AccessRule(1, "/x/", None, Require.CONNECTORS, ("mikomo",)),
    ]
    refusing = AccessPolicy(rules, CONNECTORS, PathVariants.REFUSE)
    for path in ("/x", "/x/"):
        with pytest.raises(AmbiguousSpelling):
            refusing.match("GET", path)
