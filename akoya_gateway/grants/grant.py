"""The grant: the tokens of one bank connection and their state, as the store keeps them.

State transitions are in `state_machine`, storage is in `repository`.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret

_PREFIX = "g_"
_RECORD_ID_LENGTH = 22


def public_id(record_id: str) -> str:
    """Return the grant ID that people and programs see: `g_` and the record's ID.

    The record's ID alone may begin with `-`, which a command line takes for an option (docs/design.md section 7.2).
    """
    return _PREFIX + record_id


def to_record_id(text: str) -> str:
    """Return the record's ID from either form: with `g_`, or the 22 characters alone. Other texts are unchanged."""
    return text.removeprefix(_PREFIX) if is_public_id(text) else text


def is_public_id(text: str) -> bool:
    """Return True if the text has the form of an ID as `public_id` returns it."""
    return text.startswith(_PREFIX) and len(text) == len(_PREFIX) + _RECORD_ID_LENGTH


class GrantState(StrEnum):
    """State of a grant. The transitions are in `grants.state_machine`."""

    LIVE = "live"
    REFRESHING = "refreshing"
    UNCERTAIN = "uncertain"
    NEEDS_RECONNECT = "needs_reconnect"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class GrantKey:
    """Identifies a grant: owner, environment, client, connector and `sub`.

    `sub` alone is not enough: it is unique per provider login only (docs/akoya.md section 7).
    """

    owner: str
    environment: str
    client: str
    connector: str
    sub: str

    @property
    def id(self) -> str:
        """The ID of the grant's record, 22 characters derived from the key: a reconnected login updates its record."""
        parts = (self.owner, self.environment, self.client, self.connector, self.sub)
        # Length prefixes distinguish ("ab", "c") from ("a", "bc") (compare CVE-2023-35941).
        packed = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
        return base64.urlsafe_b64encode(hashlib.sha256(packed).digest()[:16]).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one process (`holder`) to refresh a grant. The others wait until `expires_at`.

    `sent` is True once the request may have left.
    """

    holder: str
    started_at: float
    expires_at: float
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Reuse:
    """The period in which a refresh token whose last outcome is unknown may be used again: from `at`, before `until`.

    Only for providers that accept a spent token for a grace period (`dialect.reuse_grace`).
    """

    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Grant:
    """One bank connection of one user. Immutable: only `state_machine.transition` changes a grant, by making a new one.

    Times are Unix seconds.
    """

    key: GrantKey
    tokens: TokenSet = field(repr=False)
    state: GrantState
    connected_at: float
    refreshed_at: float
    version: int = 1
    """The record's version in the store."""
    lease: Lease | None = None
    reason: str | None = None
    """Why the grant is not live, or is live with a fault, as a stable identifier such as `dead_token`."""
    retry_at: float = 0.0
    """The earliest time of the next refresh (back-off after a failure)."""
    failures: int = 0
    """Consecutive attempts that brought no new tokens."""
    unknowns: int = 0
    """Uses of the current refresh token with an unknown outcome. While this is above 0, the token may be spent."""
    untrusted: int = 0
    """Consecutive responses that are untrusted or may concern this grant only (see `state_machine`).

    Counting restarts after a reload.
    """
    failed_under: float = 0.0
    """Load time of the newest configuration under which an attempt failed for a reason that a reload may remove."""
    reuse: Reuse | None = None
    """Set while the grant is uncertain and the provider may still accept a spent token."""
    fallback: Secret | None = field(default=None, repr=False)
    """The refresh token to try if the current one, which came in a doubtful response, is refused."""

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def public_id(self) -> str:
        """The ID to show, log and pass on."""
        return public_id(self.key.id)

    @property
    def connector(self) -> str:
        return self.key.connector

    def usable(self, now: float) -> bool:
        """Return True if the bearer may be passed on: it has not expired, and the grant is not dead or revoked."""
        return self.state in _PASSABLE_STATES and now < self.tokens.expires_at


_PASSABLE_STATES = frozenset({GrantState.LIVE, GrantState.REFRESHING, GrantState.UNCERTAIN})


@dataclass(frozen=True, slots=True)
class OwnerGrants:
    """A snapshot of one owner's grants, most recently connected first."""

    owner: str
    grants: tuple[Grant, ...] = ()

    def for_connector(self, connector: str) -> tuple[Grant, ...]:
        """Return the grants of this connector."""
        return tuple(g for g in self.grants if g.key.connector == connector)

    def find(self, connector: str, grant_id: str | None) -> Grant | None:
        """Return the grant of this connector with this public ID, or None if the owner has no such grant."""
        return next((g for g in self.for_connector(connector) if g.public_id == grant_id), None)
