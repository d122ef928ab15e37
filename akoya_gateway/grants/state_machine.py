"""The state machine of a grant: one transition table, without I/O and without a clock.

Theory of operation
===================

Two rules keep this simple:

1. The `Grant` value contains everything that determines what may happen to a grant, and only `transition` changes it.
   A process that wants to act computes the next value and writes it by compare-and-set. If the write succeeds, the
   process has the lease. If the write fails, another process was first; read the grant again and start over.
2. A response belongs to the refresh token that was sent in its request. `ProviderResponded.used` is that token, and a
   response is applied only while the record still has it. So a late response can never overwrite newer tokens,
   and a new token pair is stored even if the holder that requested it has lost its lease in the meantime.

Why there is a state `uncertain`
--------------------------------

At Akoya a refresh token is invalid as soon as it has been used (docs/akoya.md section 4). Therefore the intent is
recorded before the request leaves: the grant becomes `refreshing`, with a lease. If the holder of the lease crashes, or
its connection breaks after the request has left, there are two cases, and they cannot be told apart:

A. The provider never acted. Our token is still valid.
B. The provider acted. Our token is spent, and its successor was in the response that was lost.

What happens if the same token is tried once more?

=======================  =============================  ===============================================
provider behavior        A (never acted)                B (acted, response lost)
=======================  =============================  ===============================================
rejects the reuse        new tokens: recovered          refused. This is correct; nothing is lost that
(Dex-era)                                               was not lost before
revokes the token        new tokens: recovered          refused, and the token family is revoked. Its
family (Hydra-era)                                      refresh token never reached us, so that is no
                                                        loss. It may invalidate the current id_token
=======================  =============================  ===============================================

So a second attempt is right, and it can cost at most the remaining lifetime of the current bearer. Hence there is no
attempt before the bearer expires (until then it is passed on); afterwards there is one. The attempt also waits at least
`UNKNOWN_OUTCOME_PAUSE` seconds after the unknown outcome, because the first request may still be in transit: if it
arrived *after* the second one, it would be the reuse that revokes the new family. If the outcome of the attempt is
unknown too, the two cases are the same as before. Without a valid bearer nothing is left to lose, so the attempt is
repeated with doubling pauses, up to `MAX_UNKNOWN_OUTCOMES` uses in all (about 45 minutes); then the grant ends. A
response that says nothing about the token (502, a web page with status 200) counts only up to
`MAX_UNUSABLE_RESPONSES`, so it never ends a grant: during hours of maintenance it is the only response. From the
second unknown outcome on, the user is asked to reconnect (`refresh_policy.must_reconnect`). So no user has to wait
for the retries, and an outage of the provider does not end every grant.

Some providers accept a spent token for a short time and respond with new tokens (`dialect.reuse_grace`: the grace
period of Hydra and Dex after a rotation). There the attempt costs nothing in either case. It is made at once, even
while the bearer is valid, and repeated until three quarters of the grace period, counted from the first use, are over.
After that, the rules above apply. Akoya documents no grace period, so this is off unless configured.

A token whose earlier use is *known* to have succeeded is never used again: the new pair has replaced it (rule 2).

Why an untrusted response does not end a grant
--------------------------------------------

A response whose id_token fails validation is no evidence against the grant. The provider has accepted the refresh
token, and its successor is in the response and is stored. The cause is nearly always on our side (the clock, `issuer`,
`jwks_uri`) or temporary (a key set that is being replaced), and affects every user at once. So the refresh is repeated
without a limit, with pauses that grow from 5 s to 15 min. The first trusted response makes the grant live again
without action by the user. Meanwhile the old bearer is passed on until it expires; after that, no bearer is passed on.

The number of consecutive untrusted responses is kept in the grant, so that replicas share the back-off and none starts
with the shortest pause. Other failures that may be those of this grant only (`outcomes.may_concern_one_grant`) count as
well, because they too may go on until the user connects again. Responses counted under an earlier configuration are
ignored (`since`, `failed_under`), so the refresh is retried at once after a reload or restart that fixes the cause. The
state of connectors and environments, in contrast, is kept by each process (`trust`).

A refusal counts as such a response if the token was issued by another token endpoint, or to another client_id, than the
configuration has now (`trust.TrustTracker.review`), because a wrong server refuses every token.

Three things do end the grant in this situation: another `sub` (the user signed in to another account at the bank);
a refusal of the old refresh token if the response contained no new one; and the limit of unknown outcomes, above.

A refresh token that came without a bearer may be part of an error text about the one that was sent ("is required"). The
new one is used first: if it is genuine, the one that was sent is spent. The one that was sent stays in `fallback` and
is used if the new one is refused. This has no further risk: a provider that revokes the token family then revokes only
what it has already refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from akoya_gateway.clock import remaining
from akoya_gateway.grants.events import (
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
from akoya_gateway.grants.pauses import (
    MAX_BACK_OFF,
    MAX_GRANT_BACK_OFF,
    MAX_LEASE_AHEAD,
    MAX_UNKNOWN_OUTCOMES,
    MAX_UNUSABLE_RESPONSES,
    UNTRUSTED_GROWTH,
    UNTRUSTED_PAUSE,
    back_off,
    next_reuse,
    quarantine,
)
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DistrustReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    TokenSet,
    TokensIssued,
    Untrusted,
    may_concern_one_grant,
)
from akoya_gateway.secret import Secret

# --- transitions ----------------------------------------------------------------------------------------------------


def _lease(grant: Grant, event: RefreshRequested, now: float) -> Grant:
    if grant.tokens.refresh_token is None:
        return _ended(grant, Reason.NO_REFRESH_TOKEN)
    # One write records both the lease and `sent`. The request follows the lease without an await in between. A second
    # write would cost every refresh a disk flush, only to distinguish a crash from a sent request in the microseconds
    # between the two.
    lease = Lease(event.holder, started_at=now, expires_at=now + event.lease, sent=True)
    return replace(grant, state=GrantState.REFRESHING, lease=lease)


def _renew(grant: Grant, event: LeaseRenewed, now: float) -> Grant:
    if grant.lease is None or grant.lease.holder != event.holder:
        return grant
    return replace(grant, lease=replace(grant.lease, expires_at=now + event.lease))


def _expire(grant: Grant, event: LeaseExpired, now: float) -> Grant:
    if grant.lease is not None and remaining(grant.lease.expires_at, now, MAX_LEASE_AHEAD):
        return grant
    if grant.lease is not None and not grant.lease.sent:
        return _released(grant)
    return _uncertain(grant, Reason.HOLDER_LOST, now, 1.0, event.reuse_grace)


def _accept(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    outcome = event.outcome
    assert isinstance(outcome, TokensIssued)
    if not _is_current(grant, event):
        return grant
    if outcome.tokens.sub != grant.key.sub:
        return _ended(grant, Reason.ANOTHER_SUB)
    if outcome.tokens.refresh_token is None and outcome.tokens.expires_at < grant.tokens.expires_at:
        return grant
    return _live(grant, _carry_over(outcome.tokens, grant.tokens), now)


def _live(grant: Grant, tokens: TokenSet, now: float) -> Grant:
    """Return the grant with new tokens, and without anything that earlier failures have left."""
    return replace(
        grant,
        tokens=tokens,
        state=GrantState.LIVE,
        refreshed_at=now,
        lease=None,
        reason=None,
        retry_at=0.0,
        failures=0,
        unknowns=0,
        untrusted=0,
        failed_under=0.0,
        reuse=None,
        fallback=None,
    )


def _refuse(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    if not _is_current(grant, event) or _is_other_holder(grant, event):
        return grant
    if grant.fallback is not None:
        return _distrusted(grant, grant.fallback, event, now)
    return _ended(grant, Reason.OUTCOME_UNKNOWN if grant.unknowns else Reason.DEAD_TOKEN)


def _postpone(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    """Release the lease and back off: the token is not spent, and an immediate retry would not help."""
    if not _is_current(grant, event) or _is_other_holder(grant, event):
        return grant
    outcome, failures = event.outcome, grant.failures + 1
    assert isinstance(outcome, ProviderDown | ClientRejected)
    retry_after = outcome.retry_after or 0.0 if isinstance(outcome, ProviderDown) else 0.0
    longest = MAX_GRANT_BACK_OFF
    if may_concern_one_grant(outcome):
        # No circuit breaker limits these requests, and they may go on for weeks.
        longest = MAX_BACK_OFF if isinstance(outcome, ProviderDown) else longest
        reason = Reason.REFUSED_TEMPORARILY if isinstance(outcome, ProviderDown) else Reason.OPERATOR_FAULT
        untrusted = _consecutive(grant, event)
    elif isinstance(outcome, ProviderDown):
        reason, untrusted = Reason.PROVIDER_DOWN, grant.untrusted
    else:
        reason, untrusted = Reason.OPERATOR_FAULT, 0
    pause = max(min(back_off(failures, 1.0, event.jitter), longest), min(retry_after, MAX_BACK_OFF))
    reuse = None if grant.reuse is None else replace(grant.reuse, at=now + pause)
    return replace(
        _released(grant),
        reason=reason,
        failures=failures,
        untrusted=untrusted,
        retry_at=now + pause,
        failed_under=max(grant.failed_under, event.since),
        reuse=reuse,
    )


def _mark_unknown(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    if not _is_current(grant, event) or _is_other_holder(grant, event):
        return grant
    outcome = event.outcome
    assert isinstance(outcome, OutcomeUnknown)
    limit = MAX_UNKNOWN_OUTCOMES if outcome.reply is None else MAX_UNUSABLE_RESPONSES
    return _uncertain(grant, Reason.OUTCOME_UNKNOWN, now, event.jitter, event.reuse_grace, limit)


def _distrust(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    """Keep the new refresh token of an untrusted response, because the old one is spent, but not the new bearer."""
    outcome = event.outcome
    assert isinstance(outcome, Untrusted)
    if not _is_current(grant, event):
        return grant
    if outcome.refresh_token is None and (grant.lease is None or _is_other_holder(grant, event)):
        return grant
    if outcome.reason is DistrustReason.SUBJECT:
        return grant if grant.state is GrantState.NEEDS_RECONNECT else _ended(grant, Reason.ANOTHER_SUB)
    if outcome.refresh_token is None:
        # A refusal from another token source is still one: try the previous token, as `_refuse` does.
        fallback = grant.fallback if outcome.reason is DistrustReason.SOURCE else None
        return _distrusted(grant, fallback, event, now)
    after = _distrusted(grant, outcome.refresh_token, event, now)
    if not outcome.doubtful:
        return replace(after, tokens=replace(after.tokens, source=event.source))
    sent = grant.fallback or grant.tokens.refresh_token
    return replace(after, fallback=None if sent == outcome.refresh_token else sent)


def _distrusted(grant: Grant, refresh_token: Secret | None, event: ProviderResponded, now: float) -> Grant:
    """Back off, with `refresh_token` in place of the current one unless it is None."""
    updated = grant
    if refresh_token is not None:
        updated = replace(grant, tokens=replace(grant.tokens, refresh_token=refresh_token))
        updated = replace(updated, unknowns=0, reuse=None, fallback=None)
    untrusted = _consecutive(grant, event)
    pause = back_off(untrusted, UNTRUSTED_PAUSE, event.jitter, UNTRUSTED_GROWTH)
    return replace(
        _released(updated),
        reuse=None if updated.reuse is None else replace(updated.reuse, at=now + pause),
        reason=Reason.UNTRUSTED_ANSWER,
        failures=grant.failures + 1,
        untrusted=untrusted,
        retry_at=now + pause,
        # A replica, or a refresh that was in flight during a reload, may have an older configuration; keep the newest.
        failed_under=max(grant.failed_under, event.since),
    )


def _consecutive(grant: Grant, event: ProviderResponded) -> int:
    """Return the value of `Grant.untrusted` after a response that counts."""
    return 1 if grant.failed_under < event.since else grant.untrusted + 1


def _revoke(grant: Grant, event: RevokeRequested, now: float) -> Grant:
    """Leave a tombstone without tokens, so that late writers find the grant revoked and versions keep increasing."""
    blank = replace(grant.tokens, bearer=Secret(""), refresh_token=None, expires_at=0.0, scope=(), consent_id=None)
    revoked = replace(grant, tokens=blank, state=GrantState.REVOKED, lease=None, reason=Reason.DISCONNECTED)
    return replace(revoked, fallback=None)


def _reconnect(grant: Grant, event: Reconnected, now: float) -> Grant:
    if event.tokens.sub != grant.key.sub:
        return grant
    # Nothing is carried over from the older consent, because its token family may be revoked with it.
    return replace(_live(grant, event.tokens, now), connected_at=now)


def _is_current(grant: Grant, event: ProviderResponded) -> bool:
    """Return True if the response belongs to the grant's current refresh token (rule 2)."""
    return grant.tokens.refresh_token is not None and grant.tokens.refresh_token == event.used


