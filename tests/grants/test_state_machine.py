"""The state machine: every pair of state and event is defined, and no state is a dead end."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.grants.events import (
    EVENTS,
    Event,
    LeaseExpired,
    LeaseRenewed,
    ProviderResponded,
    Reason,
    Reconnected,
    RefreshRequested,
    RevokeRequested,
)
from akoya_gateway.grants.grant import Grant, GrantState, Lease
from akoya_gateway.grants.pauses import MAX_BACK_OFF, MAX_UNKNOWN_OUTCOMES, UNKNOWN_OUTCOME_PAUSE, back_off
from akoya_gateway.grants.refresh_policy import Action, ResponsibleParty, due_at, must_reconnect, next_action, remedy
from akoya_gateway.grants.state_diagram import mermaid
from akoya_gateway.grants.state_machine import (
    TABLE,
    NoTransition,
    Transition,
    transition,
)
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DistrustReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    TokenOutcome,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from tests.grants.events import KEY, NOW, tokens


def grant(state: GrantState, **changes: object) -> Grant:
    lease = Lease("me", NOW - 1, NOW + 9, sent=True) if state is GrantState.REFRESHING else None
    unknowns = 1 if state is GrantState.UNCERTAIN else 0
    made = Grant(KEY, tokens(), state, NOW - 100, NOW - 100, lease=lease, unknowns=unknowns)
    return replace(made, **changes)  # type: ignore[arg-type]


ANSWERS: list[TokenOutcome] = [
    TokensIssued(tokens(2)),
    TokensIssued(replace(tokens(2), refresh_token=None)),
    TokensIssued(tokens(2, sub="sub_2")),
    Refused("invalid_grant"),
    ClientRejected("invalid_client"),
    ProviderDown("no connection"),
    ProviderDown("busy", 30.0),
    OutcomeUnknown("timeout"),
    Untrusted("no key", Secret("refresh-2"), DistrustReason.KEYS),
    Untrusted("bad signature", Secret("refresh-2"), DistrustReason.ID_TOKEN),
    Untrusted("bad signature", None, DistrustReason.ID_TOKEN),
    Untrusted("sub", Secret("refresh-2"), DistrustReason.SUBJECT),
]


def events() -> list[Event]:
    others: list[Event] = [
        RefreshRequested("me", 10.0),
        LeaseRenewed("me", 10.0),
        LeaseRenewed("other", 10.0),
        LeaseExpired(),
        RevokeRequested(),
        Reconnected(tokens(9)),
        Reconnected(tokens(9, sub="sub_2")),
    ]
    responded = [
        ProviderResponded(holder, Secret(used), response, 0.5)
        for holder in ("me", "other")
        for used in ("refresh-1", "refresh-0")
        for response in ANSWERS
    ]
    return [*others, *responded]


def grants(state: GrantState) -> list[Grant]:
    made = [grant(state), grant(state, failures=2), grant(state, tokens=replace(tokens(), refresh_token=None))]
    made.append(grant(state, fallback=Secret("refresh-00")))
    if state is GrantState.REFRESHING:
        lease = Lease("me", NOW - 30, NOW - 20, sent=True)
        made += [
            grant(state, lease=lease),
            grant(state, lease=replace(lease, sent=False)),
            grant(state, unknowns=1),
            grant(state, unknowns=MAX_UNKNOWN_OUTCOMES - 1),
            grant(state, lease=lease, unknowns=MAX_UNKNOWN_OUTCOMES - 1),
        ]
    return made


def test_every_state_decides_every_event() -> None:
    assert set(TABLE) == set(GrantState)
    for state, row in TABLE.items():
        assert set(row) == set(EVENTS), state
        assert all(cell.reason for cell in row.values() if isinstance(cell, NoTransition))


@pytest.mark.parametrize("state", GrantState)
def test_transition_table_matches_the_state_machine(state: GrantState) -> None:
    """Each move leads where the table says, each `NoTransition` changes nothing, and every listed target is reached."""
    reached: dict[type, set[GrantState]] = {}
    for before in grants(state):
        for event in events():
            column = type(event.outcome) if isinstance(event, ProviderResponded) else type(event)
            cell = TABLE[state][column]
            after = transition(before, event, NOW)
            if after is before:
                assert isinstance(cell, NoTransition) or cell.unchanged_because, (state, event)
                continue
            assert isinstance(cell, Transition)
            assert after.state in cell.targets, (state, event)
            assert (after.lease is not None) == (after.state is GrantState.REFRESHING)
            assert after.version == before.version
            reached.setdefault(column, set()).add(after.state)
    promised = {column: set(cell.targets) for column, cell in TABLE[state].items() if isinstance(cell, Transition)}
    assert reached == promised


def test_response_for_an_older_token_changes_nothing() -> None:
    for state in GrantState:
        for response in ANSWERS:
            before = grant(state)
            assert transition(before, ProviderResponded("me", Secret("refresh-0"), response), NOW) is before


@pytest.mark.parametrize("state", [GrantState.LIVE, GrantState.UNCERTAIN, GrantState.NEEDS_RECONNECT])
def test_new_tokens_find_their_place_however_late(state: GrantState) -> None:
    after = transition(grant(state), ProviderResponded("me", Secret("refresh-1"), TokensIssued(tokens(2))), NOW)
    assert (after.state, after.tokens, after.unknowns, after.reason) == (GrantState.LIVE, tokens(2), 0, None)


def test_new_tokens_count_although_another_holds_the_lease() -> None:
    before = grant(GrantState.REFRESHING, lease=Lease("other", NOW, NOW + 10, sent=True))
    assert transition(
        before, ProviderResponded("me", Secret("refresh-1"), TokensIssued(tokens(2))), NOW
    ).tokens == tokens(2)
    refused = ProviderResponded("me", Secret("refresh-1"), Refused("invalid_grant"))
    assert transition(before, refused, NOW) is before, "the other holder's request may be the one that spent the token"


def test_members_that_a_refresh_response_omits_stay() -> None:
    sparse = replace(tokens(2), refresh_token=None, scope=(), consent_id=None)
    after = transition(
        grant(GrantState.REFRESHING), ProviderResponded("me", Secret("refresh-1"), TokensIssued(sparse)), NOW
    )
    assert after.tokens.refresh_token == Secret("refresh-1")
    assert (after.tokens.scope, after.tokens.consent_id) == (("openid",), "consent")
    assert after.tokens.bearer == Secret("bearer-2")


def test_tokens_of_another_login_are_never_taken() -> None:
    response = TokensIssued(tokens(2, sub="sub_2"))
    after = transition(grant(GrantState.REFRESHING), ProviderResponded("me", Secret("refresh-1"), response), NOW)
    assert (after.state, after.reason) == (GrantState.NEEDS_RECONNECT, Reason.ANOTHER_SUB)
    assert after.tokens == tokens(1)


def test_expired_lease_that_was_not_sent_is_simply_free() -> None:
    unsent = Lease("other", NOW - 30, NOW - 1, sent=False)
    assert transition(grant(GrantState.REFRESHING, lease=unsent), LeaseExpired(), NOW).state is GrantState.LIVE
    tainted = grant(GrantState.REFRESHING, lease=unsent, unknowns=1)
    assert transition(tainted, LeaseExpired(), NOW).state is GrantState.UNCERTAIN


def test_provider_failure_does_not_make_an_uncertain_token_certain() -> None:
    tainted = grant(GrantState.REFRESHING, unknowns=1)
    for response in (ProviderDown("no connection"), ClientRejected("invalid_client")):
        assert (
            transition(tainted, ProviderResponded("me", Secret("refresh-1"), response), NOW).state
            is GrantState.UNCERTAIN
        )


@given(st.integers(0, MAX_UNKNOWN_OUTCOMES - 2), st.floats(0, 1, exclude_max=True))
def test_token_of_unknown_fate_rests_for_the_quarantine(unknowns: int, jitter: float) -> None:
    before = grant(GrantState.REFRESHING, unknowns=unknowns)
    after = transition(before, ProviderResponded("me", Secret("refresh-1"), OutcomeUnknown("cut"), jitter), NOW)
    assert after.state is GrantState.UNCERTAIN
    assert UNKNOWN_OUTCOME_PAUSE <= after.retry_at - NOW <= MAX_BACK_OFF + UNKNOWN_OUTCOME_PAUSE
    ended = replace(after, tokens=tokens(ends=NOW))
    assert next_action(ended, NOW + UNKNOWN_OUTCOME_PAUSE - 0.1, 60).action is Action.HOLD
    assert next_action(ended, after.retry_at, 60).action is Action.REFRESH


@given(st.integers(1, 10_000), st.floats(0.01, 60), st.floats(0, 1, exclude_max=True))
def test_back_off_is_bounded_and_never_nothing(failures: int, first: float, jitter: float) -> None:
    assert first * 0.5 <= back_off(failures, first, jitter) <= MAX_BACK_OFF


def test_living_bearer_is_not_risked_by_an_attempt() -> None:
    assert next_action(grant(GrantState.UNCERTAIN), NOW + 890, 60).action is Action.USE
    assert next_action(grant(GrantState.UNCERTAIN), NOW + 890, 60, stale=True).action is Action.REFRESH


def test_disconnecting_leaves_no_token_behind() -> None:
    after = transition(grant(GrantState.LIVE), RevokeRequested(), NOW)
    assert after.tokens.refresh_token is None
    assert not after.tokens.bearer
    assert not after.usable(NOW)


@pytest.mark.parametrize("state", GrantState)
@pytest.mark.parametrize("reason", [None, "a word of a later release", *Reason])
def test_no_state_is_a_dead_end(state: GrantState, reason: str | None) -> None:
    advice = remedy(state, reason)
    assert advice.what
    if state in {GrantState.NEEDS_RECONNECT, GrantState.UNCERTAIN}:
        assert advice.who is ResponsibleParty.USER
        assert "connect" in advice.what.lower()
    # Every state can be left: at the latest when the user reconnects.
    assert transition(grant(state), Reconnected(tokens(9)), NOW).state is GrantState.LIVE


def test_registration_fault_names_the_operator_and_the_remedy() -> None:
    assert remedy(GrantState.LIVE, Reason.OPERATOR_FAULT).who is ResponsibleParty.OPERATOR
    assert "client_secret" in remedy(GrantState.LIVE, Reason.OPERATOR_FAULT).what


def test_second_unknown_outcome_requires_a_reconnect() -> None:
    assert not must_reconnect(grant(GrantState.UNCERTAIN, unknowns=1))
    assert must_reconnect(grant(GrantState.UNCERTAIN, unknowns=2))


@given(st.floats(1, 100_000), st.floats(0, 3600))
def test_no_token_is_due_in_the_first_part_of_its_life(life: float, margin: float) -> None:
    made = grant(GrantState.LIVE, tokens=tokens(ends=NOW + life), refreshed_at=NOW)
    assert NOW + 0.74 * life <= due_at(made, margin) <= NOW + life


def test_diagram_in_the_docs_is_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "grants.md").read_text()
    drawn = re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert drawn is not None
    assert drawn[1] == mermaid(), "run: python -m akoya_gateway.grants.state_diagram, and paste"
