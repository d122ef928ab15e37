"""What can happen to a grant, and the words for why it is not live. See `grants.state_machine`."""

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
    """Why a grant is not simply live. Stable words: they reach logs, `grants` and the connections page."""

    DEAD_TOKEN = "dead_token"
    OUTCOME_UNKNOWN = "refresh_outcome_unknown"
    HOLDER_LOST = "refresh_interrupted"
    OPERATOR_FAULT = "operator_fault"
    PROVIDER_DOWN = "provider_down"
    UNTRUSTED_ANSWER = "untrusted_answer"
    ANOTHER_SUB = "another_sub"
    NO_REFRESH_TOKEN = "no_refresh_token"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class RefreshRequested:
    """`holder` wants to use the refresh token, and to be waited for `lease` seconds."""

    holder: str
    lease: float


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """`holder` is still at it."""

    holder: str
    lease: float


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """Nobody has heard of the holder for the length of its lease. `reuse_grace`: as in `ProviderResponded`."""

    reuse_grace: float = 0.0


@dataclass(frozen=True, slots=True)
class ProviderResponded:
    """What the provider said to `holder`'s use of `used`. `jitter` in [0, 1) spreads the back-off. `since`: when the
    configuration that validated the response was loaded. `reuse_grace`: seconds for which the provider accepts a
    refresh token that is spent."""

    holder: str
    used: Secret
    outcome: TokenOutcome
    jitter: float = 0.0
    since: float = 0.0
    reuse_grace: float = 0.0


@dataclass(frozen=True, slots=True)
class RevokeRequested:
    """The user disconnects."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """A newer consent for the same connector. Tokens of another `sub` leave this grant as it is: they are another."""

    tokens: TokenSet = field(repr=False)


Event = RefreshRequested | LeaseRenewed | LeaseExpired | ProviderResponded | RevokeRequested | Reconnected

OUTCOMES = (TokensIssued, Refused, ClientRejected, ProviderDown, OutcomeUnknown, Untrusted)
EVENTS: tuple[type, ...] = (RefreshRequested, LeaseRenewed, LeaseExpired, *OUTCOMES, RevokeRequested, Reconnected)
"""The columns of the table: an `ProviderResponded` counts as its answer."""