def _is_other_holder(grant: Grant, event: ProviderResponded) -> bool:
    """Return True if another holder has the lease.

    Its own response decides then; from the sender of this event, only new tokens are accepted.
    """
    return grant.lease is not None and grant.lease.holder != event.holder


def _released(grant: Grant) -> Grant:
    """Return the grant in the state that it had before the lease."""
    return replace(grant, state=GrantState.UNCERTAIN if grant.unknowns else GrantState.LIVE, lease=None)


def _uncertain(
    grant: Grant, reason: Reason, now: float, jitter: float, grace: float, max_count: int = MAX_UNKNOWN_OUTCOMES
) -> Grant:
    # A reuse within the grace period costs nothing even if its outcome is unknown, so it does not count towards the
    # limit.
    unknowns = max(grant.unknowns, min(grant.unknowns + (grant.reuse is None), max_count))
    reuse = next_reuse(grant.reuse, grant.lease, grace, now, jitter) if grant.reuse or not grant.unknowns else None
    doubted = replace(grant, unknowns=unknowns, failures=grant.failures + 1, reuse=reuse)
    if unknowns >= MAX_UNKNOWN_OUTCOMES:
        return _ended(doubted, reason)
    retry_at = now + quarantine(unknowns, jitter)
    return replace(doubted, state=GrantState.UNCERTAIN, lease=None, reason=reason, retry_at=retry_at)


