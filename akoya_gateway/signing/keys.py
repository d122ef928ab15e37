"""Signing keys: parsing (PEM, JWK or shared secret), scheduling and publishing.

A key file may contain one PEM, one private JWK (RFC 7517) or a private JWK Set. Keys of a set are scheduled by their
members `nbf` and `exp` (Unix seconds; registered for JWKs by OpenID Federation 1.0 section 8.7). A key signs from
`nbf` until `exp`, or until a key with a later `nbf` starts to sign. It is published before, during and after that
time. Replicas that read the same file therefore switch keys at the same moment, and verifiers never see a signature
by a key that they could not have fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey

from akoya_gateway.config.model import SigningAlgorithm, SigningKey

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | bytes
"""A private key. `bytes` is the shared secret of `hmac-sha256`."""

JWKS_MAX_AGE = 300
"""Seconds for which a verifier may cache the key set (`Cache-Control` of `/akoya/jwks.json`)."""

PUBLISHED_AFTER_SECONDS = 3600.0
"""Seconds for which a key stays published after its `exp`. Longer than the lifetime of any signature."""

MIN_SECRET_BYTES = 32
"""Minimum length of a shared secret in bytes. RFC 7518 section 3.2 requires a key at least as long as the hash."""


class InvalidSigningKey(ValueError):
    """A signing key cannot be used. The message names the key and the remedy, and never contains key material."""


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A parsed key. It may sign from `not_before` until `not_after` (Unix seconds)."""

    id: str
    algorithm: SigningAlgorithm
    private: PrivateKey = field(repr=False)
    not_before: float | None = None
    not_after: float | None = None

    def signs_at(self, now: float) -> bool:
        """Return True if the key may sign at `now`."""
        return (self.not_before is None or self.not_before <= now) and (self.not_after is None or now < self.not_after)

    def published_at(self, now: float) -> bool:
        """Return True if the key belongs in the JWK Set at `now`."""
        return self.not_after is None or now < self.not_after + PUBLISHED_AFTER_SECONDS

    def public_jwk(self) -> dict[str, str] | None:
        """Return the public JWK with `kid`, `use` and `alg` (RFC 7517), or None for a shared secret."""
        if isinstance(self.private, bytes):
            return None
        return {**_public_members(self.private), "kid": self.id, "use": "sig", "alg": JWS_ALGORITHM[self.algorithm]}

    def public_pem(self) -> str | None:
        """Return the public key as PEM, or None for a shared secret."""
        if isinstance(self.private, bytes):
            return None
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


JWS_ALGORITHM = {
    SigningAlgorithm.ED25519: "EdDSA",
    SigningAlgorithm.ECDSA_P256_SHA256: "ES256",
    SigningAlgorithm.HMAC_SHA256: "HS256",
}
"""The JWS `alg` of each algorithm (RFC 7518 section 3.1, RFC 8037)."""


class KeySchedule:
    """Decides which key signs at a given time and which keys are published."""

    def __init__(self, keys: Sequence[LoadedKey]) -> None:
        """Raise `InvalidSigningKey` if there are no keys or two keys have the same id."""
        if not keys:
            raise InvalidSigningKey("signing.keys is empty: make one with `akoya-gateway keys new`")
        ids = [key.id for key in keys]
        if len(set(ids)) != len(ids):
            raise InvalidSigningKey(f"signing.keys: two keys have the id {next(i for i in ids if ids.count(i) > 1)!r}")
        self.keys = tuple(keys)

    def signing(self, now: float) -> LoadedKey:
        """Return the key that signs at `now`: the one with the latest `nbf` among the keys that may sign.

        If several have the same `nbf`, the first in the list is returned. If all keys have expired because they were
        not rotated, the one that expired last is returned: the expiry of a signing key is planned, not a sign of
        compromise, and must not stop the gateway.

        Raises:
            InvalidSigningKey: No key may sign yet.
        """
        begun = [key for key in self.keys if key.not_before is None or key.not_before <= now]
        if not begun:
            raise InvalidSigningKey("signing.keys: no key may sign yet (nbf lies ahead); check the clock or add a key")
        able = [key for key in begun if key.signs_at(now)]
        if able:
            return max(able, key=lambda key: key.not_before or 0.0)
        return max(begun, key=lambda key: key.not_after or 0.0)

    def changes_after(self, now: float) -> float:
        """Return the next time at which the signing key may change, in Unix seconds, or infinity."""
        moments = (m for key in self.keys for m in (key.not_before, key.not_after) if m is not None and m > now)
        return min(moments, default=float("inf"))

    def published(self, now: float) -> list[dict[str, str]]:
        """Return the public JWKs: the signing key first, then upcoming and retired keys."""
        current = self.signing(now)
        ordered = [current, *(key for key in self.keys if key is not current and key.published_at(now))]
        return [jwk for key in ordered if (jwk := key.public_jwk()) is not None]


def load_schedule(algorithm: SigningAlgorithm, keys: Sequence[SigningKey]) -> KeySchedule:
    """Return the schedule of all configured keys.

    Raises:
        InvalidSigningKey: A key cannot be used or is not for `algorithm`.
    """
    return KeySchedule([key for one in keys for key in load_keys(algorithm, one)])


