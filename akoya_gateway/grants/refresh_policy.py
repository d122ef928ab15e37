"""Decides the next action for a grant and who has to act. Pure functions of the grant and the time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from akoya_gateway.clock import remaining
from akoya_gateway.grants.events import Reason
from akoya_gateway.grants.grant import Grant, GrantState
from akoya_gateway.grants.pauses import (
    MAX_BACK_OFF,
    MAX_CLOCK_SKEW,
    MAX_GRANT_BACK_OFF,
    MAX_HOLD,
    MAX_LEASE_AHEAD,
    UNTRUSTED_GROWTH,
    UNTRUSTED_PAUSE,
    back_off,
    quarantine,
)


class Action(Enum):
    """The next step for a grant. `until` is that of `NextAction`."""

    USE = auto()
    """Pass on the bearer. Nothing else to do before `until`."""
    REFRESH = auto()
    """Use the refresh token now."""
    WAIT = auto()
    """Another holder is refreshing. Wait for its result, at most until its lease expires at `until`."""
    EXPIRE = auto()
    """The lease of another holder has expired without a result. Record that, then evaluate the grant again."""
    HOLD = auto()
    """A refresh is due, but must not start before `until`."""
    RECONNECT = auto()
    """The user must reconnect."""


@dataclass(frozen=True, slots=True)
class NextAction:
    """The next action, and the time (Unix seconds) until which it applies, if any."""

    action: Action
    until: float = 0.0


OFFER_AFTER = 3
"""Number of consecutive responses of this grant after which a waiting user is offered to reconnect."""

_OFFERING = frozenset({Reason.UNTRUSTED_ANSWER, Reason.REFUSED_TEMPORARILY, Reason.OPERATOR_FAULT})
"""Failures that may be those of this grant only."""

_BY_CONFIGURATION = _OFFERING | {Reason.PROVIDER_DOWN}
"""Reasons that a reload may remove. A wrong host or proxy looks as if the provider were down."""

_RECONNECT = NextAction(Action.RECONNECT)
_REFRESH = NextAction(Action.REFRESH)
_EXPIRE = NextAction(Action.EXPIRE)


def next_action(
    grant: Grant, now: float, refresh_before: float, *, early: float = 1.0, stale: bool = False, since: float = 0.0
) -> NextAction:
    """Return the next action for a grant.

    Args:
        grant: The grant.
        now: The current time.
        refresh_before: The margin: seconds before the expiry of the bearer at which it is refreshed.
        early: A multiple of the margin, for refreshes ahead of need.
        stale: Whether the upstream reported that the bearer is dead although it has not expired (code 602).
        since: As in `held_until`.
    """
    if grant.state is GrantState.REFRESHING:
        if grant.lease is None or not remaining(grant.lease.expires_at, now, MAX_LEASE_AHEAD):
            return _EXPIRE
        return NextAction(Action.WAIT, grant.lease.expires_at)
    if grant.state is GrantState.LIVE:
        due = due_at(grant, refresh_before, early)
    elif (
        grant.state is GrantState.UNCERTAIN and grant.reuse is not None and remaining(grant.reuse.until, now, MAX_HOLD)
    ):
        if now >= grant.reuse.at:
            return _REFRESH
        return NextAction(Action.USE if now < grant.tokens.expires_at else Action.HOLD, grant.reuse.at)
    elif grant.state is GrantState.UNCERTAIN:
        # An attempt could invalidate the current bearer (see `state_machine`), so wait until it has expired.
        due = grant.tokens.expires_at
    else:
        return _RECONNECT
    if now < due and not stale:
        return NextAction(Action.USE, due)
    if grant.tokens.refresh_token is None and now < grant.tokens.expires_at:
        return NextAction(Action.USE, grant.tokens.expires_at)
    held = held_until(grant, now, since)
    return NextAction(Action.HOLD, held) if now < held else _REFRESH


def held_until(grant: Grant, now: float, since: float) -> float:
    """Return the earliest time of the next refresh, or 0.0 if it may start now.

    Args:
        grant: The grant.
        now: The current time.
        since: When the current configuration was loaded. If the grant failed before that for a reason that a reload may
            have removed, it may be refreshed at once.
    """
    if grant.reason in _BY_CONFIGURATION and grant.failed_under < since:
        return 0.0
    return grant.retry_at if remaining(grant.retry_at, now, _longest_pause(grant) + MAX_CLOCK_SKEW) else 0.0


def _longest_pause(grant: Grant) -> float:
    """Return the longest pause that the last failure can have caused, in seconds.

    A longer wait began while the clock was ahead. After an untrusted response that is likely, because a clock that is
    ahead is one of its causes.
    """
    match grant.reason:
        case Reason.UNTRUSTED_ANSWER:
            return back_off(grant.untrusted, UNTRUSTED_PAUSE, 1.0, UNTRUSTED_GROWTH)
        case Reason.OUTCOME_UNKNOWN | Reason.HOLDER_LOST:
            return quarantine(grant.unknowns, 1.0)
        case Reason.OPERATOR_FAULT:
            return MAX_GRANT_BACK_OFF
        case _:
            return MAX_BACK_OFF


def due_at(grant: Grant, refresh_before: float, early: float = 1.0) -> float:
    """Return when a live grant should be refreshed: `refresh_before` seconds, times `early`, before its bearer expires.

    The margin without `early` is at most a quarter of the bearer's lifetime. Otherwise every request would refresh a
    short-lived token.
    """
    tokens = grant.tokens
    return tokens.expires_at - early * min(refresh_before, 0.25 * max(tokens.expires_at - grant.refreshed_at, 0.0))


def must_reconnect(grant: Grant) -> bool:
    """Return True if the user should reconnect rather than wait.

    This includes uncertain grants after the second unknown outcome: a later attempt may still recover such a grant, but
    the user should not have to wait for it.
    """
    if grant.state is GrantState.UNCERTAIN:
        return grant.unknowns > 1
    return grant.state in {GrantState.NEEDS_RECONNECT, GrantState.REVOKED}


def offered_reconnect(grant: Grant, since: float) -> bool:
    """Return True if a waiting user should be offered to connect the bank again, although the grant has not ended.

    `Grant.untrusted` counts the responses that may be about this grant only. Reconnecting helps if only this connection
    is affected. It costs nothing, because the grant is kept either way.
    """
    return grant.reason in _OFFERING and grant.untrusted >= OFFER_AFTER and grant.failed_under >= since


class ResponsibleParty(Enum):
    """Who has to act. `NOBODY` means that no action is needed."""

    NOBODY = "nobody"
    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Who has to act, and the instruction as a sentence that may be shown to that person."""

    who: ResponsibleParty
    what: str


