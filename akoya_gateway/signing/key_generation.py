"""New signing keys, and the next one put into a JWK Set. Pure but for the randomness."""

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
    """A shared secret is 64 characters of base64url: some libraries want a whole block of SHA-256."""
    if algorithm is SigningAlgorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm is SigningAlgorithm.ECDSA_P256_SHA256:
        return ec.generate_private_key(ec.SECP256R1())
    return base64.urlsafe_b64encode(os.urandom(48))


def as_text(private: PrivateKey) -> str:
    """PKCS #8 PEM, or the secret itself."""
    if isinstance(private, bytes):
        return private.decode() + "\n"
    form = serialization.PrivateFormat.PKCS8
    return private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def as_jwk(private: PrivateKey, now: float, not_before: float | None = None) -> dict[str, Any]:
    """RFC 7517, private; `iat` says when it was made, `nbf` from when it signs."""
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
    return json.dumps({"keys": jwks}, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did. `text` is the new content of the file."""

    text: str
    next_id: str
    begins_at: float
    dropped: tuple[str, ...]


def rotate(text: str, algorithm: SigningAlgorithm, now: float, lead: float) -> Rotation:
    """A JWK Set with one more key, which signs from `now + lead` and is published at once.

    The key that signs now gets its end; keys that nothing valid can be signed with any more are dropped. `lead` (in
    seconds) should be longer than verifiers keep the key set. Raises `keys.KeyFault` for a set that cannot be used.
    """
    jwks: list[dict[str, Any]] = json.loads(text)["keys"]
    loaded = load_keys(algorithm, SigningKey("", Secret(text)))
    schedule = KeySchedule(loaded)
    current = schedule.signing(now)
    begins_at = float(int(now + lead))
    cached: list[dict[str, Any]] = []
    dropped: list[str] = []
    for jwk, key in zip(jwks, loaded, strict=True):
        if key is current:
            cached.append({**jwk, "exp": int(begins_at)} if key.not_after is None or key.not_after < begins_at else jwk)
        elif key.published_at(now):
            cached.append(jwk)
        else:
            dropped.append(key.id)
    added = as_jwk(generate_private_key(algorithm), now, begins_at)
    return Rotation(as_set([added, *cached]), added["kid"], begins_at, tuple(dropped))


def newest_key_time(text: str) -> float:
    """When the newest key of a JWK Set was made (`iat`), Unix seconds; 0 when none says."""
    made = (jwk.get("iat", 0) for jwk in json.loads(text)["keys"])
    return max((float(moment) for moment in made if isinstance(moment, int | float)), default=0.0)


def state(schedule: KeySchedule, key: LoadedKey, now: float) -> str:
    """In words, for people."""
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