def _ended(grant: Grant, reason: Reason) -> Grant:
    ended = replace(grant, state=GrantState.NEEDS_RECONNECT, lease=None, reason=reason, retry_at=0.0)
    return replace(ended, reuse=None, fallback=None)


def _carry_over(new: TokenSet, old: TokenSet) -> TokenSet:
    """Keep the old values of what a refresh response omits (RFC 6749 sections 5.1 and 6)."""
    return replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        scope=new.scope or old.scope,
        consent_id=new.consent_id or old.consent_id,
    )


# --- the transition table -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transition:
    """`apply` returns the next grant, whose state is one of `targets`, or the same grant if nothing changes.

    `unchanged_because` is the condition under which nothing changes.
    """

    apply: Callable[..., Grant]
    targets: tuple[GrantState, ...]
    unchanged_because: str = ""


@dataclass(frozen=True, slots=True)
class NoTransition:
    """The event never changes the grant in this state, for the given reason."""

    reason: str


_LIVE, _REFRESHING, _UNCERTAIN = GrantState.LIVE, GrantState.REFRESHING, GrantState.UNCERTAIN
_DEAD, _REVOKED = GrantState.NEEDS_RECONNECT, GrantState.REVOKED

_LATE = Transition(_accept, (_LIVE, _DEAD), "the response is about an older token")
_LATE_UNTRUSTED = Transition(_distrust, (_LIVE, _DEAD), "an older token, or no new one: the next refresh decides")
_NOT_HELD = "there is no lease, and a response without new tokens adds nothing"
_NO_LEASE = "there is no lease"
_DISCONNECTED = "the user has disconnected; the holder that received a new token revokes it"

