"""Values in responses: numbers derived from names, amounts and times."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime


def number_of(*parts: object) -> int:
    """Return a number that is always the same for these parts."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8])


def money(cents: int) -> float:
    """Return an amount in dollars."""
    return round(cents / 100, 2)


def timestamp(at: float) -> str:
    """Format Unix seconds as Akoya does."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
