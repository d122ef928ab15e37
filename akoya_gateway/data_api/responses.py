"""What a response of Akoya's data API means for the call (docs/akoya.md section 6). No I/O."""

from __future__ import annotations

import json
from enum import Enum, auto

MAX_ERROR_BYTES = 65_536
"""Size of the largest error body in which the code is searched."""

TOKEN_REJECTED_CODES = frozenset({601, 602})
"""602: the token has expired, was revoked, or does not entitle to this data. 601: customer not found, which some
providers return after a revocation."""
TOO_MANY_REQUESTS = 1207

_UNAVAILABLE = frozenset({500, 502, 503, 504})


class Meaning(Enum):
    """What to do about a response."""

    PASS = auto()
    """Pass it on to the client."""
    TOKEN_REJECTED = auto()
    """Refresh the grant, and repeat the call with the new token."""
    LIMITED = auto()
    """Wait, and repeat the call: there were too many."""
    UNAVAILABLE = auto()
    """Repeat the call after a pause: the bank or Akoya failed."""
    TIMED_OUT = auto()
    """Give up: Akoya's own time limit of 10 s has passed."""
    REDIRECT = auto()
    """Give up: a redirect is never followed."""


def may_have_code(status: int) -> bool:
    """Return True if the body must be read to know what the response means."""
    return 400 <= status < 500


def meaning_of(status: int, body: bytes = b"") -> Meaning:
    """Return what to do about a response.

    Args:
        status: The HTTP status.
        body: The body if `may_have_code`, at most `MAX_ERROR_BYTES` bytes.
    """
    if status in _UNAVAILABLE:
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
    # No status of code 601 is documented; a 404 with it is not about an account.
    if (status in (401, 403) or (status == 404 and code == 601)) and code in TOKEN_REJECTED_CODES:
        return Meaning.TOKEN_REJECTED
    return Meaning.TOKEN_REJECTED if status == 401 and code is None else Meaning.PASS


def error_code(body: bytes) -> int | None:
    """Return Akoya's `code`: an integer, or digits in a string as FDX has it. None if the body has none."""
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
