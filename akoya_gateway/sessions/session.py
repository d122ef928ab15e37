"""The session and its stored form. It names the owner that the browser acts for and holds no token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from akoya_gateway.config.model import Cookie
from akoya_gateway.errors import OperatorError, UserError
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.random_tokens import digest

FORMAT = 1


class UnreadableSession(OperatorError):
    """The record has a newer format or is not a session. The error text contains nothing of its content."""

    code = "session-unreadable"


class SessionGone(UserError):
    """Another request renewed or ended the session at the same time."""

    code = "other-owner"
    title = "Your session has changed in the meantime"


@dataclass(frozen=True, slots=True)
class Session:
    """One session of a browser.

    `id` is the digest of the cookie's value, never the value itself. Times are Unix seconds. `created_at` is when the
    first of its IDs was issued: renewal does not extend the lifetime. `csrf` is the token that the gateway's own forms
    contain and its POST routes compare.
    """

    id: str
    owner: str
    created_at: float
    seen_at: float
    csrf: Secret = field(repr=False)
    version: int = 1

    def ends_at(self, cookie: Cookie) -> float:
        """Return when the session ends, because of idleness or age, whichever comes first."""
        return min(self.seen_at + cookie.idle, self.created_at + cookie.lifetime)

    def csrf_matches(self, text: str) -> bool:
        """Compare the CSRF token in constant time."""
        return self.csrf == Secret(text)


def id_of(cookie_value: str) -> str:
    """Return the ID of the session that this cookie value identifies."""
    return digest("akoya-gateway session", cookie_value)


def encode(session: Session) -> bytes:
    """Return the body of the session's record."""
    document = {
        "format": FORMAT,
        "owner": session.owner,
        "created_at": session.created_at,
        "seen_at": session.seen_at,
        "csrf": session.csrf.reveal(),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode(session_id: str, version: int, body: bytes) -> Session:
    """Decode the body of a session's record. Raises `UnreadableSession`."""
    try:
        document: Any = json.loads(body)
        if document["format"] == FORMAT:
            return Session(
                id=session_id,
                owner=document["owner"],
                created_at=document["created_at"],
                seen_at=document["seen_at"],
                csrf=Secret(document["csrf"]),
                version=version,
            )
    except (ValueError, KeyError, TypeError):
        raise UnreadableSession("a session in the store cannot be read") from None
    raise UnreadableSession("a session in the store was written by a newer release: run that release")


def touch(session: Session, now: float) -> Session:
    """Return the next version of the session, last seen at `now`."""
    return replace(session, seen_at=now, version=session.version + 1)
