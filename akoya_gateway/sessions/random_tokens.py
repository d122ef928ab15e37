"""Random tokens that only their holder knows, and the digests under which the gateway stores them."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable

NewToken = Callable[[], str]

_FORM = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def new_token() -> str:
    """Return 256 random bits as 43 base64url characters."""
    return secrets.token_urlsafe(32)


def is_token(text: str) -> bool:
    """Return True if the text has the form of a `new_token`. Checked before any text is hashed or looked up."""
    return _FORM.fullmatch(text) is not None


def digest(purpose: str, text: str) -> str:
    """Return the SHA-256 of the text, base64url-encoded.

    Secrets are stored under their digest, so that the store does not reveal them. Digests for different purposes
    differ.
    """
    packed = hashlib.sha256(purpose.encode() + b"\0" + text.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
