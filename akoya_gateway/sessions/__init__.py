"""Sessions and their cookies, authorization attempts, and the recovery of sessions."""

from __future__ import annotations

from akoya_gateway.sessions.authorization_attempts import (
    AttemptOfOtherBrowser,
    AttemptUnknown,
    AuthorizationAttempt,
    AuthorizationAttempts,
    TooManyAttempts,
)
from akoya_gateway.sessions.random_tokens import is_token, new_token
from akoya_gateway.sessions.recovery import SessionRecovery
from akoya_gateway.sessions.session import Session
from akoya_gateway.sessions.session_store import SessionStore

__all__ = [
    "AttemptOfOtherBrowser",
    "AttemptUnknown",
    "AuthorizationAttempt",
    "AuthorizationAttempts",
    "Session",
    "SessionRecovery",
    "SessionStore",
    "TooManyAttempts",
    "is_token",
    "new_token",
]