def load_keys(algorithm: SigningAlgorithm, key: SigningKey) -> list[LoadedKey]:
    """Parse one entry of `signing.keys`: a PEM, a JWK, a JWK Set or the shared secret of `hmac-sha256`.

    The key id is the configured one, or else the JWK's `kid`, or else the RFC 7638 thumbprint. For a JWK Set the
    configured id is ignored. A shared secret is the UTF-8 text without surrounding white space.

    Raises:
        InvalidSigningKey: A key cannot be used or is not for `algorithm`.
    """
    name = f"signing.keys: key {key.id!r}" if key.id else "signing.keys: key"
    text = key.material.reveal().strip()
    if text.startswith("{"):
        return [_from_jwk(algorithm, jwk, key.id if not several else "", name) for jwk, several in _jwks(text, name)]
    if algorithm is SigningAlgorithm.HMAC_SHA256:
        return [_from_secret(text.encode(), key.id, name)]
    return [_loaded(algorithm, _private_pem(text, name), key.id, name)]


def thumbprint(private: PrivateKey) -> str:
    """Return the RFC 7638 thumbprint (SHA-256, base64url).

    For a shared secret it is a prefixed digest instead of the RFC 7638 thumbprint. The id is public, so it must not
    reveal a plain hash of the secret that something else might use.
    """
    if isinstance(private, bytes):
        return _base64url(hashlib.sha256(b"akoya-gateway key id\0" + private).digest()[:12])
    members = json.dumps(_public_members(private), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(members.encode()).digest())


def _jwks(text: str, name: str) -> list[tuple[dict[str, Any], bool]]:
    try:
        document = json.loads(text)
    except ValueError:
        raise InvalidSigningKey(f"{name} starts with `{{` but is not valid JSON") from None
    if not isinstance(document, dict):
        raise InvalidSigningKey(f"{name} is not a JWK")
    if "keys" not in document:
        return [(document, False)]
    if not isinstance(document["keys"], list) or not all(isinstance(jwk, dict) for jwk in document["keys"]):
        raise InvalidSigningKey(f"{name}: `keys` of a JWK Set must be a list of keys (RFC 7517 section 5)")
    return [(jwk, True) for jwk in document["keys"]]


def _from_jwk(algorithm: SigningAlgorithm, jwk: dict[str, Any], configured_id: str, name: str) -> LoadedKey:
    key_id = configured_id or str(jwk.get("kid") or "")
    bounds = {"not_before": _moment(jwk, "nbf", name), "not_after": _moment(jwk, "exp", name)}
    try:
        if jwk.get("kty") == "oct":
            return _loaded(algorithm, OctKey.import_key(jwk).raw_value, key_id, name, **bounds)
        kind = OKPKey if jwk.get("kty") == "OKP" else ECKey
        private = kind.import_key(jwk).private_key
    except (JoseError, ValueError, TypeError, KeyError):
        raise InvalidSigningKey(f"{name} is not a usable JWK") from None
    if private is None:
        raise InvalidSigningKey(f"{name} is a public JWK (no `d`): the gateway needs the private one")
    return _loaded(algorithm, private, key_id, name, **bounds)


def _moment(jwk: dict[str, Any], member: str, name: str) -> float | None:
    value = jwk.get(member)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return None if value is None else float(value)
    raise InvalidSigningKey(f"{name}: `{member}` of a JWK is a number of Unix seconds")


def _from_secret(secret: bytes, key_id: str, name: str) -> LoadedKey:
    if secret.startswith(b"-----BEGIN"):
        raise InvalidSigningKey(f"{name} is a PEM, but signing.algorithm hmac-sha256 takes a shared secret")
    return _loaded(SigningAlgorithm.HMAC_SHA256, secret, key_id, name)


def _private_pem(text: str, name: str) -> Any:
    try:
        return serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise InvalidSigningKey(
            f"{name} is an encrypted PEM; give it unencrypted, readable by the gateway alone"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidSigningKey(
            f"{name} is neither a private key in PEM nor a JWK; see `akoya-gateway keys new`"
        ) from None


def _loaded(
    algorithm: SigningAlgorithm,
    private: Any,
    key_id: str,
    name: str,
    *,
    not_before: float | None = None,
    not_after: float | None = None,
) -> LoadedKey:
    if kind_of(private) is not algorithm:
        raise InvalidSigningKey(
            f"{name} does not fit signing.algorithm {algorithm.value}: see `akoya-gateway keys new --help`"
        )
    if isinstance(private, bytes) and len(private) < MIN_SECRET_BYTES:
        raise InvalidSigningKey(
            f"{name} is a secret of {len(private)} bytes; hmac-sha256 needs at least {MIN_SECRET_BYTES}"
        )
    if key_id and not (key_id.isascii() and key_id.isprintable()):
        raise InvalidSigningKey(f"{name}: an id is printable ASCII")
    return LoadedKey(key_id or thumbprint(private), algorithm, private, not_before, not_after)


def kind_of(private: object) -> SigningAlgorithm | None:
    """Return the algorithm that the key is for (RFC 9421 section 3.3), or None if it is not supported."""
    if isinstance(private, bytes):
        return SigningAlgorithm.HMAC_SHA256
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return SigningAlgorithm.ED25519
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return SigningAlgorithm.ECDSA_P256_SHA256
    return None


def _public_members(private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> dict[str, str]:
    if isinstance(private, ed25519.Ed25519PrivateKey):
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
    point = private.public_key().public_numbers()
    x, y = (_base64url(n.to_bytes(32, "big")) for n in (point.x, point.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
