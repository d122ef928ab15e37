"""`scheme: jwt`: one header with a signed JWT (RFC 7519), created once per grant and rule and then reused.

The set of claims is fixed: neither the request nor the configuration can choose the name of a claim.
"""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from binascii import hexlify
from collections.abc import Callable
from typing import Any

from akoya_gateway.signing import header_names, header_values
from akoya_gateway.signing.algorithms import begin_signature
from akoya_gateway.signing.claims import Headers, UpstreamClaims
from akoya_gateway.signing.keys import JWS_ALGORITHM, KeySchedule, LoadedKey

TYPE = "akoya-assertion+jwt"
"""`typ` of the JOSE header (RFC 8725 section 3.11), so that no other JWT of the gateway or of Akoya is accepted."""

RENEWAL_FRACTION = 0.1
"""An assertion is renewed when this fraction of its lifetime is left."""


class AssertionSigner:
    """Signs assertions: `issuer` is `public_url`, `audience` the upstream, `expires` the lifetime in seconds."""

    def __init__(
        self,
        keys: KeySchedule,
        expires: float,
        issuer: str,
        audience: str,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.keys = keys
        self.expires = expires
        self.issuer = issuer
        self.audience = audience
        self.random = random

    def prepare(self, claims: UpstreamClaims) -> PreparedAssertion:
        """See `Signer.prepare`."""
        header_values.headers(claims)  # Only for its checks, so that both schemes reject the same values.
        return PreparedAssertion(self, claims)

    def sign(self, claims: UpstreamClaims, now: float) -> tuple[bytes, float]:
        """Return the token and its `exp`, which is never later than the expiry of a bearer token inside it."""
        key = self.keys.signing(now)
        ends = now + self.expires
        for expiry in (claims.expires_at, claims.id_tokens_end):
            if expiry is not None:
                ends = min(ends, float(expiry))
        signed = _encoded(_jose_header(key)) + b"." + _encoded(self.claims(claims, int(now), int(ends)))
        return signed + b"." + _base64url(begin_signature(key.private).finish(signed)), float(int(ends))

    def claims(self, claims: UpstreamClaims, now: int, ends: int) -> dict[str, Any]:
        """Return the registered claims (RFC 7519 section 4.1), followed by the gateway's own."""
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": claims.owner,
            "jti": hexlify(self.random(16)).decode(),
            "iat": now,
            "exp": ends,
            **_grant_claims(claims),
        }

    def size(self, claims: UpstreamClaims) -> int:
        """Return an upper bound of the header line's size in bytes."""
        longest = max((_jose_header(key) for key in self.keys.keys), key=lambda header: len(header["kid"]))
        parts = (_encoded(longest), _encoded(self.claims(claims, 10**10, 10**10)), _base64url(bytes(64)))
        return header_values.size([(header_names.ASSERTION, b".".join(parts))])


class PreparedAssertion:
    """The assertion for one set of claims. It is signed on first use and renewed before it expires."""

    __slots__ = ("_claims", "_header", "_renew_at", "_signer", "_size")

    def __init__(self, signer: AssertionSigner, claims: UpstreamClaims) -> None:
        self._signer = signer
        self._claims = claims
        self._renew_at = float("-inf")
        self._header: tuple[bytes, bytes] = (header_names.ASSERTION, b"")
        self._size = signer.size(claims)

    @property
    def size(self) -> int:
        """See `PreparedHeaders.size`."""
        return self._size

    def headers(
        self,
        method: bytes,
        authority: bytes,
        path: bytes,
        query: bytes,
        now: float,
        *,
        content_digest: bytes | None = None,
    ) -> Headers:
        """See `PreparedHeaders.headers`.

        An assertion is not bound to a request, so all arguments except `now` are ignored. The content digest is not
        sent, because the assertion would not sign it.
        """
        return [self._current_assertion(now)]

    def lines(self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float) -> bytes:
        """See `PreparedHeaders.lines`."""
        return b"%b: %b\r\n" % self._current_assertion(now)

    def _current_assertion(self, now: float) -> tuple[bytes, bytes]:
        if now >= self._renew_at:
            token, ends = self._signer.sign(self._claims, now)
            self._header = (header_names.ASSERTION, token)
            change = self._signer.keys.changes_after(now)
            self._renew_at = min(ends - RENEWAL_FRACTION * (ends - now), change)
        return self._header


def _grant_claims(passed: UpstreamClaims) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "rule": passed.rule,
        "connector": passed.connector,
        "environment": passed.environment,
        "id_token": None if passed.bearer is None else passed.bearer.reveal(),
        "expires": passed.expires_at,
        "scope": " ".join(passed.scope) or None,
        "connections": [
            {"connector": one.connector, "state": one.state, "expires": one.expires_at, "id": one.id}
            for one in passed.connections
        ],
        "provider": passed.provider,
        "grant": passed.grant,
        "consent": passed.consent,
        "interaction_type": passed.interaction_type,
        "last_access": None if passed.last_access is None else header_values.timestamp(passed.last_access),
        "id_tokens": {connector: bearer.reveal() for connector, bearer in passed.id_tokens} or None,
    }
    return {name: value for name, value in claims.items() if value is not None}


def _jose_header(key: LoadedKey) -> dict[str, Any]:
    return {"alg": JWS_ALGORITHM[key.algorithm], "kid": key.id, "typ": TYPE}


def _encoded(part: dict[str, Any]) -> bytes:
    return _base64url(json.dumps(part, separators=(",", ":")).encode())


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
