"""The published test vectors, and what the Python verifier makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import akoya_verify as v

VECTORS = Path(__file__).parent.parent / "vectors"
MESSAGES = json.loads((VECTORS / "messages.json").read_text(encoding="utf-8"))
ASSERTIONS = json.loads((VECTORS / "assertions.json").read_text(encoding="utf-8"))


def keys_in(document: dict[str, Any]) -> dict[str, v.Key]:
    return v.keys_of(
        v.secret_key(key["kid"], key["secret"]) if "secret" in key else v.jwk_key(key["public_jwk"])
        for key in document["keys"]
    )


def verify_message(one: dict[str, Any]) -> v.Verified:
    to = one["request"]
    return v.verify(
        to["method"],
        to["authority"],
        to["path"],
        to["query"],
        [(name, value) for name, value in to["headers"]],
        keys_in(MESSAGES),
        one["now"],
        skew=MESSAGES["skew"],
    )
