"""The keys that sign id_tokens, and the document that publishes them (RFC 7517)."""

from __future__ import annotations

import contextlib
from typing import Any

from joserfc import jwk, jwt
from joserfc.errors import BadSignatureError, JoseError

Key = jwk.RSAKey | jwk.ECKey


def new_key(alg: str) -> Key:
    """For `RS256` or `ES256`, with an id."""
    parameters: dict[str, str] = {"use": "sig", "alg": alg}
    if alg == "ES256":
        return jwk.ECKey.generate_key("P-256", parameters=parameters, auto_kid=True)  # type: ignore[arg-type]
    return jwk.RSAKey.generate_key(2048, parameters=parameters, auto_kid=True)  # type: ignore[arg-type]


class SigningKeys:
    """One key signs; `published` are the ones in the JWKS; all that ever signed still verify here."""

    def __init__(self, alg: str = "RS256", first: Key | None = None) -> None:
        self.alg = alg
        self._signing = first or new_key(alg)
        self._published = [self._signing]
        self._all = {self._signing.kid: self._signing}

    @property
    def kid(self) -> str:
        return str(self._signing.kid)

    def rotate(self, *, keep_old: bool) -> str:
        """Sign with a new key from now on; returns its id. `keep_old`: go on publishing the earlier ones."""
        self._signing = new_key(self.alg)
        self._all[self._signing.kid] = self._signing
        self._published = [self._signing, *(self._published if keep_old else ())]
        return self.kid

    def sign(self, claims: dict[str, Any], *, forged: bool = False, kid: str | None = None) -> str:
        """The compact JWT. `forged`: by a key nobody knows. `kid`: in its header, if not the signing key's id."""
        key = new_key(self.alg) if forged else self._signing
        return jwt.encode({"alg": self.alg, "typ": "JWT", "kid": kid or self.kid}, claims, key, algorithms=[self.alg])

    def verify(self, token: str) -> dict[str, Any] | None:
        """The claims, if one of our keys signed them. Times are not judged."""
        try:
            return self._claims(token)
        except (JoseError, ValueError):
            return None

    def _claims(self, token: str) -> dict[str, Any]:
        """Tried with every key: `kid` may name an older one. Raises `JoseError` if none verifies."""
        for key in list(self._all.values())[:-1]:
            with contextlib.suppress(BadSignatureError):
                return dict(jwt.decode(token, key, algorithms=[self.alg]).claims)
        return dict(jwt.decode(token, self._signing, algorithms=[self.alg]).claims)

    def document(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) for key in self._published]}
