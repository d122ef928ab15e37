"""Reads a JWK Set (RFC 7517) into keys that can verify signatures.

The algorithms of a key are determined by its type, its curve and its own `alg`, never by a token's header (RFC 8725
section 3.1). Encryption keys, symmetric keys, keys that are too small, and keys that can be factored (ROCA) are
skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import base64_to_int

from akoya_gateway.oauth.roca import has_roca_fingerprint
from akoya_gateway.oauth.untrusted_text import UnreadableJSON, json_object

MAX_KEYS = 1024
"""More keys than any provider needs: reading as many takes 70 ms, once for each fetch."""
MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_KID = 512

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),  # RFC 8037; the fully specified name is from RFC 9864
}
ALGORITHMS = _RSA.union(*_CURVES.values())
"""All supported algorithms. No key verifies any other."""
_BASE64URL = str.maketrans("+/", "-_")
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and the algorithms that it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    key: RSAKey | ECKey | OKPKey = field(repr=False, compare=False)

    def verifies(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Return True if this key made `signature` over `signing_input` (RFC 7515 section 5.2). Never raises."""
        if algorithm not in self.algorithms:
            return False
        model = JWSRegistry.algorithms[algorithm]
        try:
            model.check_key(self.key)
            return bool(model.verify(signing_input, signature, self.key))
        except (JoseError, ValueError, TypeError):
            return False


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one JWK Set."""

    keys: tuple[VerificationKey, ...]
    skipped: int = 0
    """Number of unusable members."""

    def candidates(self, kid: str | None) -> tuple[VerificationKey, ...]:
        """Return the keys with this `kid`, or all keys if `kid` is None."""
        return self.keys if kid is None else tuple(key for key in self.keys if key.kid == kid)

    def fitting(self, algorithm: str, kid: str | None) -> tuple[VerificationKey, ...]:
        """Return the keys that may verify `algorithm`, those with this `kid` first.

        `kid` is only a hint (RFC 7515 section 4.1.4): Ory Hydra puts the `kid` of the original login into a refreshed
        id_token and signs it with its current key (ory/hydra#3573).
        """
        fit = [key for key in self.keys if algorithm in key.algorithms]
        return tuple(sorted(fit, key=lambda key: key.kid != kid))


class UnreadableKeys(ValueError):
    """The document is not a usable JWK Set. The text quotes nothing of it."""


def read_keys(document: bytes) -> KeySet:
    """Read a JWK Set (RFC 7517 section 5). Unknown, malformed and unsuitable members are skipped.

    Raises:
        UnreadableKeys: The document is too large or not a JWK Set, or has more than `MAX_KEYS` members or no usable
            one.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise UnreadableKeys(f"more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        members = json_object(document).get("keys")
    except UnreadableJSON as fault:
        raise UnreadableKeys(str(fault)) from None
    if not isinstance(members, list):
        raise UnreadableKeys("no array named keys")
    if len(members) > MAX_KEYS:
        raise UnreadableKeys(f"more than {MAX_KEYS} keys")
    keys = tuple(key for key in map(_read_key, members) if key is not None)
    if not keys:
        raise UnreadableKeys("no usable key")
    return KeySet(keys, skipped=len(members) - len(keys))


def _read_key(member: object) -> VerificationKey | None:
    if not isinstance(member, dict) or not _may_verify(member):
        return None
    algorithms = _algorithms(member)
    if not algorithms:
        return None
    key = _import(member)
    return None if key is None else VerificationKey(read_kid(member.get("kid")), algorithms, key)


def read_kid(value: object) -> str | None:
    """Return the `kid` of a key or a token as text; some servers send a number. None if it is unreadable."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and len(value) <= MAX_KID else None


def _may_verify(member: dict[str, Any]) -> bool:
    """Check `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3)."""
    operations = member.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return False
    return member.get("use") in (None, "sig")


def _algorithms(member: dict[str, Any]) -> frozenset[str]:
    kind, curve, own = member.get("kty"), member.get("crv"), member.get("alg")
    if not all(isinstance(value, str | None) for value in (kind, curve, own)):
        return frozenset()
    possible = _RSA if kind == "RSA" else _CURVES.get((str(kind), str(curve)), frozenset())
    return possible if own is None else possible & {own}


def _import(member: dict[str, Any]) -> RSAKey | ECKey | OKPKey | None:
    """Import the public members only. Other members, including private key material, are never read.

    Some servers pad the numbers or write them in plain base64, which RFC 7518 section 2 does not allow.
    """
    needed = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}[member["kty"]]
    public: dict[str, str | list[str]] = {
        name: member[name] if name == "crv" else "".join(member[name].split()).rstrip("=").translate(_BASE64URL)
        for name in needed
        if isinstance(member.get(name), str) and len(member[name]) <= 2048
    }
    if len(public) != len(needed):
        return None
    public["kty"] = member["kty"]
    try:
        match member["kty"]:
            case "RSA":
                return _rsa(public)
            case "EC":
                return ECKey.import_key(public)
            case _:
                return OKPKey.import_key(public)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _rsa(public: dict[str, str | list[str]]) -> RSAKey | None:
    # Check the size before the import: joserfc warns about small keys, and verifying with a huge key is slow.
    if len(public["n"]) * 6 > _MAX_RSA_BITS + 16 or len(public["e"]) > 8:
        return None
    if not _MIN_RSA_BITS <= base64_to_int(str(public["n"])).bit_length() <= _MAX_RSA_BITS:
        return None
    key = RSAKey.import_key(public)
    return None if has_roca_fingerprint(key.public_key.public_numbers().n) else key
