"""Content-Digest (RFC 9530) of a body that is completely in memory."""

from __future__ import annotations

import hashlib
from base64 import b64encode


def sha256(body: bytes) -> bytes:
    """Return the Content-Digest value `sha-256=:...:` (RFC 9530 section 2)."""
    return b"sha-256=:%s:" % b64encode(hashlib.sha256(body).digest())
