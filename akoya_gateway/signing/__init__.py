"""The `Akoya-*` headers: what the upstream can trust, and how it can tell."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from akoya_gateway.config.model import Signing, SigningScheme
from akoya_gateway.signing.claims import ConnectionClaim, Headers, PreparedHeaders, Signer, UpstreamClaims
from akoya_gateway.signing.jwt_assertion import AssertionSigner
from akoya_gateway.signing.keys import JWKS_MAX_AGE, load_schedule
from akoya_gateway.signing.message_signatures import MessageSigner

__all__ = [
    "ConnectionClaim",
    "Headers",
    "PreparedHeaders",
    "Signer",
    "UpstreamClaims",
    "jwks",
    "jwks_headers",
    "signer",
]


def signer(
    signing: Signing, public_url: str, default_audience: str, *, clock: Callable[[], float] = time.time
) -> Signer:
    """The signer that the configuration asks for.

    `public_url` becomes `iss` and `default_audience` (the upstream's URL) `aud` of the JWT scheme, unless
    `signing.audience` says otherwise. Raises `keys.KeyFault` for keys that cannot sign.
    """
    schedule = load_schedule(signing.algorithm, signing.keys)
    schedule.signing(clock())  # A schedule that has not begun is refused at start, not at the first request.
    if signing.scheme is SigningScheme.JWT:
        return AssertionSigner(schedule, signing.expires, public_url, signing.audience or default_audience)
    return MessageSigner(schedule, signing.expires)


def jwks(signing: Signing, clock: Callable[[], float] = time.time) -> bytes:
    """The JWK Set of `/akoya/jwks.json` (RFC 7517 section 5): public keys only, an empty set for shared secrets.

    Made anew when asked, for the schedule moves with time. Raises `keys.KeyFault`.
    """
    published = load_schedule(signing.algorithm, signing.keys).published(clock())
    return json.dumps({"keys": published}, separators=(",", ":")).encode()


def jwks_headers() -> Headers:
    """Headers of the JWK Set's answer."""
    return [
        (b"content-type", b"application/jwk-set+json"),
        (b"cache-control", b"public, max-age=%d, stale-while-revalidate=3600" % JWKS_MAX_AGE),
        (b"access-control-allow-origin", b"*"),
    ]
