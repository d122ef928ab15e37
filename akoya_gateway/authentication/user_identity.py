"""Who the app's own user is, where `identity` says how to know: a header of a trusted proxy, or a JWT.

The header goes on to the upstream as it came, so it must be worth believing there too. A copy in a spelling that a
server folds into the same name (CVE-2025-64484), a second value, and in header mode any value from somebody else than
`trusted_proxies`, end the request, whatever the access rules say.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from akoya_gateway.access.request import RequestInfo, normalizes_to
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config, Identity, IdentitySource
from akoya_gateway.errors import OperatorError, UserError
from akoya_gateway.oauth.id_token import IdTokenRejected, Unverified
from akoya_gateway.oauth.user_token import UserToken, validate_user_token
from akoya_gateway.provider.remote_keys import KeysUnavailable, RemoteKeySet
from akoya_gateway.secret import Secret
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies

MAX_ENTRIES = 10_000
"""Tokens whose verdict is kept, at about 200 bytes each."""
CACHE_SECONDS = 300.0
"""Seconds at most: a key that its issuer withdraws stops counting by then."""


class NotCached(Enum):
    """The answer takes waiting."""

    NOT_CACHED = 0


class UserAuthenticator(Protocol):
    """Knows users. Each method raises `UserError` for a header that cannot be believed."""

    def require_valid_header(self, request: RequestInfo) -> None:
        """For requests that nobody need be known for."""
        ...

    def get_cached(self, request: RequestInfo) -> str | NotCached | None:
        """As `owner`, without waiting."""
        ...

    async def owner(self, request: RequestInfo) -> str | None:
        """The owner the user's grants are kept under; None where the request names no user."""
        ...


class HeaderAuthenticator:
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
    """A verdict is kept under the token's digest, so that a token is verified once and kept nowhere."""

    def __init__(self, identity: Identity, keys: RemoteKeySet, clock: Clock, max_entries: int = MAX_ENTRIES) -> None:
        self._identity = identity
        self._header = (identity.header or "authorization").encode()
        self._keys = keys
        self._clock = clock
        self._max_entries = max_entries
        self._cache: OrderedDict[bytes, _CachedOwner] = OrderedDict()

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
        """After `Bearer`, or bare; other schemes are somebody else's business (RFC 9110 section 11.4)."""
        value = single_value(request, self._header)
        if not value:
            return None
        scheme, space, rest = value.decode("latin-1").partition(" ")
        if not space:
            return Secret(scheme)
        return Secret(rest.strip(" ")) if scheme.lower() == "bearer" else None

    def _cached_owner(self, digest: bytes) -> str | None:
        cached = self._cache.get(digest)
        if cached is None or self._clock() >= cached.valid_until:
            return None
        self._cache.move_to_end(digest)
        return cached.owner

    def _store(self, digest: bytes, token: UserToken) -> str:
        owner = owner_of(token.user)
        self._cache[digest] = _CachedOwner(owner, min(token.expires_at, self._clock() + CACHE_SECONDS))
        self._cache.move_to_end(digest)
        while len(self._cache) > self._max_entries:
            self._cache.popitem(last=False)
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
        except KeysUnavailable as trouble:
            raise OperatorError(f"identity.jwt.jwks_uri: {trouble}", code="identity-keys", retry_after=1) from None


def build_user_authenticator(config: Config, keys: RemoteKeySet | None, clock: Clock) -> UserAuthenticator | None:
    """What the configuration asks for; None where the session alone says who the owner is. `keys`: for a JWT."""
    identity = config.identity
    if identity.source is IdentitySource.HEADER and identity.header is not None:
        return HeaderAuthenticator(identity.header.encode(), config.trusted_proxies)
    if identity.source is IdentitySource.JWT and keys is not None:
        return JWTAuthenticator(identity, keys, clock)
    return None


def single_value(request: RequestInfo, header: bytes) -> bytes | None:
    """The value of the header, None if it is not there. Raises `UserError` for a second one, or one by an alias."""
    found: bytes | None = None
    for name, value in request.headers:
        if name == header or normalizes_to(name, header):
            if found is not None or name != header:
                raise UserError("The identity header occurs in more than one way.", code="ambiguous-identity")
            found = value
    return found


def owner_of(identity: str) -> str:
    """A stable, opaque owner for the app's own user: it survives key rotation and says nothing in a log."""
    digest = hashlib.sha256(b"akoya-gateway owner\0" + identity.encode()).digest()
    return "usr_" + base64.urlsafe_b64encode(digest[:18]).decode()


def is_trusted_peer(trusted: TrustedProxies, request: RequestInfo) -> bool:
    """Whether the sender of a request is one of `trusted_proxies`."""
    return trusted(request.peer, told=request.peer_is_forwarded)


def _digest(token: Secret) -> bytes:
    return hashlib.sha256(token.reveal().encode("latin-1", "replace")).digest()
