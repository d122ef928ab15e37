"""The token that identifies the app's own user (`identity: {jwt: ...}`): a JWT of another issuer.

RFC 7519, RFC 8725. Unlike Akoya's id_token it comes with a request and anyone can send one. Its signature is therefore
always checked, and `exp`, `iss` and `aud` are required.
"""

from __future__ import annotations

from dataclasses import dataclass

from akoya_gateway.config.model import Identity
from akoya_gateway.oauth.id_token import IdTokenRejected, signed_claims, validate_times
from akoya_gateway.oauth.jwks import KeySet
from akoya_gateway.oauth.untrusted_text import is_plain_text
from akoya_gateway.secret import Secret

MAX_USER_TOKEN_BYTES = 16 * 1024
MAX_USER_BYTES = 1024
LEEWAY_SECONDS = 30.0
"""Seconds by which two clocks may differ."""


@dataclass(frozen=True, slots=True)
class UserToken:
    """A validated user token. `user` is the configured claim; `expires_at` is Unix seconds, leeway included."""

    user: str
    expires_at: float


def validate_user_token(token: Secret, keys: KeySet, identity: Identity, now: float) -> UserToken:
    """Validate a user token.

    The key determines the algorithm, never the header (RFC 8725 section 3.1). `iss` must equal the configured issuer
    and `aud` must be or contain the configured audience (section 3.9). `exp` is required; `nbf` and `iat` are checked
    if present.

    Raises:
        IdTokenRejected: The token is invalid. If it is `Unverified`, fetch the keys again, once. No other exception is
            raised.
    """
    if len(token) > MAX_USER_TOKEN_BYTES:
        raise IdTokenRejected(f"longer than {MAX_USER_TOKEN_BYTES} bytes")
    claims = signed_claims(token, keys)
    if identity.issuer is None or claims.get("iss") != identity.issuer:
        raise IdTokenRejected("iss is not identity.jwt.issuer")
    audience = claims.get("aud")
    if identity.audience is None or identity.audience not in (audience if isinstance(audience, list) else [audience]):
        raise IdTokenRejected("aud does not contain identity.jwt.audience")
    expires_at = validate_times(claims, now, LEEWAY_SECONDS)
    if expires_at is None:
        raise IdTokenRejected("exp is missing")
    user = claims.get(identity.claim)
    if not is_plain_text(user, MAX_USER_BYTES):
        raise IdTokenRejected("the claim that names the user is missing or unreadable")
    return UserToken(str(user), expires_at + LEEWAY_SECONDS)
