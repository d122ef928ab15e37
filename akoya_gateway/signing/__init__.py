"""Builds and signs the `Akoya-*` headers, and publishes the keys with which the upstream verifies them."""

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
    """Return the signer for the configured scheme.

    Args:
        signing: The `signing` section of the configuration.
        public_url: The `iss` claim of the JWT scheme.
        default_audience: The `aud` claim of the JWT scheme if `signing.audience` is not set (the upstream's URL).
        clock: Returns Unix seconds.

    Raises:
        InvalidSigningKey: A key cannot be used, or no key may sign yet.
    """
    schedule = load_schedule(signing.algorithm, signing.keys)
    schedule.signing(clock())  # Fail at startup, not on the first request, if no key may sign yet.
    if signing.scheme is SigningScheme.JWT:
        return AssertionSigner(schedule, signing.expires, public_url, signing.audience or default_audience)
    return MessageSigner(schedule, signing.expires)


def jwks(signing: Signing, clock: Callable[[], float] = time.time) -> bytes:
    """Return the JWK Set of `/akoya/jwks.json` (RFC 7517 section 5).

    It contains only public keys, so it is empty for shared secrets. It is not cached, because the published keys
    change over time.

    Raises:
        InvalidSigningKey: A key cannot be used, or no key may sign yet.
    """
    published = load_schedule(signing.algorithm, signing.keys).published(clock())
    return json.dumps({"keys": published}, separators=(",", ":")).encode()


def jwks_headers() -> Headers:
    """Return the response headers for the JWK Set."""
    return [
        (b"content-type", b"application/jwk-set+json"),
        (b"cache-control", b"public, max-age=%d, stale-while-revalidate=3600" % JWKS_MAX_AGE),
        (b"access-control-allow-origin", b"*"),
    ]
