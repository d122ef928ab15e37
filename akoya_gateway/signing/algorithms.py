"""The signature algorithms. Each one can process the constant prefix of a message ahead of time.

RFC 9421 and JWS use the same signature octets (RFC 7518 section 3.4, RFC 8037 section 3.1).
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from akoya_gateway.signing.keys import PrivateKey


class SignatureContext(Protocol):
    """A signature over `constant + rest` that has already processed `constant`. It can be finished many times."""

    def finish(self, rest: bytes) -> bytes:
        """Return the signature over `constant + rest`."""
        ...


def begin_signature(key: PrivateKey, constant: bytes = b"") -> SignatureContext:
    """Return a context that signs messages beginning with `constant`."""
    if isinstance(key, bytes):
        return _Hmac(key, constant)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return _Ed25519(key, constant)
    return _Ecdsa(key, constant)


class _Hmac:
    """HMAC-SHA256 (RFC 9421 section 3.3.3).

    Keeps the inner hash of RFC 2104 after the key and the constant prefix, and the outer hash after the key. Copying
    these two costs half as much as copying an `hmac.HMAC`.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes, constant: bytes) -> None:
        block = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + constant)
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in block))

    def finish(self, rest: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(rest)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class _Ed25519:
    """Ed25519 (RFC 9421 section 3.3.6). It processes the message twice, so the prefix cannot be hashed in advance."""

    __slots__ = ("_constant", "_key")

    def __init__(self, key: ed25519.Ed25519PrivateKey, constant: bytes) -> None:
        self._key = key
        self._constant = constant

    def finish(self, rest: bytes) -> bytes:
        return self._key.sign(self._constant + rest)


class _Ecdsa:
    """ECDSA P-256 with SHA-256 (RFC 9421 section 3.3.4). The signature is r and s with 32 bytes each, not DER."""

    __slots__ = ("_hash", "_key")

    _ALGORITHM = ec.ECDSA(Prehashed(hashes.SHA256()))

    def __init__(self, key: ec.EllipticCurvePrivateKey, constant: bytes) -> None:
        self._key = key
        self._hash = hashlib.sha256(constant)

    def finish(self, rest: bytes) -> bytes:
        whole = self._hash.copy()
        whole.update(rest)
        r, s = decode_dss_signature(self._key.sign(whole.digest(), self._ALGORITHM))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
