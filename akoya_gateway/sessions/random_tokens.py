"""Random names that only their holder knows, and what is kept of them."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable

NewToken = Callable[[], str]

_FORM = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def new_token() -> str:
    """256 random bits, base64url: 43 characters."""
    return secrets.token_urlsafe(32)


def is_token(text: str) -> bool:
    """It has the form of a `new_token`: everything else is refused before anything is computed or looked up."""
    return _FORM.fullmatch(text) is not None


def digest(purpose: str, text: str) -> str:
    """SHA-256, base64url: the name a secret is stored under, so that the store gives none away. One `purpose`'s
    digest is not another's."""
    packed = hashlib.sha256(purpose.encode() + b"\0" + text.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