TABLE: Mapping[GrantState, Mapping[type, Transition | NoTransition]] = MappingProxyType(
    {
        _LIVE: {
            RefreshRequested: Transition(_lease, (_REFRESHING, _DEAD)),
            LeaseRenewed: NoTransition(_NO_LEASE),
            LeaseExpired: NoTransition(_NO_LEASE),
            TokensIssued: _LATE,
            Refused: NoTransition("a late response; the next refresh decides"),
            ClientRejected: NoTransition(_NOT_HELD),
            ProviderDown: NoTransition(_NOT_HELD),
            OutcomeUnknown: NoTransition(_NOT_HELD),
            Untrusted: _LATE_UNTRUSTED,
            RevokeRequested: Transition(_revoke, (_REVOKED,)),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
        _REFRESHING: {
            RefreshRequested: NoTransition("a refresh is in progress: wait for its result"),
            LeaseRenewed: Transition(_renew, (_REFRESHING,), "another holder has the lease"),
            LeaseExpired: Transition(_expire, (_UNCERTAIN, _LIVE, _DEAD), "the lease has not expired"),
            TokensIssued: Transition(_accept, (_LIVE, _DEAD), "the response is about an older token"),
            Refused: Transition(_refuse, (_DEAD, _LIVE), "an older token, or another lease holder"),
            ClientRejected: Transition(_postpone, (_LIVE, _UNCERTAIN), "an older token, or another lease holder"),
            ProviderDown: Transition(_postpone, (_LIVE, _UNCERTAIN), "an older token, or another lease holder"),
            OutcomeUnknown: Transition(_mark_unknown, (_UNCERTAIN, _DEAD), "an older token, or another lease holder"),
            Untrusted: Transition(_distrust, (_LIVE, _UNCERTAIN, _DEAD), "an older token, or another lease holder"),
            RevokeRequested: Transition(_revoke, (_REVOKED,)),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
        _UNCERTAIN: {
            RefreshRequested: Transition(_lease, (_REFRESHING, _DEAD)),
            LeaseRenewed: NoTransition(_NO_LEASE),
            LeaseExpired: NoTransition(_NO_LEASE),
            # The holder was only slow; its response resolves the uncertainty.
            TokensIssued: _LATE,
            Refused: Transition(_refuse, (_DEAD, _LIVE), "the response is about an older token"),
            ClientRejected: NoTransition(_NOT_HELD),
            ProviderDown: NoTransition(_NOT_HELD),
            OutcomeUnknown: NoTransition(_NOT_HELD),
            Untrusted: _LATE_UNTRUSTED,
            RevokeRequested: Transition(_revoke, (_REVOKED,)),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
        _DEAD: {
            RefreshRequested: NoTransition("the user must reconnect"),
            LeaseRenewed: NoTransition(_NO_LEASE),
            LeaseExpired: NoTransition(_NO_LEASE),
            # A later attempt was refused *because* this one had succeeded, so its token pair is the valid one.
            TokensIssued: _LATE,
            Refused: NoTransition("already known"),
            ClientRejected: NoTransition(_NOT_HELD),
            ProviderDown: NoTransition(_NOT_HELD),
            OutcomeUnknown: NoTransition(_NOT_HELD),
            Untrusted: Transition(_distrust, (_LIVE,), "an older token, no new one, or another sub"),
            RevokeRequested: Transition(_revoke, (_REVOKED,)),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
        _REVOKED: {
            RefreshRequested: NoTransition("nothing is left to refresh"),
            LeaseRenewed: NoTransition(_NO_LEASE),
            LeaseExpired: NoTransition(_NO_LEASE),
            TokensIssued: NoTransition(_DISCONNECTED),
            Refused: NoTransition(_DISCONNECTED),
            ClientRejected: NoTransition(_DISCONNECTED),
            ProviderDown: NoTransition(_DISCONNECTED),
            OutcomeUnknown: NoTransition(_DISCONNECTED),
            Untrusted: NoTransition(_DISCONNECTED),
            RevokeRequested: NoTransition("already revoked"),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
    }
)


def transition(grant: Grant, event: Event, now: float) -> Grant:
    """Return the grant after the event, or the same object if nothing changed and nothing has to be written.

    The version is left unchanged; `GrantRepository.write` sets it.
    """
    column = type(event.outcome) if isinstance(event, ProviderResponded) else type(event)
    move = TABLE[grant.state][column]
    return grant if isinstance(move, NoTransition) else move.apply(grant, event, now)
