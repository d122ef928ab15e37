"""What a user granted: the value that the state machine moves and the store keeps."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.oauth.outcomes import TokenSet


class GrantState(StrEnum):
    """See `grants.state_machine` for the moves between them."""

    LIVE = "live"
    REFRESHING = "refreshing"
    UNCERTAIN = "uncertain"
    NEEDS_RECONNECT = "needs_reconnect"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class GrantKey:
    """(environment, client, connector, sub) under its owner: `sub` is unique per provider login only (akoya.md 7)."""

    owner: str
    environment: str
    client: str
    connector: str
    sub: str

    @property
    def id(self) -> str:
        """22 characters, the same for the same key: reconnecting one login lands on its own record."""
        parts = (self.owner, self.environment, self.client, self.connector, self.sub)
        # Length prefixes keep ("ab", "c") and ("a", "bc") apart (compare CVE-2023-35941).
        packed = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
        return base64.urlsafe_b64encode(hashlib.sha256(packed).digest()[:16]).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Lease:
    """Who is refreshing, since when, until when others wait; `sent` once the request may have left."""

    holder: str
    started_at: float
    expires_at: float
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Reuse:
    """A refresh token whose fate is unknown may be used again from `at` on, before `until`: the provider's grace."""

    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Grant:
    key: GrantKey
    tokens: TokenSet = field(repr=False)
    state: GrantState
    connected_at: float
    refreshed_at: float
    version: int = 1
    """The record's version in the store."""
    lease: Lease | None = None
    reason: str | None = None
    """Why it is not live, as a stable word (`dead_token`, `refresh_outcome_unknown`, ...)."""
    retry_at: float = 0.0
    """No refresh before this moment (back-off after the provider was down)."""
    failures: int = 0
    """Attempts in a row that brought no new tokens."""
    unknowns: int = 0
    """Uses of the present refresh token whose outcome nobody knows: while above 0 the token may be spent."""
    untrusted: int = 0
    """Responses in a row that could not be trusted (`life`), counted anew after a reload."""
    failed_under: float = 0.0
    """When the newest configuration was loaded under which an attempt failed for a reason that a reload may remove."""
    reuse: Reuse | None = None
    """While it is uncertain, and the provider may still accept a token that is spent."""

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def connector(self) -> str:
        return self.key.connector

    def usable(self, now: float) -> bool:
        """Its bearer may be passed: not revoked or dead, and the token has not ended."""
        return self.state in _PASSABLE_STATES and now < self.tokens.expires_at


_PASSABLE_STATES = frozenset({GrantState.LIVE, GrantState.REFRESHING, GrantState.UNCERTAIN})


@dataclass(frozen=True, slots=True)
class OwnerGrants:
    """One owner's grants as read at one moment, most recently connected first."""

    owner: str
    grants: tuple[Grant, ...] = ()

    def for_connector(self, connector: str) -> tuple[Grant, ...]:
        return tuple(g for g in self.grants if g.key.connector == connector)
