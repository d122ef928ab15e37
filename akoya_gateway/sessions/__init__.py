"""The cookie, who it stands for, and authorization attempts."""

from __future__ import annotations

from akoya_gateway.sessions.attempts import Attempt, AttemptForeign, Attempts, AttemptUnknown, TooManyAttempts
from akoya_gateway.sessions.book import Sessions
from akoya_gateway.sessions.forwarding import Forwardings
from akoya_gateway.sessions.session import Session
from akoya_gateway.sessions.tokens import is_token, new_token

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
