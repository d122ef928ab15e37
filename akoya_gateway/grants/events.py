"""The events of the grant state machine, and the reasons why a grant is not live. See `grants.state_machine`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    TokenOutcome,
    TokenSet,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret


class Reason(StrEnum):
    """Why a grant is not live, or is live with a fault.

    The values are stable: they appear in logs, in the output of `grants` and on the connections page.
    """

    DEAD_TOKEN = "dead_token"
    OUTCOME_UNKNOWN = "refresh_outcome_unknown"
    HOLDER_LOST = "refresh_interrupted"
    OPERATOR_FAULT = "operator_fault"
    PROVIDER_DOWN = "provider_down"
    REFUSED_TEMPORARILY = "refused_temporarily"
    UNTRUSTED_ANSWER = "untrusted_answer"
    ANOTHER_SUB = "another_sub"
    NO_REFRESH_TOKEN = "no_refresh_token"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class RefreshRequested:
    """`holder` requests a lease of `lease` seconds in order to use the refresh token."""

    holder: str
    lease: float


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """`holder` is still refreshing and extends its lease to `lease` seconds from now."""

    holder: str
    lease: float


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """The holder did not renew its lease in time. `reuse_grace` is as in `ProviderResponded`."""

    reuse_grace: float = 0.0


@dataclass(frozen=True, slots=True)
class ProviderResponded:
    """The outcome of a refresh that `holder` requested with the refresh token `used`."""

    holder: str
    used: Secret
    outcome: TokenOutcome
    jitter: float = 0.0
    """A random number in [0, 1) that spreads the back-off."""
    since: float = 0.0
    """When the configuration that validated the response was loaded."""
    reuse_grace: float = 0.0
    """Seconds for which the provider accepts a spent refresh token."""
    source: str | None = None
    """`Client.token_source` of the client that sent the request."""


@dataclass(frozen=True, slots=True)
class RevokeRequested:
    """The user disconnects the grant."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The user gave a newer consent for the same connector.

    Tokens with another `sub` do not change this grant, because they belong to another one.
    """

    tokens: TokenSet = field(repr=False)


Event = RefreshRequested | LeaseRenewed | LeaseExpired | ProviderResponded | RevokeRequested | Reconnected

OUTCOMES = (TokensIssued, Refused, ClientRejected, ProviderDown, OutcomeUnknown, Untrusted)
EVENTS: tuple[type, ...] = (RefreshRequested, LeaseRenewed, LeaseExpired, *OUTCOMES, RevokeRequested, Reconnected)
"""The columns of the transition table. A `ProviderResponded` is represented by the type of its outcome."""
