"""Keys and claims for tests of signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from akoya_gateway.config.model import Signing, SigningAlgorithm, SigningKey, SigningScheme
from akoya_gateway.secret import Secret
from akoya_gateway.signing import ConnectionClaim, UpstreamClaims

MESSAGES: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "messages.json").read_text(encoding="utf-8")
)
KEYS = {key["algorithm"]: key for key in MESSAGES["keys"]}
NOW = 1_790_000_000.0
FULL = UpstreamClaims(
    owner="o-3Jd9Qm1Zx",
    connections=(
        ConnectionClaim("mikomo", "live", 1790000900, "g_3q2-7wQBAgMEBQYHCAkKCw"),
        ConnectionClaim("second-bank", "live", 1790000600, "g_AAECAwQFBgcICQoLDA0ODw"),
        ConnectionClaim("second-bank", "revoked", 0, "g_Dw4NDAsKCQgHBgUEAwIBAA"),
    ),
    rule="access[1] /api/banks/{connector}/*",
    connector="mikomo",
    environment="sandbox",
    bearer=Secret("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtaWtvbW9fMSJ9.c2lnbmF0dXJl"),
    expires_at=1790000900,
    scope=("openid", "profile", "offline_access"),
    provider="mikomo-provider",
    grant="g_3q2-7wQBAgMEBQYHCAkKCw",
    consent="7f0c2c52-grant",
    last_access=1_789_999_957,
    id_tokens=(
        ("mikomo", Secret("eyJhbGciOiJSUzI1NiJ9.e30.c2ln")),
        ("second-bank", Secret("eyJhbGciOiJSUzI1NiJ9.e31.c2ln")),
    ),
)


def signing(algorithm: str, scheme: SigningScheme = SigningScheme.HTTP_MESSAGE_SIGNATURES) -> Signing:
    """The configuration of a gateway that signs with the key of the vectors."""
    key = KEYS[algorithm]
    text = key.get("secret") or json.dumps(key["private_jwk"])
    return Signing(scheme, SigningAlgorithm(algorithm), (SigningKey(key["kid"], Secret(text)),))
