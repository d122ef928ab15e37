"""The keys that sign id_tokens, and the JWK Set that publishes them (RFC 7517)."""

from __future__ import annotations

import contextlib
from typing import Any

from joserfc import jwk, jwt
from joserfc.errors import BadSignatureError, JoseError

Key = jwk.RSAKey | jwk.ECKey


def new_key(alg: str) -> Key:
    """Generate a key with an ID for `RS256` or `ES256`."""
    parameters: dict[str, str] = {"use": "sig", "alg": alg}
    if alg == "ES256":
        return jwk.ECKey.generate_key("P-256", parameters=parameters, auto_kid=True)  # type: ignore[arg-type]
    return jwk.RSAKey.generate_key(2048, parameters=parameters, auto_kid=True)  # type: ignore[arg-type]


class SigningKeys:
    """The current signing key, the published keys, and all earlier keys, with which the emulator still verifies."""

    def __init__(self, alg: str = "RS256", first: Key | None = None) -> None:
        self.alg = alg
        self._signing = first or new_key(alg)
        self._published = [self._signing]
        self._all = {self._signing.kid: self._signing}

    @property
    def kid(self) -> str:
        return str(self._signing.kid)

    def rotate(self, *, keep_old: bool) -> str:
        """Sign with a new key from now on and return its ID. With `keep_old` the earlier keys stay published."""
        self._signing = new_key(self.alg)
        self._all[self._signing.kid] = self._signing
        self._published = [self._signing, *(self._published if keep_old else ())]
        return self.kid

    def sign(self, claims: dict[str, Any], *, forged: bool = False, kid: str | None = None) -> str:
        """Return a signed compact JWT.

        Args:
            forged: Sign with a random, unpublished key.
            kid: The key ID for the header. Defaults to that of the signing key.
        """
        key = new_key(self.alg) if forged else self._signing
        return jwt.encode({"alg": self.alg, "typ": "JWT", "kid": kid or self.kid}, claims, key, algorithms=[self.alg])

    def verify(self, token: str) -> dict[str, Any] | None:
        """Return the claims if one of the emulator's keys signed the token, else None. Does not check times."""
        try:
            return self._claims(token)
        except (JoseError, ValueError):
            return None

    def _claims(self, token: str) -> dict[str, Any]:
        """Try every key, because `kid` may name an older one. Raises `JoseError` if no key verifies the token."""
        for key in list(self._all.values())[:-1]:
            with contextlib.suppress(BadSignatureError):
                return dict(jwt.decode(token, key, algorithms=[self.alg]).claims)
        return dict(jwt.decode(token, self._signing, algorithms=[self.alg]).claims)

    def document(self) -> dict[str, Any]:
        """Return the JWK Set of the published keys."""
        return {"keys": [key.as_dict(private=False) for key in self._published]}
