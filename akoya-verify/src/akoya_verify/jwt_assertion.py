"""Verification of the `Akoya-Assertion` header, which `scheme: jwt` sends (RFC 7519, as RFC 8725 recommends)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, TypeGuard

from akoya_verify.keys import Key, KeySource, verifies
from akoya_verify.message_signatures import RawHeaders, fold
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import Connection, NotVerified, Verified

HEADER = "akoya-assertion"
TYPE = "akoya-assertion+jwt"
MAX_TOKEN_BYTES = 65_536


def verify_assertion(
    headers: RawHeaders,
    keys: KeySource,
    issuer: str,
    audience: str,
    now: float,
    *,
    skew: float = 5.0,
    replay: ReplayCache | None = None,
) -> Verified:
    """Verify the assertion and return its claims.

    An assertion is not bound to one request: it is valid for any request until it expires. Use `replay` only if each
    assertion is sent once. docs/signed-headers.md explains which scheme to choose.

    Args:
        headers: All headers of the request.
        keys: Finds a key by its ID.
        issuer: The gateway's `public_url`. Compared exactly.
        audience: The name of this upstream at the gateway: `signing.audience`, or the upstream's URL. Compared exactly.
        now: Unix seconds.
        skew: Clock difference to tolerate, in seconds.
        replay: Accepts each `jti` only once.

    Raises:
        NotVerified: The assertion is missing, invalid, expired, or signed with an unknown key.
    """
    protected, payload, signature, signed = _split(_only_assertion(headers))
    key = _key(protected, keys)
    if not verifies(keys, key, signature, signed):
        raise NotVerified("bad-signature", f"the assertion was not signed with key {key.id!r}")
    claims = _object(payload, "claims")
    _validate_claims(claims, issuer, audience, now, skew)
    if replay is not None:
        replay.admit(_string(claims, "jti"), claims["exp"] + skew, now)
    return _verified(claims, key.id)


def _only_assertion(headers: RawHeaders) -> str:
    found: list[str] = []
    for raw_name, raw_value in headers:
        name = (raw_name.decode("latin-1") if isinstance(raw_name, bytes) else raw_name).lower()
        if not fold(name).startswith("akoya-"):
            continue
        if name != HEADER:
            raise NotVerified("not-covered", f"header {name!r} is not part of the assertion")
        found.append(raw_value.decode("latin-1") if isinstance(raw_value, bytes) else raw_value)
    if not found:
        raise NotVerified("missing-signature", "no Akoya-Assertion: did the request pass the gateway?")
    if len(found) > 1:
        raise NotVerified("duplicate", "Akoya-Assertion is there more than once")
    return found[0].strip(" \t")


def _split(token: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Split and decode a compact JWS (RFC 7515 section 5.2), after a check of its size."""
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise NotVerified("malformed", "the assertion is too long or no JWT")
    parts = token.split(".")
    if len(parts) != 3:
        raise NotVerified("malformed", "the assertion is not three parts joined by dots")
    protected, payload, signature = (_octets(part) for part in parts)
    return protected, payload, signature, f"{parts[0]}.{parts[1]}".encode()


def _octets(part: str) -> bytes:
    try:
        if "=" in part or "+" in part or "/" in part:
            raise ValueError("not base64url")
        octets = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotVerified("malformed", "a part of the assertion is not base64url") from None
    if base64.urlsafe_b64encode(octets).rstrip(b"=").decode() != part:
        raise NotVerified("malformed", "a part of the assertion is not canonical base64url")
    return octets


def _object(octets: bytes, what: str) -> dict[str, Any]:
    try:
        parsed = json.loads(octets, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise NotVerified("malformed", f"the assertion's {what} are no JSON object") from None
    if not isinstance(parsed, dict):
        raise NotVerified("malformed", f"the assertion's {what} are no JSON object")
    return parsed


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _key(protected: bytes, keys: KeySource) -> Key:
    header = _object(protected, "header")
    if "crit" in header or header.get("typ") != TYPE:
        raise NotVerified("wrong-tag", f"the JWT's typ is not {TYPE!r}")
    key_id = _string(header, "kid")
    key = keys.get(key_id)
    if key is None:
        raise NotVerified("unknown-key", f"no key {key_id!r}")
    if header.get("alg") != key.jws_algorithm:
        raise NotVerified("wrong-algorithm", f"key {key_id!r} is for {key.jws_algorithm} and nothing else")
    return key


def _validate_claims(claims: dict[str, Any], issuer: str, audience: str, now: float, skew: float) -> None:
    if claims.get("iss") != issuer:
        raise NotVerified("wrong-issuer", f"the assertion is not of {issuer!r}")
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise NotVerified("wrong-audience", f"the assertion is not for {audience!r}")
    issued, ends = (claims.get(name) for name in ("iat", "exp"))
    if not _is_time(issued) or not _is_time(ends):
        raise NotVerified("malformed", "the assertion has no iat and exp")
    if issued > now + skew:
        raise NotVerified("from-the-future", f"the assertion was made {issued - now:.0f} s ahead of this clock")
    if now >= ends + skew:
        raise NotVerified("expired", f"the assertion expired {now - ends:.0f} s ago")


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def _string(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise NotVerified("malformed", f"the assertion has no {name}")
    return value


def _verified(claims: dict[str, Any], key_id: str) -> Verified:
    expires = claims.get("expires")
    return Verified(
        owner=str(claims.get("sub", "")),
        connector=claims.get("connector"),
        id_token=claims.get("id_token"),
        expires=int(expires) if _is_time(expires) else None,
        scope=tuple(str(claims.get("scope", "")).split()),
        environment=claims.get("environment"),
        connections=tuple(
            Connection(str(one.get("connector")), str(one.get("state")), one.get("expires"), one.get("id"))
            for one in claims.get("connections", ())
        ),
        provider=claims.get("provider"),
        grant=claims.get("grant"),
        consent=claims.get("consent"),
        interaction_type=claims.get("interaction_type"),
        last_access=claims.get("last_access"),
        id_tokens=dict(claims.get("id_tokens", {})),
        rule=claims.get("rule"),
        key_id=key_id,
        signed_at=int(claims["iat"]),
        signed_until=int(claims["exp"]),
        nonce=claims.get("jti"),
    )
