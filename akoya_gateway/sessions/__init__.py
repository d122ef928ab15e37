"""The cookie, who it stands for, and authorization attempts."""

from __future__ import annotations

from akoya_gateway.sessions.authorization_attempts import (
    Attempt,
    AttemptForeign,
    Attempts,
    AttemptUnknown,
    TooManyAttempts,
)
from akoya_gateway.sessions.random_tokens import is_token, new_token
from akoya_gateway.sessions.recovery import Forwardings
from akoya_gateway.sessions.session import Session
from akoya_gateway.sessions.session_store import Sessions

__all__ = [
    "Attempt",
    "AttemptForeign",
    "AttemptUnknown",
    "Attempts",
    "Forwardings",
    "Session",
    "Sessions",
    "TooManyAttempts",
    "is_token",
    "new_token",
]
