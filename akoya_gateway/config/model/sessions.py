"""The values of `sessions` and `identity`: browser sessions, their store, and who owns a grant."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.config.model.units import Seconds


class SameSite(StrEnum):
    """The SameSite attribute of the session cookie."""

    LAX = "lax"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Cookie:
    """The session cookie. `idle` and `lifetime` limit how long a session lasts."""

    name: str
    secure: bool
    same_site: SameSite = SameSite.LAX
    idle: Seconds = Seconds(12 * 3600.0)
    lifetime: Seconds = Seconds(30 * 86400.0)


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A 32-byte key that encrypts records. `id` is derived from the key and stored with each encrypted record."""

    id: str
    key: bytes = field(repr=False)


def key_id(key: bytes) -> str:
    """Return the public ID of an encryption key: the first 8 hex digits of a SHA-256 hash with a fixed prefix.

    The prefix separates this hash from other uses of SHA-256. The ID reveals nothing else about the key.
    """
    return hashlib.sha256(b"akoya-gateway ring key id\0" + key).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Sessions:
    """Browser sessions, and the store of sessions and grants."""

    store: str = field(repr=False)
    """The URL of the store. It may contain a password, so never print it (see `store.describe`)."""
    keys: tuple[EncryptionKey, ...]
    """The key ring. The first key encrypts, all keys decrypt."""
    cookie: Cookie


class IdentitySource(StrEnum):
    """What identifies the owner of grants: the browser session, a trusted proxy's header, or a JWT."""

    SESSION = "session"
    HEADER = "header"
    JWT = "jwt"


@dataclass(frozen=True, slots=True)
class Identity:
    """How the owner of grants is identified. Apart from `source` and `header`, the fields are for JWT only."""

    source: IdentitySource = IdentitySource.SESSION
    header: str | None = None
    """The lower-case name of the header that contains the user (HEADER) or the token (JWT)."""
    jwks_uri: str | None = None
    issuer: str | None = None
    audience: str | None = None
    claim: str = "sub"
