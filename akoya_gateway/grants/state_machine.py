"""The life of a grant: one table, no I/O, no clock.

Theory of operation
===================

Two rules keep this simple:

1. Everything that decides what may happen to a grant is in the `Grant` value, and the `Grant` value is changed by
   `transition` alone. Whoever wants to do something makes the next value and writes it by compare-and-set. A write that
   wins *is* the lease won; a write that loses is the lease lost: read again, start over.
2. An answer belongs to the refresh token it was asked with. `ProviderResponded.used` is that token, and an answer is
  applied
   only while the record still holds it. So an old answer can never replace what came after it, whoever brings it
   and however late, and a new pair finds its place even when its asker has lost the lease in the meantime.

Why a state `uncertain`
-----------------------

A used refresh token is dead at once at Akoya (akoya.md section 4), so the intent is recorded before the request
leaves: the grant is `refreshing`, with a lease. If the holder of the lease dies, or its request is cut after it left,
there are two worlds and nobody can tell them apart:

A. the provider never acted: the token we hold is good;
B. it did: our token is spent, and its successor was in the answer that we never got.

What can one later attempt with the same token do?

=======================  =============================  ===============================================
                         world A (never acted)          world B (acted, answer lost)
=======================  =============================  ===============================================
plain rejection of       new tokens: won back           refused: the truth, nothing lost that was not
reuse (Dex-era)                                         lost before
family revocation on     new tokens: won back           refused, and the family is revoked. Its refresh
reuse (Hydra-era)                                       token never reached us, so it is no loss; what
                                                        it can harm is the id_token that still lives
=======================  =============================  ===============================================

So the attempt is right, and the only thing to lose is what is left of the present bearer. Hence: no attempt while the
bearer lives (it is passed on until its end); then one attempt. It also waits `QUARANTINE` seconds after the unknown
outcome, because the first request may still be on its way: arriving *after* the second it would be the reuse that
gets the new family revoked. If the attempt's outcome is unknown too, the two worlds are the same as before and with no
living bearer nothing is left to harm, so it may be repeated, with doubling distance, `MAX_UNKNOWN_OUTCOMES` uses in all
(about 45 minutes); then the grant ends. From the second unknown outcome on the user is told to reconnect
(`told_to_reconnect`): nobody waits in a loop, and a provider's outage does not cost everybody their grant.

Some providers accept a spent token for a short time and answer with new tokens (`dialect.reuse_grace`: Hydra's and
Dex's grace after a rotation). There the attempt costs nothing in either world, so it is made at once, while the bearer
lives, and repeated until three quarters of the grace, counted from the first use, are over; after that all is as above.
Akoya documents none, so this is off unless configured.

A token whose earlier use had a *known* good outcome is never used again: the new pair has replaced it (rule 2).

Why an untrusted response never ends a grant
--------------------------------------------

A response whose id_token fails validation says nothing against the grant. The provider has accepted the refresh token,
and its successor is in the response and is stored. The cause is nearly always on our side (a clock, `issuer`,
`jwks_uri`) or passing (a key set that is being replaced), and touches every user at once. So the refresh is repeated
with pauses that grow from 5 s to 15 min, for as long as it takes, and the first response that can be trusted makes the
grant live again without the user. Meanwhile the old bearer is passed until it ends, and nothing after that.

The number of untrusted responses in a row is kept in the grant: replicas share the pauses, and none begins again with
the shortest. What was counted under an earlier configuration does not count (`since`, `failed_under`), so
a reload or a restart after a correction is tried at once. What is known about connectors and environments, on the other
hand, is kept by each process (`trust`).

Three things about such a response do end the grant: another `sub` (the user signed in to another account at the bank);
a refusal of the old refresh token where the response brought no new one; and the limit of unknown outcomes, above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

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
    MAX_LEASE,
    MAX_UNKNOWN_OUTCOMES,
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
)
from akoya_gateway.secret import Secret

# --- what the moves do ----------------------------------------------------------------------------------------------


def _lease(grant: Grant, event: RefreshRequested, now: float) -> Grant:
    if grant.tokens.refresh_token is None:
        return _ended(grant, Reason.NO_REFRESH_TOKEN)
    # One write says both "mine" and "sent": nothing is waited for between winning the lease and the request, so a
    # second write would cost every refresh a disk flush and would tell a crash apart from a sent request only in the
    # microseconds between the two.
    lease = Lease(event.holder, started_at=now, expires_at=now + event.lease, sent=True)
    return replace(grant, state=GrantState.REFRESHING, lease=lease)


def _renew(grant: Grant, event: LeaseRenewed, now: float) -> Grant:
    if grant.lease is None or grant.lease.holder != event.holder:
        return grant
    return replace(grant, lease=replace(grant.lease, expires_at=now + event.lease))


def _expire(grant: Grant, event: LeaseExpired, now: float) -> Grant:
    if grant.lease is not None and now < grant.lease.expires_at:
        return grant
    if grant.lease is not None and not grant.lease.sent:
        return _released(grant)
    return _uncertain(grant, Reason.HOLDER_LOST, now, 1.0, event.reuse_grace)


def _accept(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    answer = event.outcome
    assert isinstance(answer, TokensIssued)
    if not _is_current(grant, event):
        return grant
    if answer.tokens.sub != grant.key.sub:
        return _ended(grant, Reason.ANOTHER_SUB)
    if answer.tokens.refresh_token is None and answer.tokens.expires_at < grant.tokens.expires_at:
        return grant
    return replace(
        grant,
        tokens=_carry_over(answer.tokens, grant.tokens),
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
    )


def _refuse(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    if not _is_current(grant, event) or _is_other_holder(grant, event):
        return grant
    return _ended(grant, Reason.OUTCOME_UNKNOWN if grant.unknowns else Reason.DEAD_TOKEN)


def _postpone(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    """The token was not used up, and asking again at once would not help."""
    if not _is_current(grant, event) or _is_other_holder(grant, event):
        return grant
    answer, failures = event.outcome, grant.failures + 1
    asked_for = answer.retry_after or 0.0 if isinstance(answer, ProviderDown) else 0.0
    pause = max(min(back_off(failures, 1.0, event.jitter), MAX_LEASE), min(asked_for, MAX_BACK_OFF))
    reason = Reason.PROVIDER_DOWN if isinstance(answer, ProviderDown) else Reason.OPERATOR_FAULT
    reuse = None if grant.reuse is None else replace(grant.reuse, at=now + pause)
    return replace(
        _released(grant),
        reason=reason,
        failures=failures,
        retry_at=now + pause,
        failed_under=max(grant.failed_under, event.since),
        reuse=reuse,
    )


def _mark_unknown(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    if not _is_current(grant, event) or _is_other_holder(grant, event):
        return grant
    return _uncertain(grant, Reason.OUTCOME_UNKNOWN, now, event.jitter, event.reuse_grace)


def _distrust(grant: Grant, event: ProviderResponded, now: float) -> Grant:
    """A new refresh token is kept, because the old one is spent with it; the bearer of the answer is not."""
    answer = event.outcome
    assert isinstance(answer, Untrusted)
    if not _is_current(grant, event):
        return grant
    if answer.refresh_token is None and (grant.lease is None or _is_other_holder(grant, event)):
        return grant
    if answer.reason is DistrustReason.SUBJECT:
        return grant if grant.state is GrantState.NEEDS_RECONNECT else _ended(grant, Reason.ANOTHER_SUB)
    cached = grant
    if answer.refresh_token is not None:
        cached = replace(grant, tokens=replace(grant.tokens, refresh_token=answer.refresh_token))
        cached = replace(cached, unknowns=0, reuse=None)
    untrusted = 1 if grant.failed_under < event.since else grant.untrusted + 1
    pause = back_off(untrusted, UNTRUSTED_PAUSE, event.jitter, UNTRUSTED_GROWTH)
    return replace(
        _released(cached),
        reason=Reason.UNTRUSTED_ANSWER,
        failures=grant.failures + 1,
        untrusted=untrusted,
        retry_at=now + pause,
        # The older configuration of a replica, or of a refresh that was under way, does not count as the newer one.
        failed_under=max(grant.failed_under, event.since),
    )


def _revoke(grant: Grant, event: RevokeRequested, now: float) -> Grant:
    """What stays is a marker without tokens, so that who comes late finds out and versions go on counting."""
    blank = replace(grant.tokens, bearer=Secret(""), refresh_token=None, expires_at=0.0, scope=(), consent_id=None)
    return replace(grant, tokens=blank, state=GrantState.REVOKED, lease=None, reason=Reason.DISCONNECTED)


def _reconnect(grant: Grant, event: Reconnected, now: float) -> Grant:
    if event.tokens.sub != grant.key.sub:
        return grant
    return replace(
        grant,
        # Nothing is carried over from the older consent: its family may end with it.
        tokens=event.tokens,
        state=GrantState.LIVE,
        connected_at=now,
        refreshed_at=now,
        lease=None,
        reason=None,
        retry_at=0.0,
        failures=0,
        unknowns=0,
        untrusted=0,
        failed_under=0.0,
        reuse=None,
    )


def _is_current(grant: Grant, event: ProviderResponded) -> bool:
    """Rule 2: the answer is about the token that the grant still holds."""
    return grant.tokens.refresh_token is not None and grant.tokens.refresh_token == event.used


def _is_other_holder(grant: Grant, event: ProviderResponded) -> bool:
    """Another holder is using the token now: only good news of ours counts, the rest is told by their answer."""
    return grant.lease is not None and grant.lease.holder != event.holder


def _released(grant: Grant) -> Grant:
    """Back to where it was before the lease."""
    return replace(grant, state=GrantState.UNCERTAIN if grant.unknowns else GrantState.LIVE, lease=None)


def _uncertain(grant: Grant, reason: Reason, now: float, jitter: float, grace: float) -> Grant:
    # A reuse within the grace costs nothing if its outcome is unknown, too, so it does not count towards the limit.
    unknowns = grant.unknowns + (grant.reuse is None)
    reuse = next_reuse(grant.reuse, grant.lease, grace, now, jitter) if grant.reuse or not grant.unknowns else None
    doubted = replace(grant, unknowns=unknowns, failures=grant.failures + 1, reuse=reuse)
    if unknowns >= MAX_UNKNOWN_OUTCOMES:
        return _ended(doubted, reason)
    retry_at = now + quarantine(unknowns, jitter)
    return replace(doubted, state=GrantState.UNCERTAIN, lease=None, reason=reason, retry_at=retry_at)


def _ended(grant: Grant, reason: Reason) -> Grant:
    return replace(grant, state=GrantState.NEEDS_RECONNECT, lease=None, reason=reason, retry_at=0.0, reuse=None)


def _carry_over(new: TokenSet, old: TokenSet) -> TokenSet:
    """What a refresh answer leaves out stays as it was (RFC 6749 sections 5.1 and 6)."""
    return replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        scope=new.scope or old.scope,
        consent_id=new.consent_id or old.consent_id,
    )


# --- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transition:
    """`apply` makes the next grant; its state is one of `targets`, or nothing has changed (`unchanged_because` says
    when and why)."""

    apply: Callable[..., Grant]
    targets: tuple[GrantState, ...]
    unchanged_because: str = ""


@dataclass(frozen=True, slots=True)
class NoTransition:
    """The event changes nothing, and this is why."""

    reason: str


_LIVE, _REFRESHING, _UNCERTAIN = GrantState.LIVE, GrantState.REFRESHING, GrantState.UNCERTAIN
_DEAD, _REVOKED = GrantState.NEEDS_RECONNECT, GrantState.REVOKED

_LATE = Transition(_accept, (_LIVE, _DEAD), "the answer is about an older token")
_LATE_UNTRUSTED = Transition(_distrust, (_LIVE, _DEAD), "an older token, or no new one: the next use will tell")
_NOT_HELD = "nobody holds the lease: an answer without new tokens says nothing that is not known"
_NO_LEASE = "there is no lease"
_DISCONNECTED = "the user has disconnected; who brought a new token has it revoked"

TABLE: Mapping[GrantState, Mapping[type, Transition | NoTransition]] = MappingProxyType(
    {
        _LIVE: {
            RefreshRequested: Transition(_lease, (_REFRESHING, _DEAD)),
            LeaseRenewed: NoTransition(_NO_LEASE),
            LeaseExpired: NoTransition(_NO_LEASE),
            TokensIssued: _LATE,
            Refused: NoTransition("a late answer; the next use will tell"),
            ClientRejected: NoTransition(_NOT_HELD),
            ProviderDown: NoTransition(_NOT_HELD),
            OutcomeUnknown: NoTransition(_NOT_HELD),
            Untrusted: _LATE_UNTRUSTED,
            RevokeRequested: Transition(_revoke, (_REVOKED,)),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
        _REFRESHING: {
            RefreshRequested: NoTransition("somebody is at it: wait for the result"),
            LeaseRenewed: Transition(_renew, (_REFRESHING,), "it is another's lease"),
            LeaseExpired: Transition(_expire, (_UNCERTAIN, _LIVE, _DEAD), "it has not expired"),
            TokensIssued: Transition(_accept, (_LIVE, _DEAD), "the answer is about an older token"),
            Refused: Transition(_refuse, (_DEAD,), "an older token, or another's lease"),
            ClientRejected: Transition(_postpone, (_LIVE, _UNCERTAIN), "an older token, or another's lease"),
            ProviderDown: Transition(_postpone, (_LIVE, _UNCERTAIN), "an older token, or another's lease"),
            OutcomeUnknown: Transition(_mark_unknown, (_UNCERTAIN, _DEAD), "an older token, or another's lease"),
            Untrusted: Transition(_distrust, (_LIVE, _UNCERTAIN, _DEAD), "an older token, or another's lease"),
            RevokeRequested: Transition(_revoke, (_REVOKED,)),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
        _UNCERTAIN: {
            RefreshRequested: Transition(_lease, (_REFRESHING, _DEAD)),
            LeaseRenewed: NoTransition(_NO_LEASE),
            LeaseExpired: NoTransition(_NO_LEASE),
            # The holder was only slow: its answer settles the doubt.
            TokensIssued: _LATE,
            Refused: Transition(_refuse, (_DEAD,), "the answer is about an older token"),
            ClientRejected: NoTransition(_NOT_HELD),
            ProviderDown: NoTransition(_NOT_HELD),
            OutcomeUnknown: NoTransition(_NOT_HELD),
            Untrusted: _LATE_UNTRUSTED,
            RevokeRequested: Transition(_revoke, (_REVOKED,)),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
        _DEAD: {
            RefreshRequested: NoTransition("only the user can help"),
            LeaseRenewed: NoTransition(_NO_LEASE),
            LeaseExpired: NoTransition(_NO_LEASE),
            # A later attempt was refused *because* this one had succeeded: its pair is the living one.
            TokensIssued: _LATE,
            Refused: NoTransition("known"),
            ClientRejected: NoTransition(_NOT_HELD),
            ProviderDown: NoTransition(_NOT_HELD),
            OutcomeUnknown: NoTransition(_NOT_HELD),
            Untrusted: Transition(_distrust, (_LIVE,), "an older token, no new one, or of another sub"),
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
            RevokeRequested: NoTransition("done before"),
            Reconnected: Transition(_reconnect, (_LIVE,), "another sub: another grant"),
        },
    }
)


def transition(grant: Grant, event: Event, now: float) -> Grant:
    """The grant after the event. The same object: nothing happened, nothing is to be written.

    The record's version is not touched: that is the store's business.
    """
    column = type(event.outcome) if isinstance(event, ProviderResponded) else type(event)
    move = TABLE[grant.state][column]
    return grant if isinstance(move, NoTransition) else move.apply(grant, event, now)
