"""What is to be done with a grant now, and by whom. Pure: the grant and the time decide."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from akoya_gateway.grants.events import Reason
from akoya_gateway.grants.grant import Grant, GrantState


class Action(Enum):
    USE = auto()
    """Pass the bearer; nothing to do until `until`."""
    REFRESH = auto()
    """Use the refresh token now."""
    WAIT = auto()
    """Another holder is at it: wait for its result, at most until `until`, when its lease ends."""
    EXPIRE = auto()
    """The lease of another holder has ended without a result: say so, then look again."""
    HOLD = auto()
    """A refresh is due but not before `until`."""
    RECONNECT = auto()
    """Only the user can help."""


@dataclass(frozen=True, slots=True)
class NextAction:
    action: Action
    until: float = 0.0


OFFER_AFTER = 3
"""Untrusted responses in a row, after which a user who has to wait is offered to reconnect."""

_BY_CONFIGURATION = frozenset({Reason.UNTRUSTED_ANSWER, Reason.OPERATOR_FAULT})

_RECONNECT = NextAction(Action.RECONNECT)
_REFRESH = NextAction(Action.REFRESH)
_EXPIRE = NextAction(Action.EXPIRE)


def next_action(
    grant: Grant, now: float, refresh_before: float, *, early: float = 1.0, stale: bool = False, since: float = 0.0
) -> NextAction:
    """`early`: a multiple of the margin, for work ahead of need. `stale`: the upstream has learnt that the bearer is
    dead although it has not ended (602). `since`: as in `held_until`.
    """
    if grant.state is GrantState.REFRESHING:
        if grant.lease is None or grant.lease.expires_at <= now:
            return _EXPIRE
        return NextAction(Action.WAIT, grant.lease.expires_at)
    if grant.state is GrantState.LIVE:
        due = due_at(grant, refresh_before, early)
    elif grant.state is GrantState.UNCERTAIN and grant.reuse is not None and now < grant.reuse.until:
        if now >= grant.reuse.at:
            return _REFRESH
        return NextAction(Action.USE if now < grant.tokens.expires_at else Action.HOLD, grant.reuse.at)
    elif grant.state is GrantState.UNCERTAIN:
        # An attempt could cost the bearer that still lives (see `life`), so not before its end.
        due = grant.tokens.expires_at
    else:
        return _RECONNECT
    if now < due and not stale:
        return NextAction(Action.USE, due)
    if grant.tokens.refresh_token is None and now < grant.tokens.expires_at:
        return NextAction(Action.USE, grant.tokens.expires_at)
    held = held_until(grant, since)
    return NextAction(Action.HOLD, held) if now < held else _REFRESH


def held_until(grant: Grant, since: float) -> float:
    """Return when the next refresh may be tried.

    `since`: when the configuration in force was loaded. What failed before that for a reason that a reload may have
    removed is tried at once.
    """
    return 0.0 if grant.reason in _BY_CONFIGURATION and grant.failed_under < since else grant.retry_at


def due_at(grant: Grant, refresh_before: float, early: float = 1.0) -> float:
    """When a live grant is to be refreshed: `refresh_before` seconds before the end of its bearer, but never in the
    first three quarters of its life, or a short-lived token would be refreshed by every request.
    """
    tokens = grant.tokens
    return tokens.expires_at - early * min(refresh_before, 0.25 * max(tokens.expires_at - grant.refreshed_at, 0.0))


def must_reconnect(grant: Grant) -> bool:
    """The user is sent to the bank again rather than asked to wait. An uncertain grant whose second use came to
    nothing as well may still be won back by a later one, but nobody is left waiting for that.
    """
    if grant.state is GrantState.UNCERTAIN:
        return grant.unknowns > 1
    return grant.state in {GrantState.NEEDS_RECONNECT, GrantState.REVOKED}


def offered_reconnect(grant: Grant, since: float) -> bool:
    """Whether a user who has to wait is offered to connect the bank again. For untrusted responses this may help, where
    the fault is this connection's, and costs nothing: the grant is kept either way.
    """
    return grant.reason == Reason.UNTRUSTED_ANSWER and grant.untrusted >= OFFER_AFTER and grant.failed_under >= since


class ResponsibleParty(Enum):
    NOBODY = "nobody"
    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Who must do something, and what: a sentence that may be shown to that person."""

    who: ResponsibleParty
    what: str


_LIVE_REMEDIES = {
    None: Remedy(ResponsibleParty.NOBODY, "All is well; the token is renewed by itself."),
    Reason.OPERATOR_FAULT: Remedy(
        ResponsibleParty.OPERATOR,
        "Akoya refuses the client registration: compare client_id and client_secret with the Data Recipient Hub. "
        "The grant is kept and renewed as soon as they are right.",
    ),
    Reason.PROVIDER_DOWN: Remedy(ResponsibleParty.NOBODY, "Akoya did not take the request; it is repeated by itself."),
    Reason.UNTRUSTED_ANSWER: Remedy(
        ResponsibleParty.OPERATOR,
        "Akoya's response could not be trusted: compare issuer and jwks_uri of the environment, and the clock. The "
        "grant is kept; the refresh is repeated with growing pauses, and at once after a reload.",
    ),
}

_DEAD_REMEDIES = {
    Reason.DEAD_TOKEN: "The bank or Akoya has ended the connection: connect the bank again.",
    Reason.OUTCOME_UNKNOWN: "The connection was interrupted while it was renewed: connect the bank again.",
    Reason.HOLDER_LOST: "The connection was interrupted while it was renewed: connect the bank again.",
    Reason.UNTRUSTED_ANSWER: "The renewed connection could not be verified: connect the bank again.",
    Reason.ANOTHER_SUB: "The bank answered for another login: connect the bank again.",
    Reason.NO_REFRESH_TOKEN: "The connection was made without offline access and has ended: connect the bank again.",
}


def remedy(state: GrantState, reason: str | None) -> Remedy:
    """No state is a dead end: what the user or the operator must do, or that nobody must."""
    match state:
        case GrantState.LIVE:
            cached = Reason(reason) if reason in set(Reason) else None
            return _LIVE_REMEDIES.get(cached, _LIVE_REMEDIES[None])
        case GrantState.REFRESHING:
            return Remedy(ResponsibleParty.NOBODY, "The token is being renewed.")
        case GrantState.UNCERTAIN:
            return Remedy(
                ResponsibleParty.USER,
                "Nobody can know whether the last renewal went through. It is tried again when the present token has "
                "ended; connecting the bank again settles it at once.",
            )
        case GrantState.NEEDS_RECONNECT:
            return Remedy(
                ResponsibleParty.USER,
                _DEAD_REMEDIES.get(Reason(reason), "Connect the bank again.")
                if reason in set(Reason)
                else "Connect the bank again.",
            )
        case GrantState.REVOKED:
            return Remedy(ResponsibleParty.NOBODY, "Disconnected by the user; connecting the bank again starts anew.")
