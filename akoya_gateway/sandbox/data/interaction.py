"""The request headers that v3 requires (docs/akoya.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from akoya_gateway.sandbox.data.errors import DataError

TYPE = "x-akoya-interaction-type"
LAST_ACCESS = "x-akoya-last-access"
INTENT = "x-akoya-intent-type"
MAX_AHEAD = 60.0
"""How many seconds the clock of the client may be ahead."""


def facts(headers: Mapping[str, str]) -> dict[str, str | None]:
    """Return the values of these headers as properties of an event."""
    return {name.removeprefix("x-akoya-").replace("-", "_"): headers.get(name) for name in (TYPE, LAST_ACCESS, INTENT)}


def check(headers: Mapping[str, str], product: str, now: float, max_age: float | None) -> None:
    """Check the type of the interaction, when the consumer was last active, and the intent.

    Args:
        headers: The request's.
        product: `payments` requires the intent `payments`. For other products the intent is optional.
        now: Unix seconds.
        max_age: Maximum age in seconds of the last access of a `user` interaction, which cannot be in the future
            either. None: any time is accepted. A `batch` job may run long after the consumer has left.

    Raises:
        DataError: 400, a header is missing or invalid.
    """
    kind, intent = headers.get(TYPE, "").lower(), headers.get(INTENT, "").lower()
    if kind not in ("user", "batch"):
        raise DataError(400, f"{TYPE}: user or batch")
    if intent not in ("", "payments", "nonpayments"):
        raise DataError(400, f"{INTENT}: payments or nonpayments")
    if product == "payments" and intent != "payments":
        raise DataError(400, f"{INTENT}: payments, for this product")
    age = now - _utc(headers.get(LAST_ACCESS, "")).timestamp()
    if max_age is None:
        return
    if age < -MAX_AHEAD:
        raise DataError(400, f"{LAST_ACCESS}: is in the future")
    if kind == "user" and age > max_age:
        raise DataError(400, f"{LAST_ACCESS}: is {age:.0f} seconds old, for a user interaction at most {max_age:g}")


def _utc(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(400, f"{LAST_ACCESS}: an ISO 8601 time") from None
    if at.utcoffset() is None or at.utcoffset() != UTC.utcoffset(None):
        raise DataError(400, f"{LAST_ACCESS}: a time in UTC")
    return at
