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

from akoya_gateway.access.request import Ask, folds_to
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config, Identity, IdentitySource
from akoya_gateway.errors import OperatorError, UserError
from akoya_gateway.oauth.id_token import IdTokenRejected, Unverified
from akoya_gateway.oauth.user_token import IdentityToken, judge_identity_token
from akoya_gateway.provider.remote_keys import KeySource, KeysUnavailable
from akoya_gateway.secret import Secret
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies

REMEMBERED = 10_000
"""Tokens whose verdict is kept, at about 200 bytes each."""
REMEMBERED_FOR = 300.0
"""Seconds at most: a key that its issuer withdraws stops counting by then."""


class Unsettled(Enum):
    """The answer takes waiting."""

    UNSETTLED = 0


class Identities(Protocol):
    """Knows users. Each method raises `UserError` for a header that cannot be believed."""

    def require_sound(self, ask: Ask) -> None:
        """For requests that nobody need be known for."""
        ...

    def peek(self, ask: Ask) -> str | Unsettled | None:
        """As `owner`, without waiting."""
        ...

    async def owner(self, ask: Ask) -> str | None:
        """The owner the user's grants are kept under; None where the request names no user."""
        ...


class HeaderIdentities:
    def __init__(self, header: bytes, trusted: Sequence[TrustedPeer]) -> None:
        self._header = header
        self._trusted = TrustedProxies(trusted)

    def require_sound(self, ask: Ask) -> None:
        self.peek(ask)

    def peek(self, ask: Ask) -> str | None:
        value = only_value(ask, self._header)
        if value is None:
            return None
        if not trusts(self._trusted, ask):
            raise UserError(
                "The identity header is taken from trusted_proxies only.",
                status=403,
                code="untrusted-identity",
                title="Access denied",
            )
        return owner_of(value.decode("latin-1")) if value else None

    async def owner(self, ask: Ask) -> str | None:
        return self.peek(ask)


@dataclass(frozen=True, slots=True)
class _Known:
    owner: str
    until: float


class TokenIdentities:
    """A verdict is kept under the token's digest, so that a token is verified once and kept nowhere."""

    def __init__(self, identity: Identity, keys: KeySource, clock: Clock, size: int = REMEMBERED) -> None:
        self._identity = identity
        self._header = (identity.header or "authorization").encode()
        self._keys = keys
        self._clock = clock
        self._size = size
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def require_sound(self, ask: Ask) -> None:
        only_value(ask, self._header)

    def peek(self, ask: Ask) -> str | Unsettled | None:
        token = self._token(ask)
        return None if token is None else self._remembered(_digest(token)) or Unsettled.UNSETTLED

    async def owner(self, ask: Ask) -> str | None:
        token = self._token(ask)
        if token is None:
            return None
        digest = _digest(token)
        return self._remembered(digest) or self._remember(digest, await self._judged(token))

    def _token(self, ask: Ask) -> Secret | None:
        """After `Bearer`, or bare; other schemes are somebody else's business (RFC 9110 section 11.4)."""
        value = only_value(ask, self._header)
        if not value:
            return None
        scheme, space, rest = value.decode("latin-1").partition(" ")
        if not space:
            return Secret(scheme)
        return Secret(rest.strip(" ")) if scheme.lower() == "bearer" else None

    def _remembered(self, digest: bytes) -> str | None:
        known = self._known.get(digest)
        if known is None or self._clock() >= known.until:
            return None
        self._known.move_to_end(digest)
        return known.owner

    def _remember(self, digest: bytes, token: IdentityToken) -> str:
        owner = owner_of(token.user)
        self._known[digest] = _Known(owner, min(token.expires_at, self._clock() + REMEMBERED_FOR))
        self._known.move_to_end(digest)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return owner

    async def _judged(self, token: Secret) -> IdentityToken:
        try:
            try:
                return judge_identity_token(token, await self._keys.current(), self._identity, self._clock())
            except Unverified:
                return judge_identity_token(token, await self._keys.renewed(), self._identity, self._clock())
        except IdTokenRejected as rejection:
            raise UserError(
                f"The token that names you was not accepted: {rejection.reason}.",
                status=401,
                code="identity-rejected",
                title="Sign in again",
            ) from None
        except KeysUnavailable as trouble:
            raise OperatorError(f"identity.jwt.jwks_uri: {trouble}", code="identity-keys", retry_after=1) from None


def identities(config: Config, keys: KeySource | None, clock: Clock) -> Identities | None:
    """What the configuration asks for; None where the session alone says who the owner is. `keys`: for a JWT."""
    identity = config.identity
    if identity.source is IdentitySource.HEADER and identity.header is not None:
        return HeaderIdentities(identity.header.encode(), config.trusted_proxies)
    if identity.source is IdentitySource.JWT and keys is not None:
        return TokenIdentities(identity, keys, clock)
    return None


def only_value(ask: Ask, header: bytes) -> bytes | None:
    """The value of the header, None if it is not there. Raises `UserError` for a second one, or one by an alias."""
    found: bytes | None = None
    for name, value in ask.headers:
        if name == header or folds_to(name, header):
            if found is not None or name != header:
                raise UserError("The identity header occurs in more than one way.", code="ambiguous-identity")
            found = value
    return found


def owner_of(identity: str) -> str:
    """A stable, opaque owner for the app's own user: it survives key rotation and says nothing in a log."""
    digest = hashlib.sha256(b"akoya-gateway owner\0" + identity.encode()).digest()
    return "usr_" + base64.urlsafe_b64encode(digest[:18]).decode()


def trusts(trusted: TrustedProxies, ask: Ask) -> bool:
    """Whether the sender of a request is one of `trusted_proxies`."""
    return trusted(ask.peer, told=ask.told)


def _digest(token: Secret) -> bytes:
    return hashlib.sha256(token.reveal().encode("latin-1", "replace")).digest()
