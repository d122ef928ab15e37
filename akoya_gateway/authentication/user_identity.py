"""Authenticates the app's own user as `identity` configures it: by a header of a trusted proxy, or by a JWT.

The header is forwarded to the upstream unchanged, so it must be trustworthy there too. The request is therefore
rejected, regardless of the access rules, if the header

- also occurs in a spelling that a server normalizes to the same name (CVE-2025-64484),
- has a second value, or
- in header mode, does not come from one of `trusted_proxies`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from akoya_gateway.access.request import RequestInfo, normalizes_to
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config, Identity, IdentitySource
from akoya_gateway.errors import OperatorError, UserError
from akoya_gateway.oauth.id_token import IdTokenRejected, Unverified
from akoya_gateway.oauth.user_token import UserToken, validate_user_token
from akoya_gateway.provider.remote_keys import KeysUnavailable, RemoteKeySet
from akoya_gateway.secret import Secret
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies

MAX_ENTRIES = 10_000
"""Cached owners, one per valid token, at about 200 bytes each."""
CACHE_SECONDS = 300.0
"""Maximum age of a cached owner, which limits how long tokens signed with a withdrawn key are still accepted."""


class NotCached(Enum):
    """Returned if the owner is not cached and must be resolved with `await`."""

    NOT_CACHED = 0


class UserAuthenticator(Protocol):
    """Authenticates users. Each method raises `UserError` for an identity header that cannot be trusted."""

    def require_valid_header(self, request: RequestInfo) -> None:
        """Check the header of a request that does not need an authenticated user."""
        ...

    def get_cached(self, request: RequestInfo) -> str | NotCached | None:
        """Return the same as `owner` if it is known without blocking, else `NotCached`."""
        ...

    async def owner(self, request: RequestInfo) -> str | None:
        """Return the owner under whom the user's grants are stored, or None if the request names no user."""
        ...


class HeaderAuthenticator:
    """Takes the user from a header that a trusted proxy sets."""

    def __init__(self, header: bytes, trusted: Sequence[TrustedPeer]) -> None:
        self._header = header
        self._trusted_proxies = TrustedProxies(trusted)

    def require_valid_header(self, request: RequestInfo) -> None:
        self.get_cached(request)

    def get_cached(self, request: RequestInfo) -> str | None:
        value = single_value(request, self._header)
        if value is None:
            return None
        if not is_trusted_peer(self._trusted_proxies, request):
            raise UserError(
                "The identity header is taken from trusted_proxies only.",
                status=403,
                code="untrusted-identity",
                title="Access denied",
            )
        return owner_of(value.decode("latin-1")) if value else None

    async def owner(self, request: RequestInfo) -> str | None:
        return self.get_cached(request)


@dataclass(frozen=True, slots=True)
class _CachedOwner:
    owner: str
    valid_until: float


class JWTAuthenticator:
    """Takes the user from a JWT.

    Owners are cached under the digest of the token, so that each token is verified once and never stored.
    """

    def __init__(self, identity: Identity, keys: RemoteKeySet, clock: Clock, max_entries: int = MAX_ENTRIES) -> None:
        self._identity = identity
        self._header = (identity.header or "authorization").encode()
        self._keys = keys
        self._clock = clock
        self._cache: BoundedCache[bytes, _CachedOwner] = BoundedCache(max_entries)

    def require_valid_header(self, request: RequestInfo) -> None:
        single_value(request, self._header)

    def get_cached(self, request: RequestInfo) -> str | NotCached | None:
        token = self._token(request)
        return None if token is None else self._cached_owner(_digest(token)) or NotCached.NOT_CACHED

    async def owner(self, request: RequestInfo) -> str | None:
        token = self._token(request)
        if token is None:
            return None
        digest = _digest(token)
        return self._cached_owner(digest) or self._store(digest, await self._validate(token))

    def _token(self, request: RequestInfo) -> Secret | None:
        """Return the token, with or without `Bearer` before it. Ignore other schemes (RFC 9110 section 11.4)."""
        value = single_value(request, self._header)
        if not value:
            return None
        scheme, space, rest = value.decode("latin-1").partition(" ")
        if not space:
            return Secret(scheme)
        return Secret(rest.strip(" ")) if scheme.lower() == "bearer" else None

    def _cached_owner(self, digest: bytes) -> str | None:
        cached = self._cache.get(digest)
        return None if cached is None or self._clock() >= cached.valid_until else cached.owner

    def _store(self, digest: bytes, token: UserToken) -> str:
        owner = owner_of(token.user)
        self._cache.store(digest, _CachedOwner(owner, min(token.expires_at, self._clock() + CACHE_SECONDS)))
        return owner

    async def _validate(self, token: Secret) -> UserToken:
        try:
            try:
                return validate_user_token(token, await self._keys.current(), self._identity, self._clock())
            except Unverified:
                return validate_user_token(token, await self._keys.refresh(), self._identity, self._clock())
        except IdTokenRejected as rejection:
            raise UserError(
                f"The token that names you was not accepted: {rejection.reason}.",
                status=401,
                code="identity-rejected",
                title="Sign in again",
            ) from None
        except KeysUnavailable as error:
            raise OperatorError(f"identity.jwt.jwks_uri: {error}", code="identity-keys", retry_after=1) from None


def build_user_authenticator(config: Config, keys: RemoteKeySet | None, clock: Clock) -> UserAuthenticator | None:
    """Build the configured user authenticator, or return None if the owner comes from the session.

    Args:
        keys: The issuer's keys. Required for `IdentitySource.JWT`.
    """
    identity = config.identity
    if identity.source is IdentitySource.HEADER and identity.header is not None:
        return HeaderAuthenticator(identity.header.encode(), config.trusted_proxies)
    if identity.source is IdentitySource.JWT and keys is not None:
        return JWTAuthenticator(identity, keys, clock)
    return None


def single_value(request: RequestInfo, header: bytes) -> bytes | None:
    """Return the value of the header, or None if it is missing.

    Raises:
        UserError: The header occurs twice, or under an alias that a server may normalize to its name.
    """
    found: bytes | None = None
    for name, value in request.headers:
        if name == header or normalizes_to(name, header):
            if found is not None or name != header:
                raise UserError("The identity header occurs in more than one way.", code="ambiguous-identity")
            found = value
    return found


def owner_of(identity: str) -> str:
    """Return a stable, opaque owner for the app's own user.

    It does not depend on any key, so it survives key rotation, and it does not reveal the user in logs.
    """
    digest = hashlib.sha256(b"akoya-gateway owner\0" + identity.encode()).digest()
    return "usr_" + base64.urlsafe_b64encode(digest[:18]).decode()


def is_trusted_peer(trusted: TrustedProxies, request: RequestInfo) -> bool:
    """Return whether the peer that sent the request is one of `trusted_proxies`."""
    return trusted(request.peer, is_forwarded=request.peer_is_forwarded)


def _digest(token: Secret) -> bytes:
    return hashlib.sha256(token.reveal().encode("latin-1", "replace")).digest()
