"""What is logged about refreshes. No tokens: error texts are validated values of the provider, or the gateway's own."""

from __future__ import annotations

from akoya_gateway.grants.grant import Grant
from akoya_gateway.grants.provider_health import RegistrationProblem
from akoya_gateway.grants.trust import COMPARE, ValidationFault
from akoya_gateway.log import logger
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    TokenOutcome,
    TokensIssued,
    Untrusted,
    answer_fields,
)

log = logger("akoya_gateway.grants")

_OUTCOMES: dict[type, str] = {
    TokensIssued: "granted",
    Refused: "refused",
    ClientRejected: "client-rejected",
    ProviderDown: "provider-down",
    OutcomeUnknown: "outcome-unknown",
    Untrusted: "untrusted",
}

REFRESH_OUTCOMES = tuple(_OUTCOMES.values())
"""The values of `outcome` in log events and metrics of refreshes."""


def outcome_of(response: TokenOutcome) -> str:
    """Return the value of `outcome` for the provider's response."""
    return _OUTCOMES[type(response)]


def log_fields(grant: Grant) -> dict[str, str]:
    """Return the fields that identify the grant in log events."""
    return {"grant": grant.public_id, "connector": grant.connector, "environment": grant.key.environment}


def log_refresh(response: TokenOutcome, leased: Grant, current: Grant, seconds: float) -> None:
    """Log a finished refresh: `leased` is the grant before it, `current` the stored result."""
    log_event = log.info if isinstance(response, TokensIssued) else log.warning
    log_event(
        "refresh finished",
        **log_fields(leased),
        outcome=outcome_of(response),
        grant_state=current.state,
        seconds=round(seconds, 3),
        **answer_fields(response),
    )


def log_faults(rejected: RegistrationProblem | None, untrusted: ValidationFault | None) -> None:
    """Log faults that an operator has to correct, at their first sign."""
    if untrusted is not None:
        log.error(
            "untrusted refresh responses received",
            environment=untrusted.environment,
            connectors=untrusted.connectors,
            error=untrusted.error,
            remedy=f"compare {COMPARE}; reload",
        )
    if rejected is not None:
        log.error(
            "client registration rejected",
            client=rejected.client,
            error=rejected.error,
            environment=rejected.environment,
            remedy="compare client_id and client_secret with the Hub",
        )
