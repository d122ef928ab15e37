"""Validates id_tokens, and the signature and times of other JWTs.

OpenID Connect Core 3.1.3.7, RFC 7515, RFC 7519, RFC 8725, docs/akoya.md section 4. At Akoya the id_token is the bearer
token of the data APIs. The gateway receives it from the token endpoint directly, over TLS.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import Any

from akoya_gateway.config.model import Client, Environment
from akoya_gateway.oauth.jwks import ALGORITHMS, KeySet, read_kid
from akoya_gateway.oauth.token_messages import consent_id
from akoya_gateway.oauth.untrusted_text import UnreadableJSON, is_plain_text, json_object
from akoya_gateway.secret import Secret

MAX_ID_TOKEN_BYTES = 64 * 1024
MAX_HEADER_BYTES = 8 * 1024
MAX_SUB_BYTES = 2048
MAX_CANDIDATES = 8
"""Maximum number of keys tried for a token that anyone may send."""
MAX_ENDPOINT_CANDIDATES = 256
"""Maximum number of keys tried for a token from the token endpoint."""

MAX_NAME_LENGTH = 100
"""Maximum number of characters of a user's name that is shown."""

_BASE64URL = re.compile(rb"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class IdToken:
    """The validated claims that the gateway uses. Times are Unix seconds. A claim that was left out is None."""

    sub: str
    issuer: str | None
    expires_at: float | None
    issued_at: float | None
    consent_id: str | None
    verified: bool
    """Whether the signature was checked."""


class IdTokenRejected(Exception):
    """The id_token must not be used. `reason` quotes nothing of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unverified(IdTokenRejected):
    """No key of the set verifies the signature. Fetch the keys again, once (OpenID Connect Core 10.1.1)."""


class UnknownKey(Unverified):
    """No key has the token's `kid`. The key set may simply be out of date."""


class WrongSignature(Unverified):
    """A key has the token's `kid`: the token is forged, or the provider has replaced its key and kept the `kid`."""


class SubjectMismatch(IdTokenRejected):
    """A valid id_token of another provider login than the expected one (OpenID Connect Core 12.2)."""


def validate_id_token(
    token: Secret,
    keys: KeySet | None,
    client: Client,
    environment: Environment,
    now: float,
    *,
    nonce: str | None = None,
    expected_sub: str | None = None,
    leeway: float = 60.0,
) -> IdToken:
    """Validate an id_token.

    - If `keys` is None, there is no `jwks_uri` or verification is switched off. The claims are validated but not the
      signature. OpenID Connect Core 3.1.3.7 item 6 allows that for a token received from the token endpoint over TLS.
    - `iss` must equal `environment.issuer` exactly, including a trailing slash (OpenID Connect Core 2), because two
      servers may differ in it only. It is not checked if the environment has no issuer.
    - `aud` must be or contain the client_id. `azp`, if present, must equal it.
    - `exp` and `iat` must be present (OpenID Connect Core 2), unless `dialect.optional_claims` names them. Without
      `exp` the response's `expires_in` or `assume_lifetime` determines the expiry. `exp` must be less than `leeway`
      seconds in the past, and `iat` and `nbf` at most `leeway` seconds in the future.
    - `nonce` must equal the one that the login sent, if it sent one. After a refresh (`expected_sub` is given) it may
      be missing (OpenID Connect Core 12.2). It is compared in constant time.

    Raises:
        IdTokenRejected: The token is invalid. Subclasses are `Unverified` and `SubjectMismatch`. No other exception is
            raised.
    """
    header, claims, signing_input, signature = _split_token(token)
    if keys is not None:
        _verify(keys, header, signing_input, signature, MAX_ENDPOINT_CANDIDATES)
    _validate_issuer(claims, environment)
    _validate_audience(claims, client)
    expires_at = validate_times(claims, now, leeway)
    for name in ("exp", "iat"):
        if claims.get(name) is None and name not in environment.dialect.optional_claims:
            raise IdTokenRejected(f"{name} is missing")
    _validate_nonce(claims, nonce, may_lack=expected_sub is not None)
    sub = claims.get("sub")
    if not is_plain_text(sub, MAX_SUB_BYTES):
        raise IdTokenRejected("sub is missing or unreadable")
    if expected_sub is not None and not _equal(str(sub), expected_sub):
        raise SubjectMismatch("sub differs from the expected one")
    return IdToken(
        sub=str(sub),
        issuer=claims.get("iss") if environment.issuer is not None else None,
        expires_at=expires_at,
        issued_at=_time(claims, "iat"),
        consent_id=consent_id(claims.get("grant_id")),
        verified=keys is not None,
    )


def login_name(token: Secret) -> str | None:
    """Return the user's name from an id_token that has been validated: `name` or `email`, or None if it has neither.

    The claims are optional (docs/akoya.md section 3): `name` may be the user name at the bank.
    """
    try:
        _, claims, _, _ = _split_token(token)
    except IdTokenRejected:
        return None
    named = (claims.get("name"), claims.get("email"))
    return next((str(value) for value in named if is_plain_text(value, MAX_NAME_LENGTH)), None)


def account_count(token: Secret) -> int | None:
    """Return how many accounts an id_token that was validated before gives access to (its claim `accounts`).

    None if it does not say so: the claim is optional (docs/akoya.md section 3).
    """
    try:
        _, claims, _, _ = _split_token(token)
    except IdTokenRejected:
        return None
    accounts = claims.get("accounts")
    return len(accounts) if isinstance(accounts, list) and accounts else None


def signed_claims(token: Secret, keys: KeySet) -> dict[str, Any]:
    """Return the claims of a JWT after checking its signature; the caller validates the claims.

    Raises:
        IdTokenRejected: The token is malformed or `Unverified`. No other exception is raised.
    """
    header, claims, signing_input, signature = _split_token(token)
    _verify(keys, header, signing_input, signature, MAX_CANDIDATES)
    return claims


def _split_token(token: Secret) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Split a JWS in compact serialization (RFC 7515 section 7.1) into header, claims, signing input and signature."""
    if len(token) > MAX_ID_TOKEN_BYTES:
        raise IdTokenRejected(f"longer than {MAX_ID_TOKEN_BYTES} bytes")
    try:
        raw = token.reveal().encode("ascii")
    except UnicodeEncodeError:
        raise IdTokenRejected("not ASCII") from None
    parts = raw.split(b".", 5)
    if len(parts) != 3:
        raise IdTokenRejected("not a signed JWT in compact form")
    if len(parts[0]) > MAX_HEADER_BYTES:
        raise IdTokenRejected("the header is too long")
    header = _json(parts[0], "header")
    if "crit" in header:
        raise IdTokenRejected("unsupported `crit` header")  # RFC 7515 section 4.1.11: no extension is supported
    if not isinstance(header.get("alg"), str) or header["alg"].lower() in ("", "none"):
        raise IdTokenRejected("the header has no algorithm")
    signature = _base64url(parts[2], "signature")
    return header, _json(parts[1], "claims"), parts[0] + b"." + parts[1], signature


def _verify(keys: KeySet, header: dict[str, Any], signing_input: bytes, signature: bytes, max_keys: int) -> None:
    """Verify the signature.

    Each key determines its algorithms, and the header must name one of them. `kid` determines which key is tried first.

    A set that has a key with the token's `kid` but none that verifies may also be out of date: a provider can replace a
    key and keep its `kid`, for example after restoring a backup or on a second node.
    """
    kid = read_kid(header.get("kid"))
    if kid is None and header.get("kid") is not None:
        raise IdTokenRejected("the header has an unreadable kid")
    algorithm = header["alg"]
    if algorithm not in ALGORITHMS:
        raise IdTokenRejected("the algorithm does not belong to the key")
    fit = keys.fitting(algorithm, kid)[:max_keys]
    if any(key.verifies(algorithm, signing_input, signature) for key in fit):
        return
    if kid is None:
        raise UnknownKey("the signature fits no key")
    named = keys.candidates(kid)
    if not named:
        raise UnknownKey("no key with the token's kid")
    if not any(algorithm in key.algorithms for key in named):
        raise WrongSignature("the algorithm does not belong to the key")
    raise WrongSignature("the signature is wrong")


def _validate_issuer(claims: dict[str, Any], environment: Environment) -> None:
    if environment.issuer is not None and claims.get("iss") != environment.issuer:
        raise IdTokenRejected("iss is not the environment's issuer")


def _validate_audience(claims: dict[str, Any], client: Client) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client.client_id not in audiences:
        raise IdTokenRejected("aud does not contain the client_id")
    if claims.get("azp") not in (None, client.client_id):
        raise IdTokenRejected("azp is not the client_id")


def validate_times(claims: dict[str, Any], now: float, leeway: float) -> float | None:
    """Return `exp`, or None if it is missing.

    Raises:
        IdTokenRejected: `exp` is past, or `iat` or `nbf` is in the future.
    """
    expires_at = _time(claims, "exp")
    if expires_at is not None and expires_at + leeway <= now:
        raise IdTokenRejected("exp is past")
    for name in ("iat", "nbf"):
        moment = _time(claims, name)
        if moment is not None and moment - leeway > now:
            raise IdTokenRejected(f"{name} is in the future")
    return expires_at


def _validate_nonce(claims: dict[str, Any], nonce: str | None, *, may_lack: bool) -> None:
    returned = claims.get("nonce")
    if nonce is None or (returned is None and may_lack):
        return
    if not isinstance(returned, str) or not _equal(returned, nonce):
        raise IdTokenRejected("nonce is missing or differs from the one sent")


def _time(claims: dict[str, Any], name: str) -> float | None:
    """Return the claim as a NumericDate (RFC 7519 section 2), which must be before the year 10000."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise IdTokenRejected(f"{name} is not a number")
    if not 0 <= value < 253_402_300_800:
        raise IdTokenRejected(f"{name} is not a time")
    return float(value)


def _json(segment: bytes, what: str) -> dict[str, Any]:
    try:
        return json_object(_base64url(segment, what))
    except UnreadableJSON as fault:
        raise IdTokenRejected(f"the {what} cannot be read: {fault}") from None


def _base64url(segment: bytes, what: str) -> bytes:
    """Decode base64url without padding (RFC 7515 section 2).

    Non-zero unused bits are rejected, so that each value has only one encoding.
    """
    if _BASE64URL.fullmatch(segment) is None:
        raise IdTokenRejected(f"the {what} is not base64url")
    try:
        value = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except (ValueError, binascii.Error):
        raise IdTokenRejected(f"the {what} is not base64url") from None
    if base64.urlsafe_b64encode(value).rstrip(b"=") != segment:
        raise IdTokenRejected(f"the {what} is not base64url")
    return value


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