_LIVE_REMEDIES = {
    None: Remedy(ResponsibleParty.NOBODY, "All is well; the token is renewed automatically."),
    Reason.OPERATOR_FAULT: Remedy(
        ResponsibleParty.OPERATOR,
        "Akoya refuses the client registration: compare client_id and client_secret with the Data Recipient Hub. "
        "The grant is kept and renewed as soon as they are right.",
    ),
    Reason.PROVIDER_DOWN: Remedy(
        ResponsibleParty.NOBODY, "Akoya did not accept the request; it is repeated automatically."
    ),
    Reason.REFUSED_TEMPORARILY: Remedy(
        ResponsibleParty.NOBODY,
        "Akoya refused the token with an error that asks to repeat the request; it is repeated automatically. If this "
        "lasts, connecting the bank again may help.",
    ),
    Reason.UNTRUSTED_ANSWER: Remedy(
        ResponsibleParty.OPERATOR,
        "Akoya's response could not be trusted: compare token_endpoint, client_id, issuer and jwks_uri with Akoya's "
        "values, and the clock. The grant is kept; the refresh is repeated with growing pauses, and at once after a "
        "reload.",
    ),
}

_DEAD_REMEDIES = {
    Reason.DEAD_TOKEN: "The bank or Akoya has ended the connection: connect the bank again.",
    Reason.OUTCOME_UNKNOWN: "The connection was interrupted while it was renewed: connect the bank again.",
    Reason.HOLDER_LOST: "The connection was interrupted while it was renewed: connect the bank again.",
    Reason.UNTRUSTED_ANSWER: "The renewed connection could not be verified: connect the bank again.",
    Reason.ANOTHER_SUB: "The bank's response was for another login: connect the bank again.",
    Reason.NO_REFRESH_TOKEN: "The connection was made without offline access and has ended: connect the bank again.",
}


def remedy(state: GrantState, reason: str | None) -> Remedy:
    """Return who has to act on a grant in this state, and how. Every state has a remedy."""
    match state:
        case GrantState.LIVE:
            known_reason = Reason(reason) if reason in set(Reason) else None
            return _LIVE_REMEDIES.get(known_reason, _LIVE_REMEDIES[None])
        case GrantState.REFRESHING:
            return Remedy(ResponsibleParty.NOBODY, "The token is being renewed.")
        case GrantState.UNCERTAIN:
            return Remedy(
                ResponsibleParty.USER,
                "It is not known whether the last renewal succeeded. It is tried again when the current token has "
                "expired; connecting the bank again resolves this at once.",
            )
        case GrantState.NEEDS_RECONNECT:
            return Remedy(
                ResponsibleParty.USER,
                _DEAD_REMEDIES.get(Reason(reason), "Connect the bank again.")
                if reason in set(Reason)
                else "Connect the bank again.",
            )
        case GrantState.REVOKED:
            return Remedy(
                ResponsibleParty.NOBODY, "Disconnected by the user; connecting the bank again restores access."
            )
