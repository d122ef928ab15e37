"""Classifies responses of Akoya's data APIs (docs/akoya.md section 6). No I/O."""

from __future__ import annotations

import json
from enum import Enum, auto

MAX_ERROR_BYTES = 65_536
"""Maximum size of an error body that is searched for Akoya's code."""

TOKEN_REJECTED_CODES = frozenset({601, 602})
"""602: the token has expired, was revoked, or does not cover this data. 601: customer not found, which some
providers return after a revocation."""
TOO_MANY_REQUESTS = 1207

_UNAVAILABLE = frozenset({500, 502, 503, 504})


class Meaning(Enum):
    """What to do about a response."""

    PASS = auto()
    """Pass it on to the client."""
    TOKEN_REJECTED = auto()
    """Refresh the grant, and retry the call with the new token."""
    LIMITED = auto()
    """Wait, and retry the call: there were too many calls."""
    UNAVAILABLE = auto()
    """Retry the call after a pause: the bank or Akoya failed."""
    TIMED_OUT = auto()
    """Give up: Akoya's own timeout of 10 s has passed."""
    REDIRECT = auto()
    """Give up: a redirect is never followed."""


def may_have_code(status: int) -> bool:
    """Return True if the body must be read to classify the response."""
    return 400 <= status < 500


def meaning_of(status: int, body: bytes = b"") -> Meaning:
    """Return what to do about a response.

    Args:
        status: The HTTP status.
        body: The body if `may_have_code`. Bodies over `MAX_ERROR_BYTES` are not searched for a code.
    """
    if status in _UNAVAILABLE or status >= 600:  # No such status exists, and ASGI servers cannot send it.
        return Meaning.UNAVAILABLE
    if status == 408:
        return Meaning.TIMED_OUT
    if 300 <= status < 400 and status != 304:
        return Meaning.REDIRECT
    if not may_have_code(status):
        return Meaning.PASS
    code = error_code(body)
    if status == 429 or code == TOO_MANY_REQUESTS:
        return Meaning.LIMITED
    # The status that comes with code 601 is not documented. A 404 with it is not about a missing account.
    if (status in (401, 403) or (status == 404 and code == 601)) and code in TOKEN_REJECTED_CODES:
        return Meaning.TOKEN_REJECTED
    return Meaning.TOKEN_REJECTED if status == 401 and code is None else Meaning.PASS


def error_code(body: bytes) -> int | None:
    """Return Akoya's `code`, an integer or (as in FDX) digits in a string, or None if the body has none."""
    if len(body) > MAX_ERROR_BYTES:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    code = document.get("code") if isinstance(document, dict) else None
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) <= 9:
        return int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) else None
