"""Verification keys. Each key has one algorithm, which a message cannot change (RFC 9421 section 3.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | bytes

_JWS = {"ed25519": "EdDSA", "ecdsa-p256-sha256": "ES256", "hmac-sha256": "HS256"}


class KeySource(Protocol):
    """A source of keys: `RemoteKeys`, or a mapping of key ID to `Key` such as `keys_of` returns."""

    def get(self, key_id: str, /) -> Key | None:
        """Return the key with this ID, or None if there is none.

        Raises:
            NotVerified: The keys cannot be fetched (`keys-unavailable`).
        """
        ...


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its algorithm: `ed25519`, `ecdsa-p256-sha256` or `hmac-sha256`."""

    id: str
    algorithm: str
    public: PublicKey = field(repr=False)

    @property
    def jws_algorithm(self) -> str:
        """The name of the algorithm in JWS."""
        return _JWS[self.algorithm]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether `signature` over `message` was made with this key. False for a malformed signature."""
        try:
            if isinstance(self.public, bytes):
                return hmac.compare_digest(signature, hmac.digest(self.public, message, "sha256"))
            if isinstance(self.public, ed25519.Ed25519PublicKey):
                self.public.verify(signature, message)
            else:
                self.public.verify(_der(signature), message, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


def secret_key(key_id: str, secret: str | bytes) -> Key:
    """Return a key for `hmac-sha256`.

    Args:
        secret: The shared secret. As text it is what the gateway is configured with, and surrounding white space is
            removed. Bytes are used unchanged.

    Raises:
        ValueError: The secret has fewer than 32 bytes, starts with a byte order mark (which the gateway rejects too),
            or is PEM text: using a public key as an HMAC secret is the classic algorithm confusion attack.
    """
    if isinstance(secret, str) and secret.startswith("\ufeff"):
        raise ValueError("the shared secret begins with a byte order mark; save it as UTF-8 without BOM")
    octets = secret.strip().encode() if isinstance(secret, str) else secret
    if len(octets) < 32:
        raise ValueError("a shared secret has at least 32 bytes")
    if octets.startswith(b"-----BEGIN"):
        raise ValueError("this is a PEM, not a shared secret")
    return Key(key_id, "hmac-sha256", octets)


def pem_key(pem: str | bytes, key_id: str = "") -> Key:
    r"""Return the key of a public key in PEM.

    Args:
        pem: Line ends may be the two characters `\n`, as in env files.
        key_id: Defaults to the RFC 7638 thumbprint, as in the gateway.

    Raises:
        ValueError: The key is neither Ed25519 nor P-256.
    """
    octets = pem.encode() if isinstance(pem, str) else pem
    public = serialization.load_pem_public_key(octets.replace(b"\\r", b"").replace(b"\\n", b"\n"))
    return _public(public, key_id)


def jwk_key(jwk: Mapping[str, Any]) -> Key:
    """Return the key of a public JWK: `OKP` with Ed25519 or `EC` with P-256.

    A symmetric JWK is rejected, so that a key set fetched from the network cannot introduce a shared secret.

    Raises:
        ValueError: The JWK is of any other kind.
    """
    try:
        if jwk["kty"] == "OKP" and jwk["crv"] == "Ed25519":
            public: Any = ed25519.Ed25519PublicKey.from_public_bytes(_base64url(jwk["x"]))
        elif jwk["kty"] == "EC" and jwk["crv"] == "P-256":
            point = b"\x04" + _base64url(jwk["x"]) + _base64url(jwk["y"])
            public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        else:
            raise ValueError("neither Ed25519 nor P-256")
    except (KeyError, TypeError) as fault:
        raise ValueError("no public JWK") from fault
    key = _public(public, str(jwk.get("kid") or ""))
    if jwk.get("alg") not in {None, key.jws_algorithm, "Ed25519"} or jwk.get("use") not in {None, "sig"}:
        raise ValueError("a JWK that is not for these signatures")
    return key


def jwks_keys(document: bytes | str) -> dict[str, Key]:
    """Return the usable keys of a JWK Set by ID. Other keys are skipped (RFC 7517 section 5).

    Raises:
        ValueError: The document is not a JWK Set.
    """
    parsed = json.loads(document)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("keys"), list):
        raise ValueError("no JWK Set")
    found: dict[str, Key] = {}
    for jwk in parsed["keys"]:
        try:
            key = jwk_key(jwk)
        except (ValueError, AttributeError, TypeError):
            continue
        found.setdefault(key.id, key)
    return found


def keys_of(keys: Iterable[Key]) -> dict[str, Key]:
    """Return a fixed key source. Raises ValueError if two keys have the same ID."""
    listed = list(keys)
    found = {key.id: key for key in listed}
    if len(found) != len(listed):
        raise ValueError("two keys have one id")
    return found


def _public(public: object, key_id: str) -> Key:
    if isinstance(public, ed25519.Ed25519PublicKey):
        return Key(key_id or _thumbprint(public), "ed25519", public)
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return Key(key_id or _thumbprint(public), "ecdsa-p256-sha256", public)
    raise ValueError("neither Ed25519 nor P-256")


def _thumbprint(public: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> str:
    if isinstance(public, ed25519.Ed25519PublicKey):
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        members = {"crv": "Ed25519", "kty": "OKP", "x": _unpadded(raw)}
    else:
        point = public.public_numbers()
        x, y = (_unpadded(n.to_bytes(32, "big")) for n in (point.x, point.y))
        members = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    return _unpadded(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


def _der(signature: bytes) -> bytes:
    """Encode a signature of r and s, 32 bytes each, as DER (RFC 9421 section 3.3.4). Raises ValueError otherwise."""
    if len(signature) != 64:
        raise ValueError("an ECDSA P-256 signature has 64 bytes")
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _base64url(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as fault:
        raise ValueError("not base64url") from fault


def verifies(keys: KeySource, key: Key, signature: bytes, signed: bytes) -> bool:
    """Return whether the signature was made with `key`, or with a key that has replaced it under the same ID.

    A replaced key is found only if `keys` can fetch (has a method `renewed`).
    """
    if key.verifies(signature, signed):
        return True
    renewed = getattr(keys, "renewed", None)
    other: Key | None = None if renewed is None else renewed(key)
    return other is not None and other.algorithm == key.algorithm and other.verifies(signature, signed)
