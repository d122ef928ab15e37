"""Verification of a body against its Content-Digest (RFC 9530)."""

from __future__ import annotations

import hashlib
import hmac

from akoya_verify.result import NotVerified
from akoya_verify.structured_fields import Item, parse_dictionary


def body_matches(content_digest: str, body: bytes) -> bool:
    """Return whether the value has at least one `sha-256` or `sha-512` digest and all of them match the body."""
    try:
        members = parse_dictionary(content_digest, "Content-Digest")
    except NotVerified:
        return False
    algorithms = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
    matches = [
        isinstance(member, Item)
        and isinstance(member.value, bytes)
        and hmac.compare_digest(member.value, algorithms[name](body).digest())
        for name, member in members.items()
        if name in algorithms
    ]
    return bool(matches) and all(matches)
