"""`scheme: jwt`: one header that carries a signed JWT (RFC 7519), made once per grant and rule and reused.

Every claim is ours; nothing from the request or from the configuration can name one.
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
"""`typ` of the JOSE header (RFC 8725 section 3.11): no other JWT of ours or of Akoya's can stand in for one."""

RENEWAL_FRACTION = 0.1
"""The share of its life that is left when an assertion is made anew."""


class AssertionSigner:
    """`issuer` is `public_url`, `audience` the upstream, `expires` the life of an assertion in seconds."""

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
        header_values.headers(claims)  # The same values are refused under both schemes.
        return PreparedAssertion(self, claims)

    def sign(self, claims: UpstreamClaims, now: float) -> tuple[bytes, float]:
        """The token and its `exp`: never later than the end of the bearer that it carries."""
        key = self.keys.signing(now)
        ends = now + self.expires
        if claims.expires_at is not None:
            ends = min(ends, float(claims.expires_at))
        signed = _encoded(_jose_header(key)) + b"." + _encoded(self.claims(claims, int(now), int(ends)))
        return signed + b"." + _base64url(begin_signature(key.private).finish(signed)), float(int(ends))

    def claims(self, claims: UpstreamClaims, now: int, ends: int) -> dict[str, Any]:
        """RFC 7519 section 4.1, then ours."""
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
        """Bytes of the header line, at most."""
        longest = max((_jose_header(key) for key in self.keys.keys), key=lambda header: len(header["kid"]))
        parts = (_encoded(longest), _encoded(self.claims(claims, 10**10, 10**10)), _base64url(bytes(64)))
        return header_values.size([(header_names.ASSERTION, b".".join(parts))])


class PreparedAssertion:
    __slots__ = ("_claims", "_header", "_renew_at", "_signer", "_size")

    def __init__(self, signer: AssertionSigner, claims: UpstreamClaims) -> None:
        self._signer = signer
        self._claims = claims
        self._renew_at = float("-inf")
        self._header: tuple[bytes, bytes] = (header_names.ASSERTION, b"")
        self._size = signer.size(claims)

    @property
    def size(self) -> int:
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
        """See `PreparedHeaders.headers`. An assertion is not bound to one request: the arguments but `now` are not
        used, and a digest, which nothing here would sign, is not sent."""
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
            {"connector": one.connector, "state": one.state, "expires": one.expires_at} for one in passed.connections
        ],
    }
    return {name: value for name, value in claims.items() if value is not None}


def _jose_header(key: LoadedKey) -> dict[str, Any]:
    return {"alg": JWS_ALGORITHM[key.algorithm], "kid": key.id, "typ": TYPE}


def _encoded(part: dict[str, Any]) -> bytes:
    return _base64url(json.dumps(part, separators=(",", ":")).encode())


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
