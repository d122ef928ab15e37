"""Generates signing keys and adds the next key to a JWK Set. Reads and writes no files."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from joserfc.jwk import ECKey, OKPKey

from akoya_gateway.config.model import SigningAlgorithm, SigningKey
from akoya_gateway.secret import Secret
from akoya_gateway.signing.keys import (
    PUBLISHED_AFTER_SECONDS,
    KeySchedule,
    LoadedKey,
    PrivateKey,
    load_keys,
    thumbprint,
)


def generate_private_key(algorithm: SigningAlgorithm) -> PrivateKey:
    """Generate a private key for `algorithm`.

    A shared secret is 64 base64url characters long, because some libraries require a full SHA-256 block.
    """
    if algorithm is SigningAlgorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm is SigningAlgorithm.ECDSA_P256_SHA256:
        return ec.generate_private_key(ec.SECP256R1())
    return base64.urlsafe_b64encode(os.urandom(48))


def as_text(private: PrivateKey) -> str:
    """Return the key as PKCS #8 PEM, or a shared secret as is."""
    if isinstance(private, bytes):
        return private.decode() + "\n"
    form = serialization.PrivateFormat.PKCS8
    return private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def as_jwk(private: PrivateKey, now: float, not_before: float | None = None) -> dict[str, Any]:
    """Return the private JWK (RFC 7517), with its creation time as `iat` and `not_before` as `nbf`."""
    if isinstance(private, bytes):
        members: dict[str, Any] = {"kty": "oct", "k": base64.urlsafe_b64encode(private).rstrip(b"=").decode()}
    else:
        kind = OKPKey if isinstance(private, ed25519.Ed25519PrivateKey) else ECKey
        members = dict(kind.import_key(as_text(private)).as_dict(private=True))
    members.update(kid=thumbprint(private), use="sig", iat=int(now))
    if not_before is not None:
        members["nbf"] = int(not_before)
    return members


def as_set(jwks: list[dict[str, Any]]) -> str:
    """Return the JWK Set as JSON text."""
    return json.dumps({"keys": jwks}, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Rotation:
    """Result of a rotation. `text` is the new content of the file."""

    text: str
    next_id: str
    begins_at: float
    dropped: tuple[str, ...]


def rotate(text: str, algorithm: SigningAlgorithm, now: float, lead: float) -> Rotation:
    """Add a key to a JWK Set. It is published immediately and signs from `now + lead`.

    The current signing key expires no earlier than the new key starts to sign: its `exp` is set to that time, unless
    it is later. Keys that are no longer published are removed, because no valid signature by them can exist.

    Args:
        text: The JWK Set.
        algorithm: The algorithm of all its keys.
        now: Unix seconds.
        lead: Seconds until the new key signs. Should be longer than verifiers cache the key set.

    Raises:
        InvalidSigningKey: The set cannot be used.
    """
    jwks: list[dict[str, Any]] = json.loads(text)["keys"]
    loaded = load_keys(algorithm, SigningKey("", Secret(text)))
    schedule = KeySchedule(loaded)
    current = schedule.signing(now)
    begins_at = float(int(now + lead))
    kept: list[dict[str, Any]] = []
    dropped: list[str] = []
    for jwk, key in zip(jwks, loaded, strict=True):
        if key is current:
            kept.append({**jwk, "exp": int(begins_at)} if key.not_after is None or key.not_after < begins_at else jwk)
        elif key.published_at(now):
            kept.append(jwk)
        else:
            dropped.append(key.id)
    added = as_jwk(generate_private_key(algorithm), now, begins_at)
    return Rotation(as_set([added, *kept]), added["kid"], begins_at, tuple(dropped))


def newest_key_time(text: str) -> float:
    """Return the latest `iat` in a JWK Set, in Unix seconds, or 0 if no key has one."""
    made = (jwk.get("iat", 0) for jwk in json.loads(text)["keys"])
    return max((float(moment) for moment in made if isinstance(moment, int | float)), default=0.0)


def state(schedule: KeySchedule, key: LoadedKey, now: float) -> str:
    """Return a human-readable state of the key, such as "signs" or "next, in 3 d"."""
    if key is schedule.signing(now):
        return "signs"
    if key.not_before is not None and key.not_before > now:
        return f"next, in {_span(key.not_before - now)}"
    if key.not_after is not None and key.not_after <= now:
        left = key.not_after + PUBLISHED_AFTER_SECONDS - now
        return f"retired, published for another {_span(left)}" if left > 0 else "ended"
    return "published"


def _span(seconds: float) -> str:
    units = ((86_400, "d"), (3_600, "h"), (60, "min"))
    return next((f"{seconds / size:.0f} {unit}" for size, unit in units if seconds >= 2 * size), f"{seconds:.0f} s")
